//! What is known of a connection where no program saw nginx's sends and receives: what the
//! kernel itself remembers of it (`trace/record.rs`). Of all connections where the programs
//! could not be attached (`calls_unseen`): one exchange stands for all before one that has
//! no answer. Of a single one where the kernel skipped a program that it had interrupted:
//! the gap shows in TCP's sequence numbers (`missed_calls`), and near the end it takes the
//! exact times (`filled_in`).
//!
//! What nginx's calls must have given follows from what came: a FIN is read as the end of
//! the stream, an RST makes the next call fail.

use std::borrow::Cow;
use std::rc::Rc;

use super::case::Case;
use super::causes::Verdict;
use super::end::ended_before_request;
use crate::report::model::{Cause, Confidence};
use crate::trace::record::{Capture, Connection};

/// A tick of the kernel's is no longer (`CONFIG_HZ=100`): so far the times of sends and
/// receives may be off.
const TICK_NS: u64 = 10_000_000;

/// The hook of nginx's sends; those of its receives share its fate.
const SENDS: &str = "sock_send_length";

/// Were nginx's calls unseen in this capture?
pub(super) fn is_so(capture: &Capture) -> bool {
    capture
        .hooks
        .iter()
        .any(|hook| hook.name == SENDS && !hook.attached)
}

/// The connection with what nginx's calls must have given.
pub(super) fn completed(connection: &Connection) -> Cow<'_, Connection> {
    if connection.calls_unseen && connection.established_ns.is_some() {
        return Cow::Owned(complete(connection));
    }
    // A read of the end that was missed is noticed when nginx closes, and came before that.
    let noticed_late =
        connection.closed_ns.is_some() && connection.eof_read_ns >= connection.closed_ns;
    if connection.filled_in && noticed_late {
        let mut earlier = connection.clone();
        earlier.eof_read_ns = connection.fin_received_ns.or(connection.eof_read_ns);
        return Cow::Owned(earlier);
    }
    Cow::Borrowed(connection)
}

fn complete(connection: &Connection) -> Connection {
    let mut completed = connection.clone();
    completed.eof_read_ns = connection.fin_received_ns;
    // An error without an RST, as after the last retransmission, has no time of its own: a
    // call met it before the line that was written before the close.
    let error_ns = connection
        .socket_error
        .and(connection.line_ns.or(connection.closed_ns));
    completed.failed_call_ns = connection
        .failed_call_ns
        .or(connection.rst_received_ns)
        .or(error_ns);
    if connection.rst_received_ns.is_some() || error_ns.is_some() {
        completed.failed_call_errno = connection.socket_error;
    }
    completed
}

/// The same of a connection that ended without a call of nginx's that met the end, if one
/// may have been missed: it moves no bytes, so no sequence number shows it.
pub(super) fn with_end_met(connection: &Connection) -> Option<Rc<Connection>> {
    let met = connection.calls_unseen
        || connection.eof_read_ns.is_some()
        || connection.failed_call_ns.is_some()
        || connection.idle_end.is_some();
    let ended = connection.fin_received_ns.is_some()
        || connection.rst_received_ns.is_some()
        || connection.socket_error.is_some();
    (ended && !met && connection.established_ns.is_some()).then(|| Rc::new(complete(connection)))
}

/// Is the call that met its end only inferred: from what came, or, of a read that was missed,
/// from the sequence numbers when nginx closed? When it was, nobody saw.
pub(crate) fn is_end_inferred(connection: &Connection) -> bool {
    !connection.calls_unseen && (is_read_inferred(connection) || is_failure_inferred(connection))
}

/// The same of a read of the end: a seen one comes after the FIN.
pub(crate) fn is_read_inferred(connection: &Connection) -> bool {
    connection.eof_read_ns.is_some() && connection.eof_read_ns == connection.fin_received_ns
}

/// The same of a failed call: of a seen one it is known which it was.
pub(crate) const fn is_failure_inferred(connection: &Connection) -> bool {
    connection.failed_call_ns.is_some() && connection.failed_call.is_none()
}

/// Do its last exchanges' times and bytes come from the kernel's memory?
pub(super) const fn is_remembered(connection: &Connection) -> bool {
    connection.calls_unseen || connection.filled_in
}

/// When the first byte of an answer came. Where the request was missed as well, it may stand
/// before it, as bytes of the exchange before.
pub(super) fn first_byte_ns(connection: &Connection) -> Option<u64> {
    let received = connection.last_received_ns;
    connection
        .first_byte_ns
        .or_else(|| received.filter(|_| connection.filled_in))
}

/// How far the times of nginx's sends and receives may be off.
pub(super) const fn off_by_ns(connection: &Connection) -> u64 {
    if is_remembered(connection) {
        TICK_NS
    } else {
        0
    }
}

/// Is the number of exchanges not known?
pub(super) const fn is_uncounted(connection: &Connection) -> bool {
    connection.first_seen_mid_life || connection.calls_unseen || connection.missed_calls > 0
}

/// Is it known that the last request was the connection's first? Nothing has ever come
/// back.
pub(super) fn is_first(connection: &Connection) -> bool {
    !connection.first_seen_mid_life
        && (connection.calls_unseen || connection.missed_calls > 0)
        && connection.exchanges == 1
        && connection.response_bytes == 0
        && (connection.calls_unseen || connection.received_bytes == 0)
        && connection.unread_at_end.is_none()
}

/// Are the bytes of the last exchange unknown?
pub(crate) fn is_unmeasured(connection: &Connection) -> bool {
    // Without any call only what came after the end is measured; a gap may hide a part of it.
    let after_the_end = !connection.filled_in && ended_before_request(connection);
    is_remembered(connection) && !is_first(connection) && !after_the_end
}

/// A verdict that rests on what nginx sent and received, and when, is not certain.
pub(super) fn weaken(verdict: &mut Verdict, case: &Case<'_>) {
    let Some(connection) = case.connection() else {
        return;
    };
    let why = match () {
        () if connection.calls_unseen => "nginx's sends and receives were not seen",
        () if case.end_not_met => {
            "the call of nginx's that met the end was not seen, and some calls were missed then"
        }
        () if connection.filled_in => {
            "some of nginx's sends or receives on this connection were missed"
        }
        () => return,
    };
    // Where the end is assumed, so is that the connection is the line's.
    let independent = !case.end_not_met
        && matches!(
            verdict.cause,
            Cause::ConnectRefused
                | Cause::ConnectTimeout
                | Cause::Unreachable
                | Cause::BacklogFull
                | Cause::NoLiveUpstreams
                | Cause::NginxResources
                | Cause::BackendKilled
                | Cause::BackendOom
                | Cause::BackendCrashed
                | Cause::BackendExited
        );
    // A close_notify is data like any other, so how long a connection was silent before its
    // end is not known.
    let silence_unknown =
        case.line.tls && is_remembered(connection) && verdict.cause == Cause::ClosedWithoutAnswer;
    let most = match () {
        () if silence_unknown => Confidence::Possible,
        () if independent => Confidence::Certain,
        () => Confidence::Likely,
    };
    if verdict.confidence < most {
        verdict.confidence = most;
        verdict
            .evidence
            .push(format!("{why}, so this is less sure"));
    } else if case.end_not_met {
        verdict.evidence.push(why.to_owned());
    }
}
