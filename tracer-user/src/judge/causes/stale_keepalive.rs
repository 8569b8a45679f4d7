//! `stale-keepalive`: nginx reused a kept-alive connection that the backend had closed
//! or was closing. Requires: a connection used before; the backend's FIN or RST arrived
//! while no request was in flight, or crossed the request on the wire; no response byte.
//! The FIN crossed if it acknowledges nothing of the request; likely also if the backend's
//! process, on this host, closed without having read any of it, at once or when its idle
//! timeout was over. An RST that comes at once
//! instead of an acknowledgement makes it likely, as does a reuse that is only inferred.

use super::{
    Case, Remedy, Stale, Verdict, how_it_ended, in_flight, owner, reuse, sentences, staleness,
    surety, unlooked,
};
use crate::judge::case::{Settings, ms, nginx_time, words};
use crate::judge::end::{in_flight_at_end_ns, peer_end_ns};
use crate::judge::staleness::NEAR;
use crate::report::model::{Cause, Confidence, InferredTimeout};
use crate::report::words::{counted, milliseconds};

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let stale = case.was_stale()?;
    let timeout = case.constants.idle_timeout;
    // At a limit on requests, that may be why.
    let at_limit = match case.constants.request_limit {
        Some(limit) => case.served_exactly(limit.requests) != Some(false),
        // One that is not known, because exchanges were not counted.
        None => case.may_have_hidden_limit(),
    };
    let confidence = if at_limit {
        surety(case, stale).max(Confidence::Likely)
    } else {
        surety(case, stale)
    };
    Some(Verdict {
        cause: Cause::StaleKeepalive,
        confidence,
        evidence: sentences([
            how_it_ended(case),
            staleness(case, stale),
            unlooked(case, stale),
            reuse(case),
            idle_age(case, stale, timeout),
        ]),
        advice: timeout.and_then(|timeout| remedy(case.settings, &case.line.upstream, timeout)),
    })
}

/// nginx was late: the backend had answered, and its idle timeout was over before nginx
/// read the answer. Requires: an end that came before nginx read the first byte, so long
/// after the request as the backend lets connections idle. The answer may have been cut
/// short all the same, so it is likely only.
pub(super) fn by_late_reading(case: &Case<'_>) -> Option<Verdict> {
    let connection = case.connection()?;
    let end = peer_end_ns(connection)?;
    let waited = in_flight_at_end_ns(connection)?;
    let late = connection.first_byte_ns.is_some_and(|first| first > end);
    let all_read = case.peer_unread().is_none_or(|unread| unread == 0);
    if !(owner::backend_ended(case) && late && all_read && case.is_timeouts(waited)) {
        return None;
    }
    Some(Verdict {
        cause: Cause::StaleKeepalive,
        confidence: Confidence::Likely,
        evidence: sentences([
            how_it_ended(case),
            Some(format!(
                "that was {} after the request, which is the backend's idle timeout, and before \
                 nginx read the answer: the worker was late",
                words(waited)
            )),
            in_flight(case),
            reuse(case),
        ]),
        advice: Some(Remedy {
            text: "find out what kept the worker from reading: a blocking call, a disk, too few \
                   processors (more workers cost memory)"
                .to_owned(),
            because: "nginx read an answer later than the backend keeps idle connections"
                .to_owned(),
        }),
    })
}

/// How long the connection had been idle, beside what the backend allows.
pub(super) fn idle_age(
    case: &Case<'_>,
    stale: Stale,
    timeout: Option<InferredTimeout>,
) -> Option<String> {
    let (ns, when) = match stale {
        Stale::Idle => (case.idle_age_ns()?, "at that moment"),
        Stale::Crossed | Stale::LeftUnread | Stale::AnsweredByReset => {
            (case.idle_ns()?, "before the request")
        }
    };
    let age = ms(ns);
    let beside = timeout.map_or_else(String::new, |timeout| {
        let near = (age - timeout.ms).abs() <= (timeout.ms * NEAR).max(timeout.spread_ms);
        format!(
            "; {} idle timeout is {} ({})",
            if near {
                "that is where it closes: the backend's"
            } else {
                "the backend's"
            },
            milliseconds(timeout.ms),
            counted(timeout.samples, "close", "closes")
        )
    });
    Some(format!(
        "the connection had been idle for {} {when}{beside}",
        milliseconds(age)
    ))
}

/// A timeout for nginx that ends before the backend's.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a timeout in milliseconds, positive and small"
)]
fn shorter(ms: f64) -> String {
    if ms >= 2000.0 {
        format!("{}s", ((ms - 500.0) / 1000.0).floor() as u64)
    } else {
        format!("{}ms", ((ms * 0.8) / 10.0).floor() as u64 * 10)
    }
}

pub(in crate::judge) fn remedy(
    settings: &Settings,
    upstream: &str,
    timeout: InferredTimeout,
) -> Option<Remedy> {
    let keeps = settings.keepalive_timeout_ms;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    if keeps.is_some_and(|keeps| (keeps as f64) < timeout.ms) {
        // nginx already closes first; the advice would change nothing.
        return None;
    }
    let observed = format!(
        "{upstream} closes idle connections after {} ({}, spread {})",
        milliseconds(timeout.ms),
        counted(timeout.samples, "close", "closes"),
        milliseconds(timeout.spread_ms)
    );
    if settings.keepalive_timeout_unknown {
        return Some(Remedy {
            text: "raise the backend's idle timeout (costs: idle descriptors on the backend), or \
                   update nginx: before 1.15.3 it cannot close the idle connections of an \
                   upstream by a timeout of its own"
                .to_owned(),
            because: format!("{observed}, nginx keeps them until the backend closes"),
        });
    }
    let block = settings.block.as_deref().map_or_else(
        || "its upstream block".to_owned(),
        |name| format!("`upstream {name}`"),
    );
    let kept = keeps.map_or_else(
        || "longer".to_owned(),
        |keeps| {
            let default = if settings.keepalive_timeout_set {
                ""
            } else {
                " (the default)"
            };
            format!("for {}{default}", nginx_time(keeps))
        },
    );
    Some(Remedy {
        text: format!(
            "set `keepalive_timeout {}` in {block} (costs: a few more handshakes), or raise the \
             backend's idle timeout above nginx's (costs: idle descriptors on the backend)",
            shorter(timeout.ms)
        ),
        because: format!("{observed}, nginx keeps them {kept}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: InferredTimeout = InferredTimeout {
        ms: 5000.0,
        spread_ms: 4.0,
        samples: 312,
    };

    #[test]
    fn advice_ends_before_the_backends_timeout() {
        assert_eq!(shorter(5000.0), "4s");
        assert_eq!(shorter(2000.0), "1s");
        assert_eq!(shorter(1000.2), "800ms");
    }

    #[test]
    fn advice_that_the_configuration_follows_already_is_not_given() {
        let settings = Settings {
            keepalive_timeout_ms: Some(4000),
            keepalive_timeout_set: true,
            ..Settings::default()
        };
        assert_eq!(remedy(&settings, "app", TIMEOUT), None);
        let settings = Settings {
            keepalive_timeout_ms: Some(60_000),
            ..Settings::default()
        };
        let given = remedy(&settings, "app", TIMEOUT).unwrap();
        assert!(given.text.contains("keepalive_timeout 4s"), "{given:?}");
        assert!(given.because.contains("for 60s (the default)"), "{given:?}");
        let settings = Settings {
            keepalive_timeout_unknown: true,
            ..Settings::default()
        };
        let given = remedy(&settings, "app", TIMEOUT).unwrap();
        assert!(!given.text.contains("set `keepalive_timeout"), "{given:?}");
    }
}
