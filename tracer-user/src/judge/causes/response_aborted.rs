//! `response-aborted`: the backend ended the connection after a part of its response.
//! Requires: response bytes of the failed request, then FIN or RST. It is certain only
//! where a process of this host closed by its own call and lived on: elsewhere the end of
//! a process looks the same, and an RST may be that of something between the hosts.

use super::owner::{by_its_own_call, own_call};
use super::{Case, Remedy, Verdict, how_it_ended, in_flight, reuse, sentences};
use crate::judge::end::{ended_before_request, peer_end_ns};
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence, Phase};
use crate::trace::record::Connection;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let ended = matches!(
        case.line.kind,
        MessageKind::PrematureClose | MessageKind::ReceiveFailed
    );
    if !ended {
        return None;
    }
    // nginx reads a body only after a whole header.
    let in_body = case.phase() == Phase::Body;
    let confidence = match case.connection() {
        // The bytes may be older than the request: a message for an idle client.
        Some(connection) if ended_before_request(connection) => Confidence::Possible,
        Some(connection)
            if peer_end_ns(connection).is_some()
                && by_its_own_call(case)
                && cut_short(case, connection) =>
        {
            Confidence::Certain
        }
        Some(connection) if peer_end_ns(connection).is_some() => Confidence::Likely,
        // Over TLS its end may be a message before the FIN.
        Some(_) if case.line.tls && in_body => Confidence::Likely,
        None if in_body => Confidence::Likely,
        _ => return None,
    };
    if case.connection().is_some() && case.answered() != Some(true) {
        return None;
    }
    let late = case
        .connection()
        .is_some_and(|found| read_late(case, found));
    let part = match case.phase() {
        _ if late => "before nginx read what had come of the response",
        Phase::Header => "before the response header was complete",
        _ => "in the middle of the response body, so the client got a truncated response",
    };
    Some(Verdict {
        cause: Cause::ResponseAborted,
        confidence,
        evidence: sentences([
            how_it_ended(case),
            Some(format!("it came {part}")),
            in_flight(case),
            own_call(case),
            reuse(case),
        ]),
        advice: Some(Remedy {
            text: "look at the backend's own log for that moment: a crash or a timeout while \
                   it wrote the response, a worker that was recycled, a size limit. nginx cannot \
                   retry once the header has been sent, and to hold responses back until they \
                   are whole would cost their first byte's time"
                .to_owned(),
            because: format!("{} closed in the middle of a response", case.line.upstream),
        }),
    })
}

/// Did the backend end it while it answered? If it had left bytes of the request unread,
/// or if nginx read the response only after a reset, it may have answered in full.
fn cut_short(case: &Case<'_>, connection: &Connection) -> bool {
    case.peer_unread() == Some(0) && !read_late(case, connection)
}

/// Did nginx meet a reset before it read what may have been the whole response? Of a FIN
/// it says itself that the response was not whole.
fn read_late(case: &Case<'_>, connection: &Connection) -> bool {
    case.line.kind == MessageKind::ReceiveFailed
        && case.phase() != Phase::Header
        && connection.first_byte_ns > peer_end_ns(connection)
}
