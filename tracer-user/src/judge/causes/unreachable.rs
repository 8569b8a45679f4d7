//! `unreachable`: there was no way to the backend. Requires: ENETUNREACH, EHOSTUNREACH
//! or EHOSTDOWN in nginx's line, which is the result of its own call.

use super::{Case, Remedy, Verdict, sentences};
use crate::judge::case::{errno, words};
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence};

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let failed = matches!(
        case.line.kind,
        MessageKind::ConnectFailed | MessageKind::ConnectFailedAtOnce
    );
    let what = match case.errno() {
        errno::ENETUNREACH => "this host has no route to the backend's network",
        errno::EHOSTUNREACH => {
            "a router or this host's own neighbour lookup reported the backend's host unreachable"
        }
        errno::EHOSTDOWN => "the backend's host is down",
        _ => return None,
    };
    if !failed {
        return None;
    }
    let waited = case
        .connection()
        .zip(case.end_ns())
        .map(|(connection, end)| {
            format!(
                "it was reported {} after connect()",
                words(end.saturating_sub(connection.opened_ns))
            )
        });
    Some(Verdict {
        cause: Cause::Unreachable,
        // The errno is the result of nginx's own connect(): with or without a socket,
        // the line itself is the evidence.
        confidence: Confidence::Certain,
        evidence: sentences([Some(what.to_owned()), waited]),
        advice: Some(Remedy {
            text:
                "check the route and the address of this peer; marking it `down` until then saves \
                   the failed attempts and costs its capacity"
                    .to_owned(),
            because: what.to_owned(),
        }),
    })
}
