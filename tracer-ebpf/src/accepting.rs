//! The accepting side of connections at the ports asked for: what a capture on a
//! backend's host (`--role backend`) attaches. One record of each connection leaves, when
//! its process closes it or it has ended otherwise. No program on send or receive.

use tracer_ebpf::Kind;
use tracer_ebpf::accepted::Accepted;
use tracer_ebpf::loss;

use crate::kernel::{self, Socket};
use crate::threads::now;
use crate::{backends, maps};

const ESTABLISHED: i32 = 1;
const SYN_RECV: i32 = 3;
const FIN_WAIT1: i32 = 4;
const CLOSE: i32 = 7;
const CLOSE_WAIT: i32 = 8;
const LAST_ACK: i32 = 9;

/// `inet_sock_set_state`, which two programs take: whichever comes second finds the change
/// noted. A connection that came about by a SYN cookie goes through
/// SYN_RECV too: the socket made for it begins there (`tcp_create_openreq_child`).
#[inline(always)]
pub(crate) fn state_changed(socket: Socket, from: i32, to: i32) {
    match (from, to) {
        (SYN_RECV, ESTABLISHED) => {
            if let Some(accepted) = find_or_begin(socket, from)
                && accepted.established_ns == 0
            {
                accepted.established_ns = now();
                accepted.first_seen_mid_life = 0;
            }
        }
        (ESTABLISHED, CLOSE_WAIT) => {
            if let Some(accepted) = find_or_begin(socket, from)
                && accepted.fin_received_ns == 0
            {
                accepted.fin_received_ns = now();
            }
        }
        // From here a call of the owner, or its end, in whose context this runs.
        (ESTABLISHED, FIN_WAIT1) | (CLOSE_WAIT, LAST_ACK) => {
            if let Some(accepted) = find_or_begin(socket, from) {
                closed(socket, accepted);
                leave(socket, accepted);
            }
        }
        // The same with unread bytes or a linger of zero, unless an RST, a timer or an
        // administrator did it (tcp_reset, tcp_write_err, tcp_abort), which set an error
        // before. The RST that follows a close of unread bytes is still to come.
        (ESTABLISHED | CLOSE_WAIT, CLOSE) => {
            if let Some(accepted) = find_or_begin(socket, from)
                && accepted.closed_ns == 0
            {
                let error = socket.error();
                if error == 0 {
                    closed(socket, accepted);
                } else {
                    accepted.socket_error = error;
                }
            }
        }
        _ => {}
    }
}

/// A socket that a process has at the start, as the iterator over all open files comes to
/// it. One that moves meanwhile has a record already, of the program that saw it move, and
/// keeps that.
#[inline(always)]
pub(crate) fn take_over(socket: Socket) {
    let state = i32::from(socket.state());
    if matches!(state, ESTABLISHED | CLOSE_WAIT) {
        find_or_begin(socket, state);
    }
}

/// The record of a socket at a port asked for, which is in this state. One without a record
/// was open before the capture, or its beginning was missed.
#[inline(always)]
fn find_or_begin(socket: Socket, state: i32) -> Option<&'static mut Accepted> {
    if !maps::is_backend_port(socket.local_port()) {
        return None;
    }
    if let Some(accepted) = maps::accepted(socket) {
        return (accepted.sent == 0).then_some(accepted);
    }
    let family = socket.tcp_family()?;
    // A connection that this host opened may have the same port as its own.
    if state != SYN_RECV && !socket.was_accepted() {
        return None;
    }
    let mut begun = Accepted::ZERO;
    begun.kind = Kind::Accepted as u32;
    begun.size = Accepted::SIZE as u32;
    begun.netns = socket.netns();
    socket.mapped_remote_address(family, &mut begun.remote);
    socket.mapped_local_address(family, &mut begun.local);
    begun.remote_port = socket.remote_port();
    begun.local_port = socket.local_port();
    begun.first_seen_mid_life = 1;
    begun.cookie = socket.cookie();
    if state == CLOSE_WAIT {
        begun.fin_received_ns = now();
    }
    let accepted = maps::new_accepted(socket, &mut begun);
    if accepted.is_none() {
        maps::lost(loss::PEER_STORAGE);
    }
    accepted
}

/// The owner gave it up: before the socket is taken from its file, and the queue of unread
/// bytes counts by sequence numbers, of which a FIN has taken one.
#[inline(always)]
fn closed(socket: Socket, accepted: &mut Accepted) {
    accepted.closed_ns = now();
    let fin = u32::from(accepted.fin_received_ns != 0);
    accepted.closer.unread_bytes = socket.unread().saturating_sub(fin);
    describe(socket, accepted);
}

/// The process that has the socket, and whether and how it is ending: the current one, but
/// for a thread of the kernel's that puts the last reference away for one unknown.
#[inline(always)]
fn describe(socket: Socket, accepted: &mut Accepted) {
    accepted.closer.accepted = u8::from(socket.is_accepted());
    if kernel::is_kernel_thread() {
        return;
    }
    kernel::describe_current(&mut accepted.closer);
    // Of no upstream's counters: only the process's end is to be told.
    backends::ended_one(&accepted.closer, 0, accepted.closed_ns);
}

#[inline(always)]
fn leave(socket: Socket, accepted: &mut Accepted) {
    traffic(socket, accepted);
    accepted.ended_ns = now();
    accepted.sent = 1;
    maps::send_accepted(accepted);
}

/// What the kernel knows of the bytes in both directions. It counts a FIN as one received.
#[inline(always)]
pub(crate) fn traffic(socket: Socket, accepted: &mut Accepted) {
    let fin = u64::from(accepted.fin_received_ns != 0);
    accepted.received_bytes = socket.received_bytes().saturating_sub(fin);
    accepted.sent_bytes = socket.acked_bytes() + u64::from(socket.unacked());
    if accepted.received_bytes > 0 {
        accepted.last_received_ns = socket.last_arrival_ns();
    }
    if accepted.sent_bytes > 0 {
        accepted.last_sent_ns = socket.last_departure_ns();
    }
}

/// `tcp_receive_reset`: the other side's RST was accepted.
#[inline(always)]
pub(crate) fn reset_received(socket: Socket) {
    if let Some(accepted) = maps::accepted(socket)
        && accepted.sent == 0
        && accepted.rst_received_ns == 0
    {
        accepted.rst_received_ns = now();
    }
}

/// `tcp_send_reset`: this host sends an RST on the connection.
#[inline(always)]
pub(crate) fn reset_sent(socket: Socket, reason: u32) {
    if let Some(accepted) = maps::accepted(socket)
        && accepted.sent == 0
    {
        accepted.rst_sent_ns = now();
        accepted.rst_sent_reason = reason;
    }
}

/// `tcp_destroy_sock`: the socket goes. One that an RST ended does so when its process
/// closes it, in whose context this runs then.
#[inline(always)]
pub(crate) fn destroyed(socket: Socket) {
    let Some(accepted) = maps::accepted(socket) else {
        return;
    };
    if accepted.sent != 0 {
        return;
    }
    if accepted.closed_ns == 0 {
        describe(socket, accepted);
    }
    leave(socket, accepted);
}
