//! `request-limit`: the backend closes a connection after a constant number of
//! requests, and this one had reached it. Requires: a stale connection (as for
//! `stale-keepalive`) with exactly the upstream's inferred number of requests before
//! the failed one; so the connection began during the capture. The number is inferred from other closes, so it is never certain.

use super::{Case, Remedy, Verdict, how_it_ended, reuse, sentences, staleness, surety, unlooked};
use crate::judge::case::ms;
use crate::report::model::{Cause, Confidence};
use crate::report::words::counted;

/// A backend that has reached its limit closes within this time of its last response,
/// busy as it may be.
const SOON_MS: f64 = 1000.0;
/// From this share of the backend's idle timeout on, the timeout may have closed it.
const MOST_OF_TIMEOUT: f64 = 0.9;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let stale = case.was_stale().filter(|_| case.peer_open.is_none())?;
    let limit = case.constants.request_limit?;
    // A limit closes soon after a response; after a silence some timer did.
    let silence_ms = case
        .idle_age_ns()
        .or_else(|| case.idle_ns())
        .map_or(0.0, ms);
    let timeout = case.constants.idle_timeout;
    let timed_out = timeout.map_or(silence_ms > SOON_MS, |timeout| {
        silence_ms >= timeout.ms * MOST_OF_TIMEOUT
    });
    if case.served_exactly(limit.requests) != Some(true) || timed_out {
        return None;
    }
    let unknown = case.settings.keepalive_timeout_unknown;
    let block = case.settings.block.as_deref();
    let allowed = case.settings.keepalive_requests;
    let heeded = allowed.is_some_and(|allowed| allowed <= u64::from(limit.requests));
    let observed = format!(
        "{} closes its connections after {} requests ({})",
        case.line.upstream,
        limit.requests,
        counted(limit.samples, "close", "closes")
    );
    Some(Verdict {
        cause: Cause::RequestLimit,
        // The limit is inferred.
        confidence: surety(case, stale).max(Confidence::Likely),
        evidence: sentences([
            how_it_ended(case),
            staleness(case, stale),
            unlooked(case, stale),
            reuse(case),
            Some(observed.clone()),
        ]),
        advice: (!heeded && !unknown).then(|| Remedy {
            text: format!(
                "set `keepalive_requests {}` in {}, so that nginx closes first, or raise the \
                 backend's limit; a lower number costs more handshakes",
                limit.requests,
                block.map_or_else(
                    || "the upstream block".to_owned(),
                    |name| format!("`upstream {name}`")
                )
            ),
            because: observed,
        }),
    })
}
