//! `client-abort`: the client left first and nginx closed the upstream connection for
//! it. Requires: nginx's line that says so. The socket shows nginx closing it.

use super::{Case, Verdict, in_flight, sentences, with_socket};
use crate::nginx::message::MessageKind;
use crate::report::model::Cause;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    if case.line.kind != MessageKind::ClientClosed {
        return None;
    }
    Some(Verdict {
        cause: Cause::ClientAbort,
        confidence: with_socket(case),
        evidence: sentences([
            Some("nginx saw the client close its connection before the response came".to_owned()),
            in_flight(case),
        ]),
        advice: None,
    })
}
