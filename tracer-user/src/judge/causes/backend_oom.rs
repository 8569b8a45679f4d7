//! `backend-oom`: the kernel killed the backend's process because memory had run out.
//! Requires: the connection's other end was closed by the end of its process, which the
//! kernel had chosen as a victim.

use super::{Case, Remedy, Verdict, owner};
use crate::report::model::Cause;
use crate::trace::record::Exit;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let owner = owner::of(case)?;
    if owner.exit != Exit::OutOfMemory {
        return None;
    }
    Some(Verdict {
        cause: Cause::BackendOom,
        confidence: owner.confidence(),
        evidence: owner.evidence(case),
        advice: Some(Remedy {
            text: format!(
                "look at `dmesg` for that moment: it says whether the host or a cgroup's limit \
                 (`memory.max`; memory.events counts them) was short. Raise that limit (costs: \
                 memory of the host), or let the backend use less: fewer workers, smaller caches, \
                 a leak cured{}",
                owner::retries(case)
            ),
            because: format!(
                "the kernel killed {}'s process for want of memory",
                case.line.upstream
            ),
        }),
    })
}
