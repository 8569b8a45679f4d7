//! Attempts of one client request: which lines belong together, whether nginx tried
//! again after each, and whether the client was served in the end.

use std::collections::HashMap;

use super::Entry;
use crate::nginx::message::MessageKind;
use crate::report::model::Phase;
use crate::trace::record::{Continuation, Next};

/// nginx retries in the call that closed the failed connection: a next step later than
/// this is not its consequence.
const AT_ONCE_NS: u64 = 200_000_000;
/// Two lines this close together, with nothing known between them, are of one call.
const SAME_CALL_NS: u64 = 1_000_000;

/// What became of one attempt's request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) retried: Option<bool>,
    pub(super) served: Option<bool>,
    /// Index of the first entry of the same request.
    pub(super) group: usize,
}

/// An entry with what is needed to link it.
pub(super) struct Attempt<'a> {
    pub(super) entry: &'a Entry,
    pub(super) continuation: Option<&'a Continuation>,
    pub(super) phase: Phase,
    /// The connection that the retry went to ended, or was at the capture's end, without
    /// an answer.
    pub(super) next_unanswered: bool,
}

/// Is a later attempt of the same client connection of the same request?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Same {
    Yes,
    No,
    Unknown,
}

/// Outcomes of all attempts, which are in the order of time.
pub(super) fn outcomes(attempts: &[Attempt<'_>]) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(attempts.len());
    // Groups of which a later line may or may not be part.
    let mut open_ended = vec![false; attempts.len()];
    // The last attempt of each request line of each client connection of each worker.
    let mut last = HashMap::new();
    for (index, attempt) in attempts.iter().enumerate() {
        let mut outcome = Outcome {
            retried: retried(attempt),
            group: index,
            ..Outcome::default()
        };
        let line = &attempt.entry.line;
        let summary = &line.summary;
        if let Some(number) = summary.connection {
            let key = (line.master_pid, summary.pid, number, &summary.request);
            if let Some(before) = last.insert(key, index)
                && let Some(previous) = attempts.get(before)
                && let Some(known) = outcomes.get_mut(before)
            {
                match same_request(previous, attempt) {
                    Same::Yes => {
                        // A line that says that nobody is left is no further attempt.
                        let tried = line.kind != MessageKind::NoLiveUpstreams;
                        if known.retried.is_none() || tried {
                            known.retried = Some(tried);
                        }
                        outcome.group = known.group;
                    }
                    Same::Unknown => {
                        if let Some(open) = open_ended.get_mut(known.group) {
                            *open = true;
                        }
                    }
                    Same::No => {}
                }
            }
        }
        outcomes.push(outcome);
    }
    // The last attempt of a request decides for all: a retry without a line of its own
    // went well.
    let mut served = vec![None; attempts.len()];
    for (outcome, attempt) in outcomes.iter().zip(attempts) {
        if let Some(slot) = served.get_mut(outcome.group) {
            *slot = match outcome.retried {
                Some(true) if attempt.next_unanswered => None,
                // What a subrequest gets is not what the client gets.
                _ if attempt.entry.line.subrequest => None,
                known => known,
            };
        }
    }
    for outcome in &mut outcomes {
        let open = open_ended.get(outcome.group).copied().unwrap_or(false);
        outcome.served = served
            .get(outcome.group)
            .copied()
            .flatten()
            .filter(|_| !open);
    }
    outcomes
}

fn retried(attempt: &Attempt<'_>) -> Option<bool> {
    match attempt.entry.line.kind {
        // Nobody to try, nobody to try for.
        MessageKind::NoLiveUpstreams | MessageKind::ClientClosed => return Some(false),
        _ => {}
    }
    // Once the header has gone to the client there is no next upstream
    // (ngx_http_upstream_process_request ends the request).
    if matches!(attempt.phase, Phase::Body | Phase::Upgraded) {
        return Some(false);
    }
    // A stream session has no other upstream once it has one (`ngx_stream_proxy_process`),
    // and what the worker does next is another session's.
    if attempt.entry.line.is_under_way() {
        return Some(false);
    }
    let continuation = attempt.continuation?;
    if continuation.next_ns.saturating_sub(continuation.closed_ns) > AT_ONCE_NS {
        return None;
    }
    match continuation.next {
        Next::OtherSend => Some(false),
        // It may be the next subrequest's.
        Next::Connect | Next::Reuse if attempt.entry.line.subrequest => None,
        Next::Connect | Next::Reuse => Some(true),
    }
}

fn same_request(before: &Attempt<'_>, after: &Attempt<'_>) -> Same {
    let (first, second) = (&before.entry.line, &after.entry.line);
    if first.summary.host != second.summary.host {
        return Same::No;
    }
    if first.subrequest || second.subrequest {
        return Same::Unknown;
    }
    let Some(continuation) = before.continuation else {
        return without_continuation(before, after);
    };
    match continuation.next {
        Next::Connect | Next::Reuse => went_on_with(continuation, before, after),
        // The client was answered after the second line: one request.
        Next::OtherSend => match written_ns(after.entry) {
            Some(ns) if ns <= continuation.next_ns => Same::Yes,
            Some(_) => Same::No,
            None => Same::Unknown,
        },
    }
}

/// When a line was written; where that was not seen, when its connection was closed, which
/// is the worker's next step.
fn written_ns(entry: &Entry) -> Option<u64> {
    let closed = || {
        entry
            .only_connection()
            .map(|connection| connection.ended_ns)
    };
    entry.sighting.map(|sighting| sighting.ns).or_else(closed)
}

/// The connection that came next may have answered, been kept alive, and failed under a
/// later request: then it is not the same attempt.
fn went_on_with(continuation: &Continuation, before: &Attempt<'_>, after: &Attempt<'_>) -> Same {
    let Some(connection) = after.entry.only_connection() else {
        // Its connection is not known for sure: it may be the retry, or a later request.
        return without_continuation(before, after);
    };
    if continuation.next_cookie != Some(connection.cookie) {
        return Same::No;
    }
    if after.entry.line.tls {
        return if after.entry.ns().saturating_sub(continuation.next_ns) <= AT_ONCE_NS {
            Same::Yes
        } else {
            Same::Unknown
        };
    }
    // Of several exchanges that count as one the first may be another request's.
    if connection.missed_calls > 0 {
        return Same::Unknown;
    }
    let its_own = match continuation.next {
        Next::Connect => connection.exchanges <= 1,
        _ => connection.request_started_ns == Some(continuation.next_ns),
    };
    // An error found before a request was sent is a later request's.
    let found_later = after.phase == Phase::Idle
        && connection
            .request_started_ns
            .is_some_and(|started| started >= continuation.next_ns)
        && after.entry.line.kind == MessageKind::ConnectFailed;
    if its_own && !found_later {
        Same::Yes
    } else {
        Same::No
    }
}

/// Without word of the worker's next step only what is of one call is of one request.
fn without_continuation(before: &Attempt<'_>, after: &Attempt<'_>) -> Same {
    if retried(before) == Some(false) {
        return Same::No;
    }
    let (Some(_), Some(seen)) = (before.entry.sighting, after.entry.sighting) else {
        return Same::Unknown;
    };
    // Times to a tick do not tell calls apart.
    if after
        .entry
        .connection()
        .is_some_and(|found| found.filled_in && found.exchanges > 1)
    {
        return Same::Unknown;
    }
    let begun = after
        .entry
        .connection()
        .filter(|_| after.entry.line.kind != MessageKind::ConnectFailed)
        .and_then(|found| found.request_started_ns.or(Some(found.opened_ns)));
    let gap = begun.unwrap_or(seen.ns).saturating_sub(before.entry.ns());
    if gap <= SAME_CALL_NS {
        Same::Yes
    } else {
        Same::Unknown
    }
}
