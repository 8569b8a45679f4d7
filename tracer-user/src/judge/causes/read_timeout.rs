//! `read-timeout`: nginx's own read timer ran out while it waited for the response.
//! Requires: `upstream timed out` outside connecting and sending; the socket shows that
//! nginx closed it and that no FIN or RST had come. It is likely only if nothing of the
//! request was acknowledged.

use super::{Case, Remedy, Verdict, in_flight, sentences};
use crate::judge::end::peer_end_ns;
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence, Phase};
use crate::report::words::counted;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    if case.line.kind != MessageKind::TimedOut
        || matches!(case.phase(), Phase::Connect | Phase::Send | Phase::Tls)
    {
        return None;
    }
    let silent = case
        .connection()
        .map(|connection| peer_end_ns(connection).is_none());
    // A worker that was late itself may give up before an acknowledgement can have come.
    let unacknowledged = case.connection().is_some_and(|connection| {
        let unacked = connection.unacked_at_close.map_or(0, u64::from);
        connection.response_bytes == 0 && unacked > 0 && unacked >= connection.request_bytes
    });
    let confidence = match silent {
        Some(true) if unacknowledged => Confidence::Likely,
        Some(true) => Confidence::Certain,
        Some(false) => Confidence::Possible,
        None => Confidence::Likely,
    };
    let directive = case.directive("read_timeout");
    let limit = case.limit("read_timeout");
    let longer_than = match limit.strip_suffix(" by default").unwrap_or(&limit) {
        "not known" => "nginx waits",
        limit => limit,
    };
    let retransmitted = case
        .connection()
        .filter(|connection| connection.exchange_retransmits > 0)
        .map(|connection| {
            format!(
                "{} sent again: the path may have dropped parts of the request",
                counted(
                    u64::from(connection.exchange_retransmits),
                    "segment was",
                    "segments were"
                )
            )
        });
    let arrived = case
        .connection()
        .and_then(|connection| connection.unread_at_close)
        .filter(|bytes| *bytes > 0)
        .map(|bytes| {
            format!(
                "{} of its answer had come by the time nginx closed, unread",
                counted(u64::from(bytes), "byte", "bytes")
            )
        });
    Some(Verdict {
        cause: Cause::ReadTimeout,
        confidence,
        evidence: sentences([
            Some(format!(
                "nginx gave up by its own timer ({})",
                case.timer("read_timeout")
            )),
            in_flight(case),
            silent.map(|silent| {
                if silent {
                    "neither FIN nor RST had come from the backend".to_owned()
                } else {
                    "the backend had already ended the connection, which nginx had not read"
                        .to_owned()
                }
            }),
            arrived,
            acknowledged(case),
            retransmitted,
        ]),
        advice: Some(Remedy {
            text: format!(
                "find out why the backend needs longer than {longer_than}, or raise {directive} for \
                 this location; a longer timeout holds the client and one connection for longer"
            ),
            because: "the backend had not answered in time".to_owned(),
        }),
    })
}

/// Had the whole request reached the backend's host?
fn acknowledged(case: &Case<'_>) -> Option<String> {
    let connection = case.connection()?;
    let whole = connection.unacked_at_close? == 0 && connection.response_bytes == 0;
    whole.then(|| "the backend's host had acknowledged the whole request".to_owned())
}
