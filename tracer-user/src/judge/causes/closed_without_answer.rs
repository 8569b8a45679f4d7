//! `closed-without-answer`: the backend closed without a byte of response, and nothing
//! more special is proven. Requires: FIN or RST, a request that nginx sent, no response
//! byte, and a connection that was not stale. It is certain only where what it leaves
//! unproven is excluded: a process of this host closed by its own call and lived on, and
//! the backend has answered requests as large as this one.

use super::owner::{by_its_own_call, own_call};
use super::{
    Case, Remedy, Verdict, and_answered, how_it_ended, in_flight, reuse, sentences, which_came,
};
use crate::judge::end::{ended_before_request, ended_by_reset, peer_end_ns, unacked_at_end};
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence, Phase};
use crate::trace::record::Connection;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let ended = matches!(
        case.line.kind,
        MessageKind::PrematureClose
            | MessageKind::ReceiveFailed
            | MessageKind::SendFailed
            | MessageKind::TlsSendFailed
    );
    let sending = matches!(case.phase(), Phase::Wait | Phase::Send | Phase::Header);
    if !ended || case.sent_nothing() || case.answered() == Some(true) {
        return None;
    }
    let connection = case.connection();
    let confidence = match connection {
        None if sending => Confidence::Possible,
        None => return None,
        Some(connection) if peer_end_ns(connection).is_none() => {
            // Over TLS its end may be a message before the FIN.
            (case.line.tls && sending).then_some(Confidence::Possible)?
        }
        Some(connection) => surety(case, connection),
    };
    Some(Verdict {
        cause: Cause::ClosedWithoutAnswer,
        confidence,
        evidence: sentences([
            how_it_ended(case),
            in_flight(case),
            own_call(case),
            connection
                .filter(|connection| !case.http2() || connection.exchanges == 1)
                .and_then(|connection| arrival(connection)),
            reuse(case),
        ]),
        advice: Some(Remedy {
            text: remedy(case),
            because: format!("{} closed without an answer", case.line.upstream),
        }),
    })
}

fn remedy(case: &Case<'_>) -> String {
    let look = "look at the backend's own log for that moment: a crash, an exception before the \
                first byte, a worker killed or recycled, a limit on the request";
    if case.settings.retries() == Some(true) {
        return look.to_owned();
    }
    format!(
        "{look}; {} hides it for idempotent requests and repeats their work",
        case.directive("next_upstream")
    )
}

fn surety(case: &Case<'_>, connection: &Connection) -> Confidence {
    let acknowledged = !ended_before_request(connection) && unacked_at_end(connection) == Some(0);
    if case.perhaps_answered() {
        return Confidence::Likely;
    }
    let not_stale = match (case.reused(), case.answered()) {
        // A first request cannot have met a stale connection.
        (Some(false), Some(false)) => {
            !ended_before_request(connection) && (acknowledged || !ended_by_reset(connection))
        }
        (Some(true), Some(false)) => acknowledged,
        (None, _) if ended_before_request(connection) => return Confidence::Possible,
        _ => false,
    };
    if not_stale && by_its_own_call(case) && answers_such(case, connection) {
        Confidence::Certain
    } else {
        Confidence::Likely
    }
}

/// Does the backend, as is known for sure, take and answer requests of this size?
fn answers_such(case: &Case<'_>, connection: &Connection) -> bool {
    let answered = case.constants.surely_answered_bytes;
    // Of a request cut short the size is not known.
    let cut = matches!(
        case.line.kind,
        MessageKind::SendFailed | MessageKind::TlsSendFailed
    );
    !cut && answered > 0 && connection.request_bytes <= answered
}

/// Had the request reached the backend's host?
fn arrival(connection: &Connection) -> Option<String> {
    peer_end_ns(connection)?;
    if ended_before_request(connection) {
        return Some(format!(
            "{} before nginx sent the request{}",
            which_came(connection),
            and_answered(connection)
        ));
    }
    let unacked = u64::from(unacked_at_end(connection)?);
    let what = if unacked == 0 {
        "the backend's host had acknowledged the whole request"
    } else if unacked >= connection.request_bytes {
        "the backend's host had acknowledged nothing of the request"
    } else {
        "the backend's host had not acknowledged the whole request"
    };
    Some(what.to_owned())
}
