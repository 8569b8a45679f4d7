//! `request-limit`: the backend closes a connection after a constant number of
//! requests, and this one had reached it. Requires: a stale connection (as for
//! `stale-keepalive`) with exactly the upstream's inferred number of requests before
//! the failed one.

use super::{Case, Remedy, Verdict, how_it_ended, reuse, sentences, staleness};
use crate::report::model::{Cause, Confidence};

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let stale = case.was_stale()?;
    let limit = case.constants.request_limit?;
    let connection = case.connection()?;
    if connection.exchanges_at_end != limit.requests {
        return None;
    }
    let block = case.settings.block.as_deref();
    let allowed = case.settings.keepalive_requests;
    let heeded = allowed.is_some_and(|allowed| allowed <= u64::from(limit.requests));
    let observed = format!(
        "{} closes its connections after {} requests ({} closes)",
        case.line.upstream, limit.requests, limit.samples
    );
    Some(Verdict {
        cause: Cause::RequestLimit,
        confidence: Confidence::Certain,
        evidence: sentences([
            how_it_ended(case),
            staleness(case, stale),
            reuse(case),
            Some(observed.clone()),
        ]),
        advice: (!heeded).then(|| Remedy {
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
