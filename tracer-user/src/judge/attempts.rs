//! Attempts of one client request: which lines belong together, whether nginx tried
//! again after each, and whether the client was served in the end.

use super::Entry;
use crate::nginx::message::MessageKind;
use crate::report::model::Phase;
use crate::trace::record::{Continuation, Next};

/// A next step later than this after the close is not its consequence.
const AT_ONCE_NS: u64 = 1_000_000_000;

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
    /// The connection that the retry went to was still without an answer when the
    /// capture ended.
    pub(super) next_unanswered: bool,
}

/// Outcomes of all attempts, which are in the order of time.
pub(super) fn outcomes(attempts: &[Attempt<'_>]) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(attempts.len());
    // The last attempt of each client connection of each worker.
    let mut last = std::collections::HashMap::new();
    for (index, attempt) in attempts.iter().enumerate() {
        let mut outcome = Outcome {
            group: index,
            ..Outcome::default()
        };
        let line = &attempt.entry.line;
        if let Some(number) = line.summary.connection {
            let key = (line.master_pid, line.summary.pid, number);
            if let Some(before) = last.insert(key, index)
                && let Some(previous) = attempts.get(before)
                && same_request(previous, attempt)
                && let Some(known) = outcomes.get_mut(before)
            {
                // A line that says that nobody is left to try is no further attempt.
                let tried = line.kind != MessageKind::NoLiveUpstreams;
                if known.retried.is_none() || tried {
                    known.retried = Some(tried);
                }
                outcome.group = known.group;
            }
        }
        outcome.retried = retried(attempt);
        outcomes.push(outcome);
    }
    // The last attempt of a request decides for all.
    let mut served = vec![None; attempts.len()];
    for (index, (outcome, attempt)) in outcomes.iter().zip(attempts).enumerate() {
        if let Some(slot) = served.get_mut(outcome.group) {
            *slot = match outcome.retried {
                Some(true) if attempt.next_unanswered => None,
                // Its retry has no line of its own.
                Some(true) if is_last(&outcomes, index) => Some(true),
                Some(false) => Some(false),
                _ => None,
            };
        }
    }
    for outcome in &mut outcomes {
        outcome.served = served.get(outcome.group).copied().flatten();
    }
    outcomes
}

fn is_last(outcomes: &[Outcome], index: usize) -> bool {
    let group = outcomes.get(index).map(|outcome| outcome.group);
    outcomes
        .iter()
        .skip(index + 1)
        .all(|later| Some(later.group) != group)
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
    let continuation = attempt.continuation?;
    if continuation.next_ns.saturating_sub(continuation.closed_ns) > AT_ONCE_NS {
        return None;
    }
    Some(continuation.next != Next::OtherSend)
}

/// Is a later attempt of the same client connection the same request as this one?
fn same_request(before: &Attempt<'_>, after: &Attempt<'_>) -> bool {
    let (first, second) = (&before.entry.line.summary, &after.entry.line.summary);
    if first.request != second.request || first.host != second.host {
        return false;
    }
    let Some(continuation) = before.continuation else {
        // Without a continuation, a line about the same client connection and request
        // is the same request's unless that one is known to be over.
        return retried(before) != Some(false);
    };
    match continuation.next {
        Next::Connect | Next::Reuse => {
            continuation.next_cookie == after.entry.connection().map(|found| found.cookie)
        }
        // The client was answered after the second line: one request.
        Next::OtherSend => after
            .entry
            .sighting
            .is_some_and(|sighting| sighting.ns <= continuation.next_ns),
    }
}
