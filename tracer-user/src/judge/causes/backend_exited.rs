//! `backend-exited`: the backend's process ended by itself. Requires: the connection's
//! other end was closed by the end of its process, with an exit status. A process that
//! closed by a call and exited within a second makes it likely.

use super::{Case, Remedy, Verdict, owner};
use crate::report::model::Cause;
use crate::trace::record::Exit;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let owner = owner::of(case)?;
    let Exit::Code(status) = owner.exit else {
        return None;
    };
    let what_to_do = if status == 0 {
        "it ended in order, and yet with this connection open: let it finish its requests and \
         close its idle connections before it exits (costs: slower stops)"
    } else {
        "look at what it wrote last: an exception that nobody caught, a failed check, a call of \
         exit(); a supervisor that starts it again hides it, and loses the requests in flight \
         each time"
    };
    Some(Verdict {
        cause: Cause::BackendExited,
        confidence: owner.confidence(),
        evidence: owner.evidence(case),
        advice: Some(Remedy {
            text: format!("{what_to_do}{}", owner::retries(case)),
            because: format!(
                "{}'s process exited with status {status}",
                case.line.upstream
            ),
        }),
    })
}
