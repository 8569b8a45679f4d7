//! `connect-refused`: nobody listened at the address. Requires: ECONNREFUSED in the
//! line; the socket shows the RST to the SYN.

use super::{Case, Remedy, Verdict, owner, sentences, with_socket};
use crate::judge::case::{errno, words};
use crate::nginx::message::MessageKind;
use crate::report::model::Cause;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    if !is_refused(case) {
        return None;
    }
    Some(Verdict {
        cause: Cause::ConnectRefused,
        confidence: with_socket(case),
        evidence: sentences([Some(refusal(case)), gone(case)]),
        advice: Some(Remedy {
            text: "start the backend, or take the address out of the upstream; if it was \
                   restarting, let it listen before it is sent traffic (costs: a slower start). \
                   `proxy_next_upstream error` covers it where there is another peer, which \
                   then carries its load"
                .to_owned(),
            because: format!("nothing listened at {}", case.line.upstream),
        }),
    })
}

pub(super) fn is_refused(case: &Case<'_>) -> bool {
    let failed = matches!(
        case.line.kind,
        MessageKind::ConnectFailed | MessageKind::ConnectFailedAtOnce
    );
    failed && case.errno() == errno::ECONNREFUSED
}

/// How it was refused, in a sentence.
pub(super) fn refusal(case: &Case<'_>) -> String {
    let seen = case.connection().and_then(|connection| {
        let rst = connection.rst_received_ns?;
        Some(format!(
            "the SYN to {} was answered with an RST after {}",
            connection.remote,
            words(rst.saturating_sub(connection.opened_ns))
        ))
    });
    seen.unwrap_or_else(|| "connect() gave ECONNREFUSED (111)".to_owned())
}

/// The process that had served the address, if its end was seen.
fn gone(case: &Case<'_>) -> Option<String> {
    let ns = case.began_ns();
    let (process, at, exit) = case.history?.exit_between(0, ns)?;
    Some(format!(
        "process {} ({}, child of {}), which had served there, {} {} before",
        process.pid,
        process.comm,
        process.parent_pid,
        owner::fate(exit),
        words(ns.saturating_sub(at))
    ))
}
