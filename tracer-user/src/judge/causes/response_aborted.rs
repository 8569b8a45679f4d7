//! `response-aborted`: the backend ended the connection after a part of its response.
//! Requires: response bytes of the failed request, then FIN or RST.

use super::{Case, Remedy, Verdict, how_it_ended, in_flight, reuse, sentences};
use crate::judge::case::LastExchange as _;
use crate::judge::upstreams::peer_end_ns;
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence, Phase};

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let ended = matches!(
        case.line.kind,
        MessageKind::PrematureClose | MessageKind::ReceiveFailed
    );
    if !ended {
        return None;
    }
    let confidence = match case.connection() {
        Some(connection)
            if connection.response_bytes_of_last() > 0 && peer_end_ns(connection).is_some() =>
        {
            Confidence::Certain
        }
        // nginx reads a body only after a whole header.
        None if case.phase() == Phase::Body => Confidence::Likely,
        _ => return None,
    };
    let part = match case.phase() {
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
            reuse(case),
        ]),
        advice: Some(Remedy {
            text: "look at the backend's own log for that moment: a crash or a timeout while \
                   it wrote the response, a worker that was recycled, a size limit; nginx \
                   cannot retry once the header has been sent"
                .to_owned(),
            because: format!("{} closed in the middle of a response", case.line.upstream),
        }),
    })
}
