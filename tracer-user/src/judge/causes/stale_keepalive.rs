//! `stale-keepalive`: nginx reused a kept-alive connection that the backend had closed
//! or was closing. Requires: a connection used before; the backend's FIN or RST arrived
//! while no request was in flight, or crossed the request on the wire; no response byte.
//! The FIN crossed if it acknowledges nothing of the request. An RST that comes at once
//! instead of an acknowledgement makes it likely, and certain if the connection had then
//! been idle for as long as the backend's idle timeout.

use super::{Case, Remedy, Stale, Verdict, how_it_ended, reuse, sentences, staleness};
use crate::judge::case::{Settings, ms, words_ms};
use crate::judge::upstreams::idle_age_ns;
use crate::report::model::{Cause, Confidence, InferredTimeout};

/// An idle age this close to the backend's idle timeout speaks for it.
const NEAR: f64 = 0.05;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let stale = case.was_stale()?;
    let connection = case.connection()?;
    let age_ms = idle_age_ns(connection).or_else(|| case.idle_ns()).map(ms);
    let timeout = case.constants.idle_timeout;
    let at_timeout = timeout.zip(age_ms).is_some_and(|(timeout, age)| {
        (age - timeout.ms).abs() <= (timeout.ms * NEAR).max(timeout.spread_ms)
    });
    let confidence = match stale {
        Stale::Idle | Stale::Crossed => Confidence::Certain,
        Stale::AnsweredByReset if at_timeout => Confidence::Certain,
        Stale::AnsweredByReset => Confidence::Likely,
    };
    let age = age_ms.map(|age| {
        let timeout = match timeout {
            Some(timeout) if at_timeout => format!(
                ", which is the backend's idle timeout ({}, {} closes)",
                words_ms(timeout.ms),
                timeout.samples
            ),
            Some(timeout) => format!(
                "; the backend's idle timeout is {} ({} closes)",
                words_ms(timeout.ms),
                timeout.samples
            ),
            None => String::new(),
        };
        format!(
            "it had been idle for {} at the backend's end{timeout}",
            words_ms(age)
        )
    });
    Some(Verdict {
        cause: Cause::StaleKeepalive,
        confidence,
        evidence: sentences([how_it_ended(case), staleness(case, stale), reuse(case), age]),
        advice: timeout.and_then(|timeout| remedy(case.settings, &case.line.upstream, timeout)),
    })
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

fn remedy(settings: &Settings, upstream: &str, timeout: InferredTimeout) -> Option<Remedy> {
    let keeps = settings.keepalive_timeout_ms;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    if settings.keepalive_timeout_set && keeps.is_some_and(|keeps| (keeps as f64) < timeout.ms) {
        // nginx already closes first; the advice would change nothing.
        return None;
    }
    let block = settings.block.as_deref().map_or_else(
        || "its upstream block".to_owned(),
        |name| format!("`upstream {name}`"),
    );
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    let kept = keeps.map_or_else(
        || "longer".to_owned(),
        |keeps| {
            let default = if settings.keepalive_timeout_set {
                ""
            } else {
                " (the default)"
            };
            format!("{}{default}", words_ms(keeps as f64))
        },
    );
    Some(Remedy {
        text: format!(
            "set `keepalive_timeout {}` in {block} (costs: a few more handshakes), or raise the \
             backend's idle timeout above nginx's (costs: idle descriptors on the backend)",
            shorter(timeout.ms)
        ),
        because: format!(
            "{upstream} closes idle connections after {} ({} closes, spread {}), nginx keeps \
             them {kept}",
            words_ms(timeout.ms),
            timeout.samples,
            words_ms(timeout.spread_ms)
        ),
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
        assert!(given.because.contains("60.00 s (the default)"), "{given:?}");
    }
}
