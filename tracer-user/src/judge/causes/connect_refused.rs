//! `connect-refused`: nobody listened at the address. Requires: ECONNREFUSED in the
//! line, or ENOENT for a unix socket; the socket shows the RST to the SYN.

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
            text: remedy(case),
            because: format!("nothing listened at {}", case.line.upstream),
        }),
    })
}

pub(super) fn is_refused(case: &Case<'_>) -> bool {
    let failed = matches!(
        case.line.kind,
        MessageKind::ConnectFailed | MessageKind::ConnectFailedAtOnce
    );
    failed && (case.errno() == errno::ECONNREFUSED || no_socket_file(case))
}

fn no_socket_file(case: &Case<'_>) -> bool {
    case.line.unix && case.errno() == errno::ENOENT
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
    let gave = if no_socket_file(case) {
        "connect() gave ENOENT (2): there is no such unix socket"
    } else {
        "connect() gave ECONNREFUSED (111)"
    };
    seen.unwrap_or_else(|| gave.to_owned())
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

fn remedy(case: &Case<'_>) -> String {
    let start = "start the backend, or take the address out of the upstream; if it was \
                 restarting, let it listen before it is sent traffic (costs: a slower start)";
    match case.settings.retries() {
        Some(true) if case.settings.servers > 1 => start.to_owned(),
        Some(true) => format!(
            "{start}. Another `server` in the upstream, which nginx would then try, covers it, \
             and has to carry the load"
        ),
        _ => format!(
            "{start}. `{} error` covers it where there is another peer, which then carries its \
             load",
            case.directive("next_upstream")
        ),
    }
}
