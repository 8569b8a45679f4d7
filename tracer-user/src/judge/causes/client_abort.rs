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
            Some(format!(
                "nginx saw the client close its connection {}",
                if case.line.in_upload() {
                    "in the middle of its request, of which it had handed on a part"
                } else {
                    "before the response came"
                }
            )),
            in_flight(case),
        ]),
        advice: None,
    })
}
