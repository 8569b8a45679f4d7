//! What the kernel itself remembers of a connection's data: bytes in all, and when the
//! last of them went and came, to one of its ticks. It is all there is of a connection
//! that was open before the capture, and where no program sees nginx's sends and receives
//! (`calls_unseen`): there it is looked at when the connection ends, on either side.

use tracer_ebpf::connection::{CALL_NONE, CALL_RECEIVE, CALL_SEND, Connection};

use crate::gaps;
use crate::kernel::Socket;
use crate::threads::now;

/// Describes the data of a connection up to now; `written` is the sequence number of the
/// next byte that nginx writes, `fin` whether the peer's FIN has come. Of the exchanges
/// there was one at least if nginx had sent anything, and one before it if that has no
/// answer and data had come. Gives the bytes that nginx has not read.
#[inline(always)]
pub(crate) fn describe(record: &mut Connection, socket: Socket, written: u32, fin: bool) -> u32 {
    let now = now();
    // A FIN takes a sequence number, and counts as a byte.
    let fin_bytes = u64::from(fin);
    let unread = u64::from(socket.unread()).saturating_sub(fin_bytes);
    let received = socket.received_bytes().saturating_sub(fin_bytes);
    let unacked = socket.unacked();
    // The kernel counts the SYN as a byte that was acknowledged.
    record.sent_bytes = socket.acked_bytes().saturating_sub(1) + u64::from(unacked);
    record.received_bytes = received.saturating_sub(unread);
    gaps::noted(record, written, socket.next_to_read());
    record.exchanges = 0;
    record.last_call = CALL_NONE;
    if received > 0 {
        record.last_received_ns = socket.last_arrival_ns().min(now);
        record.last_call = CALL_RECEIVE;
    }
    if record.sent_bytes > 0 {
        record.last_sent_ns = socket.last_departure_ns().min(now);
        record.exchanges = 1;
        record.request_started_ns = record.last_sent_ns;
        record.request_bytes = record.sent_bytes;
        if received > 0 && unacked == 0 && !socket.sent_after_arrival() {
            record.first_byte_ns = record.last_received_ns;
            record.response_bytes = record.received_bytes;
            record.answered = 1;
        } else {
            record.exchanges += u32::from(received > 0);
            record.last_call = CALL_SEND;
            if received > 0 {
                record.idle_before_ns = record.last_sent_ns.saturating_sub(record.last_received_ns);
            }
        }
    }
    unread as u32
}

/// The connection ends, on either side, and nginx's calls were not seen. `fin`: it is the
/// peer's FIN that came, just now or before.
#[inline(always)]
pub(crate) fn recall(record: &mut Connection, socket: Socket, fin: bool) {
    if record.calls_unseen == 0 || record.established_ns == 0 {
        return;
    }
    if record.fin_received_ns != 0 || record.rst_received_ns != 0 {
        read_after_end(record, socket);
        return sent_after_end(record, socket);
    }
    record.first_byte_ns = 0;
    record.response_bytes = 0;
    record.answered = 0;
    record.idle_before_ns = 0;
    describe(record, socket, socket.next_sequence(), fin);
    // What was sent last is known if nothing of it was acknowledged. A FIN acknowledges too.
    let unacked = socket.unacked();
    if record.exchanges > 1 && unacked != 0 && (fin || !socket.acked_after_arrival()) {
        record.request_bytes = u64::from(unacked);
    }
    // The FIN's own segment has taken the place of the one that would tell the order within
    // a tick.
    let both = record.last_sent_ns != 0 && record.last_received_ns != 0;
    if fin && both && unacked == 0 && socket.sent_in_tick_of_arrival() {
        record.order_unknown = 1;
    }
}

/// What had come with the peer's end, nginx may have read since.
#[inline(always)]
fn read_after_end(record: &mut Connection, socket: Socket) {
    let fin = u64::from(record.fin_received_ns != 0);
    let unread = u64::from(socket.unread()).saturating_sub(fin);
    let received = socket.received_bytes().saturating_sub(fin);
    let more = received
        .saturating_sub(unread)
        .saturating_sub(record.received_bytes);
    record.received_bytes += more;
    if record.answered != 0 {
        record.response_bytes += more;
    }
}

/// What nginx sent on after the peer's end is a request of its own if it had taken all that
/// came before, and had not been waiting for more.
#[inline(always)]
fn sent_after_end(record: &mut Connection, socket: Socket) {
    let known = record.first_sequence.wrapping_add(record.sent_bytes as u32);
    let more = u64::from(socket.next_sequence().wrapping_sub(known));
    if more == 0 {
        return;
    }
    let end = record.fin_received_ns.max(record.rst_received_ns);
    let departed = socket.last_departure_ns().min(now()).max(end);
    if record.last_call == CALL_SEND || record.unread_at_end != 0 {
        record.request_bytes += more;
    } else {
        if record.exchanges != 0 {
            let active = record.last_sent_ns.max(record.last_received_ns);
            record.idle_before_ns = departed.saturating_sub(active);
        }
        record.exchanges += 1;
        record.request_started_ns = departed;
        record.request_bytes = more;
        record.response_bytes = 0;
        record.first_byte_ns = 0;
        record.answered = 0;
        record.last_call = CALL_SEND;
    }
    record.sent_bytes += more;
    record.last_sent_ns = departed;
}
