//! `connect-refused`: nobody listened at the address. Requires: ECONNREFUSED in the
//! line; the socket shows the RST to the SYN.

use super::{Case, Remedy, Verdict, sentences, with_socket};
use crate::judge::case::{errno, words};
use crate::nginx::message::MessageKind;
use crate::report::model::Cause;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let failed = matches!(
        case.line.kind,
        MessageKind::ConnectFailed | MessageKind::ConnectFailedAtOnce
    );
    let no_socket_file = case.line.unix && case.errno() == errno::ENOENT;
    if !failed || !(case.errno() == errno::ECONNREFUSED || no_socket_file) {
        return None;
    }
    let gave = if no_socket_file {
        "connect() gave ENOENT (2): there is no such unix socket"
    } else {
        "connect() gave ECONNREFUSED (111)"
    };
    let seen = case.connection().and_then(|connection| {
        let rst = connection.rst_received_ns?;
        Some(format!(
            "the SYN to {} was answered with an RST after {}",
            connection.remote,
            words(rst.saturating_sub(connection.opened_ns))
        ))
    });
    Some(Verdict {
        cause: Cause::ConnectRefused,
        confidence: with_socket(case),
        evidence: sentences([seen.or_else(|| Some(gave.to_owned()))]),
        advice: Some(Remedy {
            text: remedy(case),
            because: format!("nothing listened at {}", case.line.upstream),
        }),
    })
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
