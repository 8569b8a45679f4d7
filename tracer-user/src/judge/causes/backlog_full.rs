//! `backlog-full`: the backend did not take new connections in time, and the queue in
//! which they wait was full. Requires: EAGAIN from connect() to a unix socket, which says
//! just that (`unix_stream_connect`); or a connect that was not answered, or whose first
//! bytes were never acknowledged, and the queue of a socket on this host that listens at
//! that address, seen full meanwhile.

use super::path_timeout::never_acknowledged;
use super::{Case, Remedy, Verdict, sentences};
use crate::judge::case::{errno, words};
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence, Phase};

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let failed_at_once = case.line.kind == MessageKind::ConnectFailedAtOnce;
    if failed_at_once && case.line.unix && case.errno() == errno::EAGAIN {
        let what = "connect() gave EAGAIN (11): the socket's queue of new connections was full";
        return Some(verdict(Confidence::Certain, vec![what.to_owned()]));
    }
    let full = case.full?;
    let in_connect = match case.line.kind {
        MessageKind::TimedOut => case.phase() == Phase::Connect,
        MessageKind::ConnectFailed => case.errno() == errno::ETIMEDOUT,
        _ => false,
    };
    let connection = case.connection();
    let unanswered = connection.is_none_or(|connection| connection.established_ns.is_none());
    // A full queue drops the last step of the handshake: nginx's side is established,
    // the backend's is not, and acknowledges nothing.
    let half_open = case.line.kind == MessageKind::TimedOut
        && connection.is_some_and(|connection| never_acknowledged(connection));
    if !(in_connect && unanswered || half_open) {
        return None;
    }
    let confidence = match connection {
        Some(_) if !full.perhaps_another && !half_open => Confidence::Certain,
        _ => Confidence::Likely,
    };
    let waited = connection.zip(case.end_ns()).map(|(connection, end)| {
        let waited = words(end.saturating_sub(connection.opened_ns));
        if half_open {
            format!("the backend's host acknowledged no byte of the request in {waited}")
        } else {
            format!(
                "the SYN to {} was not answered for {waited}",
                connection.remote
            )
        }
    });
    Some(verdict(
        confidence,
        sentences([
            Some(format!(
                "the queue of new connections at {} was full meanwhile: {} waited, {} may",
                case.line.upstream, full.queued, full.limit
            )),
            waited,
        ]),
    ))
}

fn verdict(confidence: Confidence, evidence: Vec<String>) -> Verdict {
    Verdict {
        cause: Cause::BacklogFull,
        confidence,
        evidence,
        advice: Some(Remedy {
            text: "find out why the backend does not take its connections: a process that is \
                   stuck or stopped, or too few workers for the load. A longer queue (its \
                   `backlog`, and net.core.somaxconn) bridges short bursts, and makes the rest \
                   wait for longer"
                .to_owned(),
            because: "its queue of new connections was full".to_owned(),
        }),
    }
}
