//! What is known of a connection where no program saw nginx's sends and receives: what the
//! kernel itself remembers of it (`trace/record.rs`, `calls_unseen`). One exchange stands
//! for all before one that has no answer. What nginx's calls must have given follows from
//! what came: a FIN is read as the end of the stream, an RST makes the next call fail.

use std::borrow::Cow;

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
    if !connection.calls_unseen || connection.established_ns.is_none() {
        return Cow::Borrowed(connection);
    }
    let mut completed = connection.clone();
    completed.eof_read_ns = connection.fin_received_ns;
    completed.failed_call_ns = connection.failed_call_ns.or(connection.rst_received_ns);
    if connection.rst_received_ns.is_some() {
        completed.failed_call_errno = connection.socket_error;
    }
    Cow::Owned(completed)
}

/// How far the times of nginx's sends and receives may be off.
pub(super) const fn off_by_ns(connection: &Connection) -> u64 {
    if connection.calls_unseen { TICK_NS } else { 0 }
}

/// Is the number of exchanges not known?
pub(super) const fn is_uncounted(connection: &Connection) -> bool {
    connection.first_seen_mid_life || connection.calls_unseen
}

/// Is it known that the last request was the connection's first? Nothing has ever come
/// back.
pub(super) fn is_first(connection: &Connection) -> bool {
    !connection.first_seen_mid_life
        && connection.calls_unseen
        && connection.exchanges == 1
        && connection.response_bytes == 0
        && connection.unread_at_end.is_none()
}

/// Are the bytes of the last exchange unknown?
pub(super) fn is_unmeasured(connection: &Connection) -> bool {
    connection.calls_unseen && !is_first(connection) && !ended_before_request(connection)
}

/// A verdict that rests on what nginx sent and received, and when, is not certain.
pub(super) fn weaken(verdict: &mut Verdict, case: &Case<'_>) {
    if !case.connection().is_some_and(|found| found.calls_unseen) {
        return;
    }
    let independent = matches!(
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
    let silence_unknown = case.line.tls && verdict.cause == Cause::ClosedWithoutAnswer;
    let most = match () {
        () if silence_unknown => Confidence::Possible,
        () if independent => Confidence::Certain,
        () => Confidence::Likely,
    };
    if verdict.confidence < most {
        verdict.confidence = most;
        verdict
            .evidence
            .push("nginx's sends and receives were not seen, so this is less sure".to_owned());
    }
}
