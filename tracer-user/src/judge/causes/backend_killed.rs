//! `backend-killed`: somebody ended the backend's process by a signal. Requires: the
//! connection's other end was closed by the end of its process, by a signal that is no
//! crash's. A process that closed by a call and died of a signal within a second makes it
//! likely, and so does a supervisor that is known to end this upstream's workers after a
//! time: the signal may have been its.

use super::{Case, Remedy, Verdict, owner};
use crate::report::model::Cause;
use crate::trace::record::Exit;

const SIGKILL: u32 = 9;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let owner = owner::of(case)?;
    let Exit::Signal(number) = owner.exit else {
        return None;
    };
    if owner::is_crash(number) {
        return None;
    }
    let signal = owner::signal(number);
    let what_to_do = if number == SIGKILL {
        "find out who sent the signal: a supervisor whose patience with a worker or a stop had \
         run out, an orchestrator's end of the grace period, a person. A longer grace period \
         (systemd: TimeoutStopSec, Kubernetes: terminationGracePeriodSeconds) lets requests end \
         first (costs: slower deploys)"
    } else {
        "take the backend out of rotation before it is stopped (a preStop hook, a health check \
         that fails first), or let it handle the signal: stop accepting, finish the requests in \
         flight, then exit (costs: slower deploys)"
    };
    Some(Verdict {
        cause: Cause::BackendKilled,
        confidence: owner.confidence_of_a_signal(case),
        evidence: owner.evidence(case),
        advice: Some(Remedy {
            text: format!("{what_to_do}{}", owner::retries(case)),
            because: format!("{}'s process was killed by {signal}", case.line.upstream),
        }),
    })
}
