//! A connection's life: how each kernel event changes its record.
//!
//! State changes may run in softirq context on another processor than the owner's
//! calls. Fields are written by plain stores and from one kind of context only, but
//! for `exchange_retransmits`, which a send clears: at worst it is one too many.

use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;
use tracer_ebpf::Kind;
use tracer_ebpf::connection::{CALL_NONE, CALL_SEND, Connection, END_CLOSED, END_DESTROYED};
use tracer_ebpf::continuation::NEXT_CONNECT;
use tracer_ebpf::loss;
use tracer_ebpf::upstream::UpstreamKey;

use crate::calls::NO_ANSWER_BELOW;
use crate::gaps::Unnoted;
use crate::kernel::{self, Socket};
use crate::maps::{self, count};
use crate::threads::{self, now};
use crate::{gaps, owner, peers, remembered};

// TCP states of net/tcp_states.h.
const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const FIN_WAIT1: i32 = 4;
const CLOSE: i32 = 7;
const CLOSE_WAIT: i32 = 8;
const LAST_ACK: i32 = 9;

const NS_PER_US: u64 = 1000;

/// `inet_sock_set_state`: the socket goes from one TCP state to another. Gives the
/// cookie if it is an upstream connection's. Several programs bring each change here, one
/// after the other on one processor; the later ones find all done. No two changes in a row
/// leave the same state, so the state last left tells.
#[inline(always)]
pub(crate) fn state_changed(socket: Socket, from: i32, to: i32) -> Option<u64> {
    if from == CLOSE && to == SYN_SENT {
        return begin(socket);
    }
    let Some(connection) = maps::connection(socket) else {
        peers::state_changed(socket, from, to);
        return None;
    };
    if connection.sent != 0 || connection.last_state == from as u8 {
        return None;
    }
    let cookie = connection.cookie;
    connection.last_state = from as u8;
    match to {
        ESTABLISHED => established(socket, connection),
        CLOSE_WAIT => {
            note_arrival(socket, connection);
            remembered::recall(connection, socket, true);
            connection.fin_received_ns = now();
            connection.unacked_at_fin = socket.unacked();
            // The FIN itself has taken a sequence number by now.
            peer_ended(socket, connection, socket.unread().saturating_sub(1));
        }
        FIN_WAIT1 | LAST_ACK => {
            note_arrival(socket, connection);
            remembered::recall(connection, socket, false);
            connection.unread_at_close = unread(socket, connection);
            connection.unacked_at_close = socket.unacked();
            connection.closed_ns = now();
            finish(socket, connection, END_CLOSED);
        }
        CLOSE => {
            remembered::recall(connection, socket, false);
            connection.socket_error = socket.error();
            // Without a socket error and without an RST it is this host that gave
            // the connection up: close() in SYN_SENT or with unread bytes, or a
            // connect() that failed in itself. The socket is destroyed right after.
            if connection.socket_error == 0 && connection.rst_received_ns == 0 {
                note_arrival(socket, connection);
                connection.unread_at_close = unread(socket, connection);
                connection.unacked_at_close = socket.unacked();
                connection.closed_ns = now();
            } else if connection.rst_received_ns == 0 {
                connection.unacked_at_close = socket.unacked();
                if connection.calls_unseen != 0 {
                    // The next call gives it.
                    connection.failed_call_ns = now();
                    connection.failed_call_errno = connection.socket_error;
                }
            }
        }
        _ => {}
    }
    Some(cookie)
}

/// connect() began: if nginx called it, the connection is ours from here on.
#[inline(always)]
fn begin(socket: Socket) -> Option<u64> {
    let owner = owner::current()?;
    let family = socket.tcp_family()?;
    if maps::connection(socket).is_some_and(|connection| connection.sent == 0) {
        return None;
    }
    let Some(connection) = maps::new_connection(socket) else {
        maps::lost(loss::SOCKET_STORAGE);
        return None;
    };
    let now = now();
    connection.kind = Kind::Connection as u32;
    connection.size = Connection::SIZE as u32;
    connection.netns = socket.netns();
    socket.local_address(family, &mut connection.local);
    socket.remote_address(family, &mut connection.remote);
    connection.remote_port = socket.remote_port();
    connection.family = family;
    connection.pid = owner.pid;
    connection.tid = owner.tid;
    connection.comm = owner.comm;
    // SAFETY: no arguments.
    connection.cgroup = unsafe { bpf_get_current_cgroup_id() };
    connection.opened_ns = now;
    connection.calls_unseen = u8::from(maps::calls_unseen());
    connection.upstream = maps::upstream_slot(&UpstreamKey {
        address: connection.remote,
        port: connection.remote_port,
        family,
        netns: connection.netns,
    });
    connection.cookie = socket.cookie();
    if let Some(counters) = maps::counters(connection.upstream) {
        counters.connects += 1;
    }
    threads::went_on(NEXT_CONNECT, connection.cookie, now);
    Some(connection.cookie)
}

#[inline(always)]
fn established(socket: Socket, connection: &mut Connection) {
    let now = now();
    connection.established_ns = now;
    gaps::begin(connection, socket);
    note_local_end(socket, connection);
    peers::expect(socket, connection);
    if let Some(counters) = maps::counters(connection.upstream) {
        let took = (now - connection.opened_ns) / NS_PER_US;
        count(&mut counters.connect_us, took);
    }
}

/// The kernel chooses the local port only after connect() has begun.
#[inline(always)]
fn note_local_end(socket: Socket, connection: &mut Connection) {
    let port = socket.local_port();
    if port != 0 {
        connection.local_port = port;
        socket.local_address(connection.family, &mut connection.local);
    }
}

/// What was in flight when the first FIN or RST came. An answer that nginx has not
/// read yet is an answer all the same. A request may be on its way before the send
/// that writes it has returned and is noted (the tracepoint fires at the return,
/// and a segment that arrives meanwhile is handled before it), and so may an answer be
/// nginx's before its receive is noted; the sequence numbers tell.
#[inline(always)]
fn peer_ended(socket: Socket, connection: &mut Connection, unread: u32) {
    let Unnoted { sent, received } = gaps::unnoted(connection, socket);
    let was_sent = connection.last_call == CALL_SEND;
    let sent_last = sent && (!received || socket.sent_after_arrival());
    let begun = sent && (!was_sent || (received && sent_last));
    connection.exchanges_at_end = connection.exchanges + u32::from(begun);
    connection.unread_at_end = unread;
    let awaiting = (was_sent && !received) || sent_last;
    connection.awaiting_at_end = u8::from(awaiting && unread == 0);
}

/// A busy nginx reads data long after it came: the kernel's own note of that, at the end.
/// What came and was not read is none of what nginx read last.
#[inline(always)]
fn note_arrival(socket: Socket, connection: &mut Connection) {
    if connection.last_received_ns == 0 || connection.last_arrival_ns != 0 {
        return;
    }
    let arrived = socket.last_arrival_ns();
    if arrived != 0 && arrived + 2 * kernel::tick_ns() < connection.last_received_ns {
        connection.last_arrival_ns = arrived;
    }
}

#[inline(always)]
fn unread(socket: Socket, connection: &Connection) -> u32 {
    if connection.established_ns == 0 {
        return 0;
    }
    let sequence = socket.unread();
    // A FIN takes a sequence number too.
    if connection.fin_received_ns != 0 {
        sequence.saturating_sub(1)
    } else {
        sequence
    }
}

/// `tcp_receive_reset`: an RST for this connection was accepted.
#[inline(always)]
pub(crate) fn reset_received(socket: Socket) {
    let Some(connection) = maps::connection(socket) else {
        return;
    };
    if connection.sent != 0 || connection.rst_received_ns != 0 {
        return;
    }
    note_arrival(socket, connection);
    remembered::recall(connection, socket, false);
    connection.unacked_at_rst = socket.unacked();
    if connection.fin_received_ns == 0 {
        peer_ended(socket, connection, socket.unread());
    }
    note_local_end(socket, connection);
    connection.rst_received_ns = now();
}

/// `tcp_send_reset`: this host sends an RST on the connection.
#[inline(always)]
pub(crate) fn reset_sent(socket: Socket, reason: u32) {
    let Some(connection) = maps::connection(socket) else {
        return;
    };
    if connection.sent != 0 {
        return;
    }
    connection.rst_sent_ns = now();
    connection.rst_sent_reason = reason;
}

/// `tcp_retransmit_skb`: a segment was sent again.
#[inline(always)]
pub(crate) fn retransmitted(socket: Socket) {
    let Some(connection) = maps::connection(socket) else {
        return;
    };
    connection.retransmits += 1;
    connection.exchange_retransmits += 1;
}

/// `tcp_destroy_sock`: the socket goes. Its record leaves here unless nginx's close
/// already sent it.
#[inline(always)]
pub(crate) fn destroyed(socket: Socket) {
    let Some(connection) = maps::connection(socket) else {
        return;
    };
    if connection.sent != 0 {
        return;
    }
    if connection.closed_ns == 0 {
        connection.closed_ns = now();
    }
    finish(socket, connection, END_DESTROYED);
}

/// Runs where nginx closes the socket, in the worker's own context.
#[inline(always)]
fn finish(socket: Socket, connection: &mut Connection, end: u8) {
    note_local_end(socket, connection);
    gaps::settle(connection, socket);
    let now = now();
    connection.ended_ns = now;
    connection.end = end;
    connection.line_ns = threads::last_line_ns();
    if let Some(counters) = maps::counters(connection.upstream) {
        if connection.established_ns == 0 {
            counters.connect_failures += 1;
        } else if connection.fin_received_ns != 0 {
            counters.fin_first += 1;
        } else if connection.rst_received_ns != 0 {
            counters.rst_first += 1;
        } else {
            counters.nginx_first += 1;
        }
    }
    peers::forget(socket, connection);
    maps::send_connection(connection);
    connection.sent = 1;
    let failed = connection.tid == threads::current_tid() && shows_failure(connection);
    threads::closed(connection.cookie, now, failed);
}

/// Did an attempt on this connection fail, by what it shows itself? Where nginx writes a
/// line that is not seen (no symbols, no uprobe), this says that its next step tells what
/// became of the request. What may as well be a whole answer that ends with the
/// connection is not among it.
#[inline(always)]
fn shows_failure(connection: &Connection) -> bool {
    // nginx found it ended among its idle ones, and was about no request; or its calls are
    // not seen, and its steps neither.
    if connection.idle_end != 0 || connection.calls_unseen != 0 {
        return false;
    }
    connection.established_ns == 0
        || connection.failed_call != CALL_NONE
        || connection.socket_error != 0
        || connection.rst_received_ns != 0
        || connection.unread_at_close != 0
        || connection.response_bytes < NO_ANSWER_BELOW
}
