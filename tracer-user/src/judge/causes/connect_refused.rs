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
    if !failed || case.errno() != errno::ECONNREFUSED {
        return None;
    }
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
        evidence: sentences(
            [seen.or_else(|| Some("connect() gave ECONNREFUSED (111)".to_owned()))],
        ),
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
