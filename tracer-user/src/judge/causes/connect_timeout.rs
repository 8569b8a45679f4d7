//! `connect-timeout`: the handshake was never answered. Requires: nginx's connect timer
//! (`upstream timed out` while connecting) or the kernel's (ETIMEDOUT); the socket shows
//! that the connection was never established. Where processes of this host held the
//! backend it is likely only: the queue of new connections may have been full unseen.

use super::{Case, Remedy, Verdict, sentences};
use crate::judge::case::{errno, words};
use crate::judge::history::History;
use crate::nginx::configuration::parse_time_ms;
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence, Phase};
use crate::report::words::counted;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let timed_out = match case.line.kind {
        MessageKind::TimedOut => case.phase() == Phase::Connect,
        MessageKind::ConnectFailed => case.errno() == errno::ETIMEDOUT,
        _ => false,
    };
    if !timed_out {
        return None;
    }
    let connection = case.connection();
    let confidence = match connection {
        Some(connection) if connection.established_ns.is_some() => Confidence::Possible,
        Some(_) if !case.history.is_some_and(History::is_local) => Confidence::Certain,
        _ => Confidence::Likely,
    };
    let waited = connection.zip(case.end_ns()).map(|(connection, end)| {
        format!(
            "the SYN to {} was not answered for {} ({})",
            connection.remote,
            words(end.saturating_sub(connection.opened_ns)),
            counted(
                u64::from(connection.retransmits),
                "retransmission",
                "retransmissions"
            )
        )
    });
    let directive = case.directive("connect_timeout");
    let limit = case.limit("connect_timeout");
    Some(Verdict {
        cause: Cause::ConnectTimeout,
        confidence,
        evidence: sentences([waited, Some(format!("{directive} is {limit}"))]),
        advice: Some(Remedy {
            text: if is_short(case) {
                LOOK.to_owned()
            } else {
                format!(
                    "{LOOK}; a shorter {directive} makes the retry quicker and gives up sooner on \
                     a slow network"
                )
            },
            because: "no answer came to the SYN".to_owned(),
        }),
    })
}

const LOOK: &str = "look for a packet filter that drops, a host that is down, or an accept queue \
                    that is full on the backend";

/// A lost SYN is sent again after one second: below two, a shorter timer helps nobody.
const SHORT_MS: u64 = 2000;

fn is_short(case: &Case<'_>) -> bool {
    let set = case.settings.connect_timeout.as_deref();
    set.and_then(parse_time_ms).is_some_and(|ms| ms < SHORT_MS)
}
