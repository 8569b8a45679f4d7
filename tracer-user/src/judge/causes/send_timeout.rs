//! `send-timeout`: nginx's send timer ran out because the backend took no more of the
//! request. Requires: `upstream timed out` while sending the request.

use super::{Case, Remedy, Verdict, in_flight, sentences};
use crate::judge::end::peer_end_ns;
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence, Phase};

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    if case.line.kind != MessageKind::TimedOut || case.phase() != Phase::Send {
        return None;
    }
    let confidence = match case.connection() {
        Some(connection) if peer_end_ns(connection).is_none() => Confidence::Certain,
        Some(_) => Confidence::Possible,
        None => Confidence::Likely,
    };
    let directive = case.directive("send_timeout");
    let timer = case.timer("send_timeout");
    Some(Verdict {
        cause: Cause::SendTimeout,
        confidence,
        evidence: sentences([
            Some(format!("nginx gave up by its own timer ({timer})")),
            in_flight(case),
        ]),
        advice: Some(Remedy {
            text: format!(
                "the backend does not read the request's body: look for a blocked or overloaded \
                   worker there; a longer {directive} only waits longer, and holds the client for \
                 that time"
            ),
            because: "the backend took no more bytes of the request".to_owned(),
        }),
    })
}
