//! `worker-recycled`: one of the backend's processes exited while others served on.
//! Requires: the end of the process as for `backend-exited`; and another process that
//! ended connections of this upstream before and after, or a connection opened before
//! that exchanged bytes after it (then likely), or a parent that keeps several processes
//! and had another one serve after it (likely).

use super::{Case, Remedy, Verdict, owner};
use crate::report::model::{Cause, Confidence};
use crate::trace::record::Exit;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let owner = owner::of(case)?;
    let Exit::Code(status) = owner.exit else {
        return None;
    };
    let history = case.history?;
    let sibling = history.sibling(owner.close.pid, owner.ended_ns);
    let mut confidence = owner.confidence();
    let served_on = if let Some(sibling) = sibling {
        format!(
            "process {} ({}, child of {}) held connections of this backend before that and after",
            sibling.pid, sibling.comm, sibling.parent_pid
        )
    } else if history.exchanged_on(owner.ended_ns) {
        confidence = Confidence::Likely;
        "connections that had been opened before that were answered after it: the backend \
         served on"
            .to_owned()
    } else if let Some(colleague) = history.colleague(owner.close.pid, owner.ended_ns) {
        confidence = Confidence::Likely;
        format!(
            "its parent keeps several processes (process {} held connections of this backend \
             at the same time) and had another one serve after it",
            colleague.pid
        )
    } else {
        return None;
    };
    let mut evidence = owner.evidence(case);
    evidence.insert(1, served_on);
    let limit = case.constants.request_limit.map_or_else(String::new, |limit| {
        format!(
            ". Its connections end after {} requests: a limit on a worker's requests wants jitter",
            limit.requests
        )
    });
    Some(Verdict {
        cause: Cause::WorkerRecycled,
        confidence,
        evidence,
        advice: Some(Remedy {
            text: format!(
                "let a worker drain before it exits: finish its requests, send `Connection: \
                 close` with the last responses, close idle connections only then (a graceful \
                 timeout; jitter on the limit of requests, so that workers do not go together). \
                 It costs slower recycling{limit}{}",
                owner::retries(case)
            ),
            because: format!(
                "a worker of {} exited with status {status} while others served on",
                case.line.upstream
            ),
        }),
    })
}
