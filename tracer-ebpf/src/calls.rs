//! nginx's sends and receives on its upstream connections.
//!
//! A call is noted by how far it has moved TCP's sequence numbers, not by the program
//! having run: so a second program at the same place finds nothing left to note, and what
//! none of them saw is found by the next one that runs (`gaps.rs`).

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use tracer_ebpf::connection::{CALL_NONE, CALL_RECEIVE, CALL_SEND, Connection};
use tracer_ebpf::continuation::NEXT_REUSE;
use tracer_ebpf::{loss, settings};

use crate::handshake::{self, Part};
use crate::kernel::Socket;
use crate::maps::{self, count};
use crate::threads::{self, now};
use crate::{SETTINGS, gaps};

const EINTR: i32 = 4;
const EAGAIN: i32 = 11;
/// Flag of recv(): look, do not take.
const MSG_PEEK: i32 = 2;

const NS_PER_US: u64 = 1000;
/// Fewer bytes are no answer and no request: over TLS a `close_notify` or an alert.
pub(crate) const NO_ANSWER_BELOW: u64 = 64;

/// `sock_send_length`: a send of nginx returned `result`.
#[inline(always)]
pub(crate) fn sent(socket: Socket, result: i32, is_twin: bool) {
    if is_missed(loss::SENDS_ON_REQUEST) {
        return;
    }
    let Some(connection) = maps::connection(socket) else {
        threads::sent_elsewhere(socket);
        return;
    };
    if result <= 0 {
        return failed(connection, CALL_SEND, result);
    }
    let written = socket.next_sequence();
    let moved = gaps::unnoted_sent(connection, written);
    if is_noted(socket, moved, is_twin) {
        return;
    }
    let now = now();
    let bytes = result.unsigned_abs();
    let mut parts = Parts {
        request: bytes,
        all: bytes,
    };
    let mut first = false;
    if may_be_flight(connection) {
        match handshake::part(connection.cookie) {
            Part::Flight => return flight_sent(connection, written, now),
            // A close_notify is a part of the close that follows it, and so no step of the
            // thread: nginx refuses a certificate after the handshake, with a line, a
            // close_notify and a close (`ngx_http_upstream_ssl_handshake`).
            Part::Farewell => return gaps::noted_sent(connection, written),
            Part::Request(done_ns) if connection.handshake_ns == 0 => {
                // What had been sent before was the handshake's.
                connection.exchanges = 0;
                connection.last_call = CALL_NONE;
                connection.handshake_ns = done_ns;
                first = true;
            }
            _ => {}
        }
    }
    if !first {
        parts = calls_before(connection, socket, moved, bytes, now);
    }
    if connection.last_call != CALL_SEND {
        begin_exchange(connection, now);
        threads::went_on(NEXT_REUSE, connection.cookie, now);
    }
    connection.request_bytes += u64::from(parts.request);
    connection.sent_bytes += u64::from(parts.all);
    connection.last_sent_ns = now;
    gaps::noted_sent(connection, written);
}

/// Has another program noted this call? Then sequence numbers have moved no further. Where
/// the kernel encrypts, a call may move none, and so the second program leaves all to the
/// first.
#[inline(always)]
fn is_noted(socket: Socket, moved: u32, is_twin: bool) -> bool {
    if moved != 0 && !is_twin {
        return false;
    }
    if socket.is_encrypted() {
        is_twin
    } else {
        moved == 0
    }
}

/// Bytes that were sent since the last call that was noted.
struct Parts {
    /// Those of this request.
    request: u32,
    all: u32,
}

/// Is this call to be missed, as the kernel would? The verifier takes this out where no
/// test asks for it.
#[inline(always)]
fn is_missed(counter: u32) -> bool {
    let percent = crate::setting(&SETTINGS, settings::MISSED_CALLS);
    // SAFETY: no arguments.
    if percent == 0 || unsafe { bpf_get_prandom_u32() } % 100 >= percent {
        return false;
    }
    maps::lost(counter);
    true
}

/// Looks whether calls before this send were missed.
#[inline(always)]
fn calls_before(
    connection: &mut Connection,
    socket: Socket,
    moved: u32,
    bytes: u32,
    now: u64,
) -> Parts {
    let more = moved > bytes;
    let read = socket.next_to_read();
    let unread = gaps::unnoted_received(connection, read);
    if !more && unread == 0 {
        let bytes = bytes.min(moved);
        return Parts {
            request: bytes,
            all: bytes,
        };
    }
    if !gaps::tell(connection, socket) {
        return Parts {
            request: bytes,
            all: bytes,
        };
    }
    if unread == 0 {
        gaps::fill_in(connection);
        return Parts {
            request: moved,
            all: moved,
        };
    }
    if more && connection.last_call != CALL_SEND {
        // The request to this answer was missed as well. Else it is the rest of the last
        // answer: nginx reads and sends in one thread.
        connection.exchanges += 1;
    }
    gaps::received(connection, socket, unread, read, now);
    Parts {
        request: bytes,
        all: moved,
    }
}

/// Is there anything to ask for? Not on a plain connection after its first send, if that
/// was seen.
#[inline(always)]
fn may_be_flight(connection: &Connection) -> bool {
    connection.exchanges == 0 || connection.handshake_ns != 0 || connection.first_seen_mid_life != 0
}

/// A flight of a TLS handshake is no request, but a step of the thread all the same.
#[inline(always)]
fn flight_sent(connection: &mut Connection, written: u32, now: u64) {
    gaps::noted_sent(connection, written);
    if connection.exchanges == 0 {
        connection.last_sent_ns = now;
        threads::went_on(NEXT_REUSE, connection.cookie, now);
    }
}

/// A request begins.
#[inline(always)]
pub(crate) fn begin_exchange(connection: &mut Connection, now: u64) {
    if connection.exchanges != 0 {
        let last = connection.last_received_ns.max(connection.last_sent_ns);
        connection.idle_before_ns = now.saturating_sub(last);
    }
    connection.exchanges += 1;
    connection.request_started_ns = now;
    connection.request_bytes = 0;
    connection.response_bytes = 0;
    connection.first_byte_ns = 0;
    connection.answered = 0;
    connection.exchange_retransmits = 0;
    connection.last_call = CALL_SEND;
    gaps::next_exchange(connection);
    if let Some(counters) = maps::counters(connection.upstream) {
        counters.exchanges += 1;
    }
}

/// `sock_recv_length`: a receive of nginx returned `result`.
#[inline(always)]
pub(crate) fn received(socket: Socket, result: i32, flags: i32, is_twin: bool) {
    if is_missed(loss::RECEIVES_ON_REQUEST) {
        return;
    }
    let Some(connection) = maps::connection(socket) else {
        return;
    };
    if flags & MSG_PEEK != 0 {
        peeked(connection, result);
    } else if result > 0 {
        taken(connection, socket, result.unsigned_abs(), is_twin);
    } else if result == 0 {
        if connection.eof_read_ns == 0 {
            connection.eof_read_ns = now();
        }
        gaps::end_read(connection, socket);
    } else {
        failed(connection, CALL_RECEIVE, result);
    }
}

#[inline(always)]
fn taken(connection: &mut Connection, socket: Socket, bytes: u32, is_twin: bool) {
    let read = socket.next_to_read();
    let moved = gaps::unnoted_received(connection, read);
    if is_noted(socket, moved, is_twin) {
        return;
    }
    let now = now();
    if may_be_flight(connection) {
        match handshake::part(connection.cookie) {
            Part::Flight | Part::Farewell => {
                if connection.exchanges == 0 {
                    connection.last_received_ns = now;
                }
                return gaps::noted_received(connection, read);
            }
            // The first send after the handshake was missed.
            Part::Request(done_ns) if connection.handshake_ns == 0 => {
                connection.handshake_ns = done_ns;
            }
            _ => {}
        }
    }
    // A FIN that was read along with the data has taken a number; bytes of a handshake are
    // none of the first answer's.
    let in_handshake = connection.handshake_ns != 0 && connection.received_bytes == 0;
    let missed = moved > bytes + 1 && !in_handshake;
    let missed = missed && gaps::tell(connection, socket);
    let all = if missed { moved } else { bytes };
    let mut answer = all;
    let was_sent = connection.last_call == CALL_SEND;
    if !was_sent && send_before(connection, socket, now) {
        // What was missed before it belongs to an answer before this one.
        answer = bytes;
    } else if missed {
        gaps::fill_in(connection);
    }
    if connection.answered == 0 {
        first_byte(connection, now);
    }
    connection.response_bytes += u64::from(answer);
    connection.received_bytes += u64::from(all);
    connection.last_received_ns = now;
    connection.last_call = CALL_RECEIVE;
    gaps::noted_received(connection, read);
}

/// Looks whether a send was missed since the receive before this one.
#[inline(always)]
fn send_before(connection: &mut Connection, socket: Socket, now: u64) -> bool {
    let written = socket.next_sequence();
    if gaps::unnoted_sent(connection, written) == 0 || !gaps::tell(connection, socket) {
        return false;
    }
    if gaps::sent(connection, socket, written, now) {
        threads::went_on(NEXT_REUSE, connection.cookie, connection.request_started_ns);
    }
    true
}

#[inline(always)]
fn first_byte(connection: &mut Connection, now: u64) {
    connection.first_byte_ns = now;
    connection.answered = 1;
    // Of a request that was under way before the connection was taken over, neither time
    // nor size are known; nor of one in which calls were missed.
    if connection.exchanges == 0
        || connection.request_started_ns <= connection.opened_ns
        || connection.filled_in != 0
    {
        return;
    }
    if let Some(counters) = maps::counters(connection.upstream) {
        let took = (now - connection.request_started_ns) / NS_PER_US;
        count(&mut counters.first_byte_us, took);
        count(&mut counters.request_bytes, connection.request_bytes);
    }
}

/// nginx looks at an idle connection with MSG_PEEK when epoll reports it (module
/// upstream_keepalive): anything but EAGAIN makes it close the connection.
#[inline(always)]
fn peeked(connection: &mut Connection, result: i32) {
    if result == -EAGAIN {
        return;
    }
    connection.idle_end_seen_ns = now();
    connection.idle_end = match result {
        0 => 1,
        1.. => 3,
        _ => 2,
    };
}

#[inline(always)]
fn failed(connection: &mut Connection, call: u8, result: i32) {
    if result == -EAGAIN || result == -EINTR || connection.failed_call != CALL_NONE || result == 0 {
        return;
    }
    connection.failed_call_ns = now();
    connection.failed_call_errno = result.unsigned_abs();
    connection.failed_call = call;
}
