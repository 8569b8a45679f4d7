//! Sends and receives of nginx that no program saw. The kernel skips a program on a
//! processor where it has interrupted it (`recursion_misses`), which from Linux 7.0 on any
//! task may do, and until the interrupted one goes on. A skipped call still moves TCP's
//! sequence numbers: so a gap shows at the connection's next call, or at its end, and is
//! filled in with what the kernel remembers of it.

use tracer_ebpf::connection::{CALL_RECEIVE, CALL_SEND, Connection};

use crate::calls::{NO_ANSWER_BELOW, begin_exchange};
use crate::kernel::Socket;
use crate::threads::{self, now};

/// [`Connection::filled_in`] while the gap is in the last exchange.
const IN_LAST: u8 = 2;

/// The connection is established: nothing was sent or received so far.
#[inline(always)]
pub(crate) fn begin(connection: &mut Connection, socket: Socket) {
    connection.first_sequence = socket.next_sequence();
    connection.first_read_sequence = socket.next_to_read();
}

/// All is noted that was written and read before these sequence numbers. What was not
/// counted, as of a TLS handshake, is left out by moving the beginning.
#[inline(always)]
pub(crate) fn noted(connection: &mut Connection, written: u32, read: u32) {
    noted_sent(connection, written);
    noted_received(connection, read);
}

/// The same of what was written alone.
#[inline(always)]
pub(crate) fn noted_sent(connection: &mut Connection, written: u32) {
    connection.first_sequence = written.wrapping_sub(connection.sent_bytes as u32);
}

/// The same of what was read alone.
#[inline(always)]
pub(crate) fn noted_received(connection: &mut Connection, read: u32) {
    connection.first_read_sequence = read.wrapping_sub(connection.received_bytes as u32);
}

/// Bytes written before this sequence number and not noted.
#[inline(always)]
pub(crate) fn unnoted_sent(connection: &Connection, written: u32) -> u32 {
    let noted = connection.first_sequence;
    written.wrapping_sub(noted.wrapping_add(connection.sent_bytes as u32))
}

/// Bytes read before this sequence number and not noted; a FIN counts as one.
#[inline(always)]
pub(crate) fn unnoted_received(connection: &Connection, read: u32) -> u32 {
    let noted = connection.first_read_sequence;
    read.wrapping_sub(noted.wrapping_add(connection.received_bytes as u32))
}

/// Do sequence numbers tell of this connection's calls? Not before they are known, and not
/// if they count what the kernel encrypts.
#[inline(always)]
pub(crate) fn tell(connection: &Connection, socket: Socket) -> bool {
    connection.established_ns != 0 && !socket.is_encrypted()
}

/// What moved that is not noted.
pub(crate) struct Unnoted {
    pub(crate) sent: bool,
    pub(crate) received: bool,
}

/// Of this moment, before a FIN was read. A call that has not returned counts too.
#[inline(always)]
pub(crate) fn unnoted(connection: &Connection, socket: Socket) -> Unnoted {
    let sent = unnoted_sent(connection, socket.next_sequence()) != 0;
    let received = unnoted_received(connection, socket.next_to_read()) != 0;
    let tell = (sent || received) && tell(connection, socket);
    Unnoted {
        sent: sent && tell,
        received: received && tell,
    }
}

#[inline(always)]
fn count(connection: &mut Connection) {
    connection.missed_calls = connection.missed_calls.saturating_add(1);
}

/// There is a gap in the last exchange, of which the times are not exact.
#[inline(always)]
pub(crate) fn fill_in(connection: &mut Connection) {
    count(connection);
    connection.filled_in |= IN_LAST;
}

/// The last exchange is now the one before.
#[inline(always)]
pub(crate) fn next_exchange(connection: &mut Connection) {
    connection.filled_in /= IN_LAST;
}

/// A FIN was read: nothing that is still to be noted.
#[inline(always)]
pub(crate) fn end_read(connection: &mut Connection, socket: Socket) {
    let read = socket.next_to_read();
    if connection.fin_received_ns != 0 && unnoted_received(connection, read) == 1 {
        noted_received(connection, read);
    }
}

/// A send was missed, before `now`: of the request that is under way, or one that begins
/// with it; then this gives true.
#[inline(always)]
pub(crate) fn sent(connection: &mut Connection, socket: Socket, written: u32, now: u64) -> bool {
    let bytes = u64::from(unnoted_sent(connection, written));
    let before = connection.last_received_ns.max(connection.last_sent_ns);
    let at = socket.last_departure_ns().min(now).max(before);
    let begins = connection.last_call != CALL_SEND;
    if begins {
        begin_exchange(connection, at);
    }
    connection.request_bytes += bytes;
    connection.sent_bytes += bytes;
    connection.last_sent_ns = at;
    noted_sent(connection, written);
    fill_in(connection);
    begins
}

/// A receive was missed, of so many bytes and before `now`.
#[inline(always)]
pub(crate) fn received(
    connection: &mut Connection,
    socket: Socket,
    bytes: u32,
    read: u32,
    now: u64,
) {
    let before = connection.last_received_ns.max(connection.last_sent_ns);
    let at = socket.last_arrival_ns().min(now).max(before);
    if connection.answered == 0 {
        connection.first_byte_ns = at;
        connection.answered = 1;
    }
    connection.response_bytes += u64::from(bytes);
    connection.received_bytes += u64::from(bytes);
    connection.last_received_ns = at;
    connection.last_call = CALL_RECEIVE;
    noted_received(connection, read);
    fill_in(connection);
}

/// nginx closes the connection: whatever moved was done by calls that have returned.
#[inline(always)]
pub(crate) fn settle(connection: &mut Connection, socket: Socket) {
    if connection.calls_unseen != 0 {
        return;
    }
    let written = socket.next_sequence();
    let read = socket.next_to_read();
    let bytes_sent = unnoted_sent(connection, written);
    let mut bytes_received = unnoted_received(connection, read);
    // A FIN that was read has taken a number; who read it was told the end of the stream.
    if bytes_received != 0 && connection.fin_received_ns != 0 && socket.unread() == 0 {
        bytes_received -= 1;
        if connection.eof_read_ns == 0 && tell(connection, socket) {
            connection.eof_read_ns = now();
            fill_in(connection);
        }
    }
    // A close_notify is no request. There is none so short.
    let farewell = connection.handshake_ns != 0 && u64::from(bytes_sent) < NO_ANSWER_BELOW;
    let is_sent = bytes_sent != 0 && !farewell;
    let is_received = bytes_received != 0;
    if !(is_sent || is_received) || !tell(connection, socket) {
        return;
    }
    let now = now();
    let sent_last = is_received && socket.sent_after_arrival();
    let mut began = false;
    if is_sent && !sent_last {
        began = sent(connection, socket, written, now);
    }
    if is_received {
        received(connection, socket, bytes_received, read, now);
    }
    if is_sent && sent_last {
        began = sent(connection, socket, written, now);
    }
    if began {
        threads::had_gone_on(connection.cookie, connection.request_started_ns);
    }
}
