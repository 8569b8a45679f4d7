//! `nginx-shutdown`: a worker that had been told to stop gave its connections up.
//! Requires: nginx's line that says so, which stream and mail alone write. Requests over
//! http are cut without a line; the report's notes count them ([`crate::judge`]).

use super::{Case, Remedy, Verdict, in_flight, sentences, with_socket};
use crate::nginx::message::MessageKind;
use crate::report::model::Cause;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    if case.line.kind != MessageKind::ShutdownTimeout {
        return None;
    }
    let set = case.settings.worker_shutdown_timeout.as_deref();
    let now = set.map_or_else(String::new, |set| format!(" (now {set})"));
    Some(Verdict {
        cause: Cause::NginxShutdown,
        confidence: with_socket(case),
        evidence: sentences([
            Some(format!(
                "the worker was shutting down and worker_shutdown_timeout{now} had run out"
            )),
            in_flight(case),
        ]),
        advice: Some(Remedy {
            text: format!(
                "raise worker_shutdown_timeout{now} above the longest session, or reload less \
                 often; old workers and their memory stay for that much longer"
            ),
            because: "a worker that shut down cut its sessions short".to_owned(),
        }),
    })
}
