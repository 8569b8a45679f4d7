//! The causes, one file each. Each says which facts it requires and gives a verdict
//! only if they are there; the first that does, in the order of [`CAUSES`], is the
//! incident's cause. What none of them can establish is `unexplained`.

mod backend_crashed;
mod backend_exited;
mod backend_killed;
mod backend_oom;
mod backend_restart;
mod backlog_full;
mod client_abort;
mod closed_without_answer;
mod connect_refused;
mod connect_timeout;
mod http2;
mod nginx_resources;
mod nginx_shutdown;
mod no_live_upstreams;
mod owner;
mod path_reset;
mod path_timeout;
mod protocol_mismatch;
mod read_timeout;
mod request_limit;
mod request_too_large;
mod response_aborted;
mod response_rejected;
mod send_timeout;
mod stale_keepalive;
mod tls_failure;
mod unexplained;
mod unreachable;
mod worker_recycled;
mod worker_timeout;

pub(super) use stale_keepalive::remedy as stale_keepalive_remedy;

use super::case::{Case, words};
use super::end::{DIRECTLY_NS, ended_before_request, ended_by_reset, peer_end_ns};
use super::mid_life;
use super::spoken::Counted;
use super::staleness::Stale;
use super::without_calls::{is_remembered, is_unmeasured};
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence, Means, Side};
use crate::report::words::counted;
use crate::trace::record::Connection;

pub(super) use self::request_too_large::given_up;

/// nginx reads at once, unless it waits for the client or is busy.
const LATE_NS: u64 = 100_000_000;

/// A worker looks at its sockets in every turn of its event loop, which lasts less.
const UNLOOKED_NS: u64 = 5_000_000;

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
    // Lines that say it themselves.
    no_live_upstreams::decide,
    client_abort::decide,
    nginx_shutdown::decide,
    nginx_resources::decide,
    protocol_mismatch::decide,
    http2::decide,
    response_rejected::decide,
    backend_restart::by_refusal,
    connect_refused::decide,
    backlog_full::decide,
    path_timeout::decide,
    tls_failure::decide,
    connect_timeout::decide,
    unreachable::decide,
    read_timeout::decide,
    send_timeout::decide,
    // The end of the backend's process.
    worker_timeout::decide,
    backend_oom::decide,
    backend_crashed::decide,
    backend_killed::decide,
    worker_recycled::decide,
    backend_restart::by_exit,
    backend_exited::decide,
    // What the connection shows beside the backend's other ones.
    tls_failure::by_close,
    request_limit::decide,
    path_reset::decide,
    stale_keepalive::decide,
    request_too_large::decide,
    backend_restart::by_burst,
    protocol_mismatch::by_history,
    stale_keepalive::by_late_reading,
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

/// Who ended the attempt and how: what the line and the socket say, but for causes that
/// lie between the two hosts.
pub(super) fn side_and_means(case: &Case<'_>, cause: Cause) -> (Side, Means) {
    match (cause, case.side_and_means()) {
        (Cause::PathReset, _) => (Side::Network, Means::Rst),
        (Cause::PathTimeout, _) => (Side::Network, Means::Timeout),
        (_, known) => known,
    }
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
    let late = case
        .end_ns()
        .zip(peer_end_ns(connection))
        .map(|(seen, came)| seen.saturating_sub(came))
        .filter(|late| *late >= LATE_NS)
        .map_or_else(String::new, |late| {
            format!("; nginx found it {} later", words(late))
        });
    Some(format!("{what} came from {}{late}", connection.remote))
}

/// What of the request had been in flight.
fn in_flight(case: &Case<'_>) -> Option<String> {
    let connection = case.connection()?;
    let ns = case.in_flight_ns()?;
    if mid_life::request_began_before(connection) {
        return Some(format!(
            "the request began before the capture and had been in flight for at least {}; how \
             large it was is not known",
            words(ns)
        ));
    }
    if is_unmeasured(connection) {
        return Some(if connection.calls_unseen {
            format!("the last byte had been sent {} before", words(ns))
        } else {
            format!(
                "the request had been in flight for about {}; how large it was is not known",
                words(ns)
            )
        });
    }
    Some(format!(
        "the request ({}) had been in flight for {}, {} come back",
        counted(connection.request_bytes, "byte", "bytes"),
        words(ns),
        counted(connection.response_bytes, "byte had", "bytes had"),
    ))
}

/// The reuse of the connection.
fn reuse(case: &Case<'_>) -> Option<String> {
    let sent = counted(
        u64::from(case.connection()?.exchanges),
        "request was",
        "requests were",
    );
    Some(match case.reused() {
        None if case.http2() => "over HTTP/2, settings, pings and their acknowledgements count \
                                 like requests: whether the connection had been used before is \
                                 not known"
            .to_owned(),
        None if !case.counts_requests() => {
            "over TLS, flights of the handshake count like requests: whether the connection had \
             been used before is not known"
                .to_owned()
        }
        None if is_remembered(case.connection()?) => {
            "whether the connection had been used before is not known".to_owned()
        }
        None => "whether the connection had been used before the capture is not known".to_owned(),
        Some(true) if !case.counts_requests() => "the connection had been used before".to_owned(),
        Some(true) if case.connection()?.calls_unseen => {
            "the connection was kept alive: data had come on it before".to_owned()
        }
        Some(true) if !case.connection()?.first_seen_mid_life && case.requests().is_none() => {
            format!(
                "the connection was kept alive: at least {sent} sent on it, for some of nginx's \
                 sends or receives on it were missed"
            )
        }
        Some(true) if case.requests().is_none() => format!(
            "the connection was kept alive: it was open before the capture began, and at least \
             {sent} sent on it"
        ),
        Some(true) => format!("the connection was kept alive: {sent} sent on it"),
        Some(false) if case.sent_nothing() => {
            "the connection was new, no request had been sent on it".to_owned()
        }
        Some(false) => "it was the connection's first request".to_owned(),
    })
}

fn sentences<const N: usize>(sentences: [Option<String>; N]) -> Vec<String> {
    sentences.into_iter().flatten().collect()
}

/// How sure it is that the connection was stale, and that by the way in which it was.
fn surety(case: &Case<'_>, stale: Stale) -> Confidence {
    let proven = match stale {
        // A first write that fails after a part of an early answer looks the same.
        Stale::Idle if case.line.kind == MessageKind::SendFailed => {
            case.idle_age_ns().is_some_and(|age| age >= DIRECTLY_NS)
        }
        Stale::Idle | Stale::Crossed => true,
        // A program may close unread what it will not have; the RST may be that of one
        // which had just read the request.
        Stale::LeftUnread | Stale::AnsweredByReset => false,
    };
    if proven && case.reused() == Some(true) && !case.perhaps_answered() {
        Confidence::Certain
    } else {
        Confidence::Likely
    }
}

/// The way in which a stale connection was over, in a sentence.
fn staleness(case: &Case<'_>, stale: Stale) -> Option<String> {
    let connection = case.connection()?;
    let end = peer_end_ns(connection)?;
    Some(match stale {
        Stale::Idle if case.sent_nothing() => {
            "no request was in flight then; nginx found the end when it was about to send the \
             next one"
                .to_owned()
        }
        Stale::Idle if mid_life::ended_before(connection) => {
            format!(
                "{} before the capture began, and nginx sent the request later",
                which_came(connection)
            )
        }
        Stale::Idle => {
            let started = connection.request_started_ns?;
            // What began the exchange may have been no request (`silence_after_frames`).
            let sent = if started < end {
                connection.last_sent_ns?
            } else {
                started
            };
            format!(
                "{} {} before nginx sent the request{}",
                which_came(connection),
                words(sent.saturating_sub(end)),
                and_answered(connection)
            )
        }
        Stale::Crossed => {
            "the FIN acknowledges nothing of the request: both crossed on the wire".to_owned()
        }
        Stale::LeftUnread => {
            "the backend's process closed without having read any of the request: it had made up \
             its mind when the request came"
                .to_owned()
        }
        Stale::AnsweredByReset => {
            "the backend's host answered the request with an RST instead of an acknowledgement, \
             as it does when it has no such connection any more"
                .to_owned()
        }
    })
}

/// What ended the connection, where the sentence before tells of a FIN and an RST.
fn which_came(connection: &Connection) -> &'static str {
    match (connection.fin_received_ns, connection.rst_received_ns) {
        (Some(fin), Some(rst)) if fin <= rst => "the FIN came",
        (Some(_), Some(_)) => "the RST came",
        _ => "that was",
    }
}

/// That the RST which came after the FIN is the answer to the request.
fn and_answered(connection: &Connection) -> &'static str {
    if connection.fin_received_ns.is_some() && connection.reset_answers_request() {
        "; the RST answered it"
    } else {
        ""
    }
}

/// A FIN that lay on an idle connection until nginx used it: one that looks at its sockets
/// finds it and closes.
fn unlooked(case: &Case<'_>, stale: Stale) -> Option<String> {
    let connection = case.connection()?;
    let known = stale == Stale::Idle
        && case.counted() != Counted::Http2
        && connection.missed_calls == 0
        && !is_remembered(connection)
        && !mid_life::ended_before(connection)
        && connection.exchanges_at_end.checked_add(1) == Some(connection.exchanges)
        && ended_before_request(connection);
    if !known || ended_by_reset(connection) {
        return None;
    }
    let lay = connection
        .request_started_ns?
        .checked_sub(connection.fin_received_ns?)?
        .min(connection.idle_before_ns?);
    (lay >= UNLOOKED_NS).then(|| {
        format!(
            "nginx closes an idle connection as soon as it sees the FIN: its worker had not \
             looked for {} (was it kept busy: disk, processor?)",
            words(lay)
        )
    })
}
