//! `no-live-upstreams`: every peer of the upstream was disabled, so nginx had nobody to
//! ask. Requires: the line. There is no socket by nature.

use super::{Case, Remedy, Verdict};
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence};

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    if case.line.kind != MessageKind::NoLiveUpstreams {
        return None;
    }
    Some(Verdict {
        cause: Cause::NoLiveUpstreams,
        confidence: Confidence::Certain,
        evidence: vec![format!(
            "every peer of {} had failed max_fails times within fail_timeout, or had been tried \
             for this request already",
            case.line.upstream
        )],
        advice: Some(Remedy {
            text: "cure the incidents that disabled the peers first; if they are stale kept-alive \
                   connections, a healthy backend is being disabled: raise max_fails (costs: a \
                   peer that is really down is tried more often) rather than fail_timeout"
                .to_owned(),
            because: "nginx disables a peer after max_fails failures (default 1) for fail_timeout \
                      (default 10 s)"
                .to_owned(),
        }),
    })
}
