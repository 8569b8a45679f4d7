//! `send-timeout`: nginx's send timer ran out because the backend took no more of the
//! request. Requires: `upstream timed out` while sending the request.

use super::{Case, Remedy, Verdict, in_flight, sentences};
use crate::judge::upstreams::peer_end_ns;
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
    let setting = case
        .settings
        .send_timeout
        .as_deref()
        .unwrap_or("60s by default");
    Some(Verdict {
        cause: Cause::SendTimeout,
        confidence,
        evidence: sentences([
            Some(format!(
                "nginx gave up by its own timer (proxy_send_timeout {setting})"
            )),
            in_flight(case),
        ]),
        advice: Some(Remedy {
            text: "the backend does not read the request's body: look for a blocked or overloaded \
                   worker there; a longer proxy_send_timeout only waits longer"
                .to_owned(),
            because: "the backend took no more bytes of the request".to_owned(),
        }),
    })
}
