//! `request-too-large`: the backend gave up on a request for its size. Requires: FIN or
//! RST while the request was being sent, or bytes of it that the backend's process left
//! unread; and a size above all that the backend answered in this capture
//! ([`InferredSize`]). An inference from sizes, so never certain.

use super::{Case, Remedy, Verdict, how_it_ended, in_flight, owner, sentences};
use crate::judge::end::{no_answer_below, peer_end_ns, unacked_at_end};
use crate::judge::mid_life;
use crate::judge::upstreams::GivenUp;
use crate::judge::without_calls::is_unmeasured;
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence, InferredSize};
use crate::report::words::counted;
use crate::trace::record::Connection;

/// Requests that must have failed so before it is likely without other evidence.
const SEVERAL: u64 = 3;

/// What the backend gave up of the request, if it did.
pub(in crate::judge) fn given_up(case: &Case<'_>) -> Option<GivenUp> {
    let connection = case.connection()?;
    connection.established_ns?;
    peer_end_ns(connection)?;
    let sending = matches!(
        case.line.kind,
        MessageKind::SendFailed | MessageKind::TlsSendFailed
    );
    let reading = matches!(
        case.line.kind,
        MessageKind::PrematureClose | MessageKind::ReceiveFailed
    );
    if !(sending || reading)
        || owner::of(case).is_some()
        || case.sent_nothing()
        || case.was_stale().is_some()
        || connection.request_bytes == 0
        || mid_life::request_began_before(connection)
        || is_unmeasured(connection)
    {
        return None;
    }
    let unacked = unacked_at_end(connection).map_or(0, u64::from);
    let part = sending || (1..connection.request_bytes).contains(&unacked);
    let unread = case.peer_unread().is_some_and(|unread| unread > 0);
    (part || unread).then_some(GivenUp {
        bytes: connection.request_bytes,
        whole: !part,
    })
}

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let given_up = given_up(case)?;
    let threshold = case.constants.size_threshold?;
    let connection = case.connection()?;
    let early = connection.unread_at_end;
    let unread = case.peer_unread().filter(|unread| *unread > 0);
    // Of a request cut short, less may have been sent than of others answered; that the
    // backend answered before the request was whole, or did not read what it had, makes
    // up for it.
    let not_for_its_size = early.is_none() && (given_up.whole || unread.is_none());
    if given_up.bytes <= threshold.answered_bytes && not_for_its_size {
        return None;
    }
    let confidence = if threshold.samples >= SEVERAL || early.is_some() || unread.is_some() {
        Confidence::Likely
    } else {
        Confidence::Possible
    };
    let observed = observed(threshold);
    Some(Verdict {
        cause: Cause::RequestTooLarge,
        confidence,
        evidence: sentences([
            how_it_ended(case),
            in_flight(case),
            unread.map(|unread| {
                let process = case.peer_close().map_or_else(
                    || "the backend's process".to_owned(),
                    |close| format!("{}, which held the other end,", owner::short_name(close)),
                );
                format!(
                    "{process} closed with {} of it unread",
                    counted(u64::from(unread), "byte", "bytes")
                )
            }),
            answer(connection),
            early.map(|early| {
                format!(
                    "{} from the backend had not been read: an answer, such as 413, that came \
                     before the request was whole and was lost with the connection",
                    counted(u64::from(early), "byte", "bytes")
                )
            }),
            Some(observed.clone()),
        ]),
        advice: Some(Remedy {
            text: remedy(case, threshold),
            because: observed,
        }),
    })
}

/// What nginx could read of an early answer.
fn answer(connection: &Connection) -> Option<String> {
    (connection.response_bytes >= no_answer_below(connection)).then(|| {
        format!(
            "{} came back before the backend had taken the whole request: an early answer, such \
             as 413",
            counted(connection.response_bytes, "byte", "bytes")
        )
    })
}

fn observed(threshold: InferredSize) -> String {
    format!(
        "the backend answered requests of up to {}, and gave up on {} of {} or more",
        counted(threshold.answered_bytes, "byte", "bytes"),
        counted(threshold.samples, "request", "requests"),
        counted(threshold.bytes, "byte", "bytes")
    )
}

fn remedy(case: &Case<'_>, threshold: InferredSize) -> String {
    let buffering = case.directive("request_buffering");
    let unbuffered = case.settings.request_buffering.as_deref() == Some("off");
    let buffered = if unbuffered {
        format!(
            "; `{buffering} on` would let nginx retry such requests, and costs disk and the \
             client's time"
        )
    } else {
        String::new()
    };
    format!(
        "raise the backend's limit on request bodies (it lies above {}), or set \
         `client_max_body_size` in nginx to it, so that clients get a 413 and no upload is \
         carried to the backend in vain{buffered}",
        counted(threshold.answered_bytes, "byte", "bytes")
    )
}
