//! `backend-crashed`: the backend's process died of its own fault. Requires: the
//! connection's other end was closed by the end of its process, by SIGSEGV, SIGABRT,
//! SIGBUS, SIGILL, SIGFPE, SIGTRAP or SIGSYS. SIGABRT makes it likely only where this
//! upstream's workers are known to be ended after a time: supervisors send it too.

use super::{Case, Remedy, Verdict, owner};
use crate::report::model::Cause;
use crate::trace::record::Exit;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let owner = owner::of(case)?;
    let Exit::Signal(number) = owner.exit else {
        return None;
    };
    if !owner::is_crash(number) {
        return None;
    }
    let signal = owner::signal(number);
    Some(Verdict {
        cause: Cause::BackendCrashed,
        confidence: owner.confidence_of_a_signal(case),
        evidence: owner.evidence(case),
        advice: Some(Remedy {
            text: format!(
                "look for this process's core dump (`coredumpctl`, `dmesg`) and for the request \
                 above in the backend's log; if one request does it, each retry may take another \
                 process down{}",
                owner::retries(case)
            ),
            because: format!("{}'s process crashed by {signal}", case.line.upstream),
        }),
    })
}
