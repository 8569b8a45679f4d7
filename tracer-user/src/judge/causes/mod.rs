//! The causes, one file each. Each says which facts it requires and gives a verdict
//! only if they are there; the first that does, in the order of [`CAUSES`], is the
//! incident's cause. What none of them can establish is `unexplained`.

mod client_abort;
mod closed_without_answer;
mod connect_refused;
mod connect_timeout;
mod no_live_upstreams;
mod read_timeout;
mod request_limit;
mod response_aborted;
mod response_rejected;
mod send_timeout;
mod stale_keepalive;
mod unexplained;
mod unreachable;

use super::case::{Case, Stale, words};
use crate::report::model::{Cause, Confidence};

/// A cause found, with its grounds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) cause: Cause,
    pub(super) confidence: Confidence,
    /// Sentences.
    pub(super) evidence: Vec<String>,
    pub(super) advice: Option<Remedy>,
}

/// What to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remedy {
    /// What to do, with its trade-off.
    pub(super) text: String,
    /// The observation that it rests on.
    pub(super) because: String,
}

type Decide = fn(&Case<'_>) -> Option<Verdict>;

/// The more a cause requires, the earlier it is asked.
const CAUSES: &[Decide] = &[
    no_live_upstreams::decide,
    client_abort::decide,
    response_rejected::decide,
    connect_refused::decide,
    connect_timeout::decide,
    unreachable::decide,
    read_timeout::decide,
    send_timeout::decide,
    request_limit::decide,
    stale_keepalive::decide,
    response_aborted::decide,
    closed_without_answer::decide,
];

/// The cause of an incident.
pub(super) fn decide(case: &Case<'_>) -> Verdict {
    CAUSES
        .iter()
        .find_map(|decide| decide(case))
        .unwrap_or_else(|| unexplained::decide(case))
}

/// `certain` needs the socket; a line alone makes a cause likely at most.
fn with_socket(case: &Case<'_>) -> Confidence {
    if case.connection().is_some() {
        Confidence::Certain
    } else {
        Confidence::Likely
    }
}

/// How the backend's end reached nginx, in a sentence; none without a connection.
fn how_it_ended(case: &Case<'_>) -> Option<String> {
    let connection = case.connection()?;
    let (fin, rst) = (connection.fin_received_ns, connection.rst_received_ns);
    let what = match (fin, rst) {
        (Some(fin), Some(rst)) if fin <= rst => "a FIN and then an RST",
        (Some(_), Some(_)) => "an RST and then a FIN",
        (Some(_), None) => "a FIN",
        (None, Some(_)) => "an RST",
        (None, None) => return None,
    };
    Some(format!("{what} came from {}", connection.remote))
}

/// How long and for how much the request had been in flight.
fn in_flight(case: &Case<'_>) -> Option<String> {
    let connection = case.connection()?;
    let ns = case.in_flight_ns()?;
    Some(format!(
        "the request ({} bytes) had been in flight for {}, {} response bytes had come",
        connection.request_bytes,
        words(ns),
        connection.response_bytes
    ))
}

/// The reuse of the connection.
fn reuse(case: &Case<'_>) -> Option<String> {
    let requests = case.requests()?;
    let idle = case.idle_ns().map(words);
    Some(match (case.reused()?, idle) {
        (true, Some(idle)) => format!(
            "the connection was kept alive: {requests} requests were sent on it, it had been \
             silent for {idle} before"
        ),
        (true, None) => {
            format!("the connection was kept alive: {requests} requests were sent on it")
        }
        (false, _) => "it was the connection's first request".to_owned(),
    })
}

fn sentences<const N: usize>(sentences: [Option<String>; N]) -> Vec<String> {
    sentences.into_iter().flatten().collect()
}

/// The way in which a stale connection was over, in a sentence.
fn staleness(case: &Case<'_>, stale: Stale) -> Option<String> {
    let connection = case.connection()?;
    let end = super::upstreams::peer_end_ns(connection)?;
    match stale {
        Stale::Idle if case.failed_before_sending() => Some(
            "the backend's end came while no request was in flight; nginx found it before it \
             sent the next one"
                .to_owned(),
        ),
        Stale::Idle => {
            let started = connection.request_started_ns?;
            Some(format!(
                "the backend's end came {} before nginx sent the request",
                words(started.saturating_sub(end))
            ))
        }
        Stale::Crossed => Some(
            "the backend's FIN acknowledges nothing of the request: both crossed on the wire"
                .to_owned(),
        ),
        Stale::AnsweredByReset => Some(
            "the backend's host answered the request with an RST instead of an \
             acknowledgement: it had no such connection any more"
                .to_owned(),
        ),
    }
}
