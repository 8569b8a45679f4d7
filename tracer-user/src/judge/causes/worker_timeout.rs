//! `worker-timeout`: the backend, or its supervisor, gives every request the same time.
//! Requires: at least three connections of this upstream that the backend ended with a
//! request in flight after equal times (see [`crate::judge::work`]), this one among them,
//! or killed by the same supervisor within a second of them; and no request that succeeded
//! and took longer. It is an inference, so never certain.

use super::{Case, Remedy, Verdict, how_it_ended, in_flight, owner, sentences};
use crate::judge::case::words;
use crate::judge::end::in_flight_at_end_ns;
use crate::judge::work::may_be_a_supervisors;
use crate::report::model::{Cause, Confidence};
use crate::report::words::{counted, milliseconds};

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let connection = case.connection()?;
    if !owner::backend_ended(case) || case.sent_nothing() || case.was_stale().is_some() {
        return None;
    }
    let owner = owner::of(case);
    if owner.is_some_and(|owner| !may_be_a_supervisors(owner.exit)) {
        return None;
    }
    let limit = case
        .history?
        .work()
        .limited(connection, case.peer_close())?;
    let observed = format!(
        "{} ended {} with a request in flight after {} (spread {})",
        case.line.upstream,
        counted(limit.samples, "connection", "connections"),
        milliseconds(limit.ms),
        milliseconds(limit.spread_ms)
    );
    let directive = case.directive("read_timeout");
    let setting = case.limit("read_timeout");
    Some(Verdict {
        cause: Cause::WorkerTimeout,
        confidence: Confidence::Likely,
        evidence: sentences([
            in_flight_at_end_ns(connection).map(|ns| {
                format!(
                    "the backend ended the connection {} after the request's first byte, and \
                     did so {} in all after that time (spread {})",
                    words(ns),
                    counted(limit.samples, "time", "times"),
                    milliseconds(limit.spread_ms)
                )
            }),
            Some("no request of it that took longer is known to have succeeded".to_owned()),
            owner.map(|owner| format!("{} {}", owner.name(), owner.fate())),
            how_it_ended(case),
            in_flight(case),
        ]),
        advice: Some(Remedy {
            text: format!(
                "raise the backend's own limit on a request's time (gunicorn `timeout`, uWSGI \
                 `harakiri`, php-fpm `request_terminate_timeout`, a server's request timeout), or \
                 make these requests faster; a longer limit leaves a stuck worker stuck for \
                 longer. {directive} ({setting}) is not what ended them{}",
                owner::retries(case)
            ),
            because: observed,
        }),
    })
}
