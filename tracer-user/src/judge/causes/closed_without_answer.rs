//! `closed-without-answer`: the backend took the request and closed without a byte of
//! response, and nothing more special is proven. Requires: FIN or RST with the request
//! in flight, no response byte, and a connection that was not stale.

use super::{Case, Remedy, Verdict, how_it_ended, in_flight, reuse, sentences};
use crate::judge::case::LastExchange as _;
use crate::judge::upstreams::peer_end_ns;
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence, Phase};

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let ended = matches!(
        case.line.kind,
        MessageKind::PrematureClose | MessageKind::ReceiveFailed | MessageKind::SendFailed
    );
    if !ended {
        return None;
    }
    let (confidence, acknowledged) = match case.connection() {
        None if case.phase() == Phase::Wait => (Confidence::Possible, None),
        None => return None,
        Some(connection) => {
            if connection.response_bytes_of_last() > 0 || peer_end_ns(connection).is_none() {
                return None;
            }
            let unacked = connection.unacked_at_fin.or(connection.unacked_at_rst)?;
            let all = unacked == 0;
            // A reused connection whose request was not acknowledged may still have
            // been a stale one; a first request cannot.
            let fresh = case.reused() == Some(false);
            let confidence = if all || fresh {
                Confidence::Certain
            } else {
                Confidence::Likely
            };
            (confidence, Some(all))
        }
    };
    let acknowledged = acknowledged.map(|all| {
        if all {
            "the backend's host had acknowledged the whole request".to_owned()
        } else {
            "the backend's host had not acknowledged the whole request".to_owned()
        }
    });
    Some(Verdict {
        cause: Cause::ClosedWithoutAnswer,
        confidence,
        evidence: sentences([
            how_it_ended(case),
            in_flight(case),
            acknowledged,
            reuse(case),
        ]),
        advice: Some(Remedy {
            text: "look at the backend's own log for that moment: a crash, an exception before \
                   the first byte, a worker killed or recycled, a limit on the request; \
                   proxy_next_upstream hides it for idempotent requests and repeats their work"
                .to_owned(),
            because: format!("{} closed without an answer", case.line.upstream),
        }),
    })
}
