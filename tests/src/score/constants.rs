//! Inferred constants against the configured ones.

use serde::Serialize;

use crate::act::{Constant, Value};
use crate::verdicts::{Report, Upstream};

/// An inferred constant against the configured one.
#[derive(Clone, Debug, Serialize)]
pub struct Inferred {
    /// The scenario whose backend it is.
    pub scenario: String,
    /// The configured one.
    pub constant: Constant,
    /// What the report says, in the same unit.
    pub found: Option<f64>,
    /// Near enough: an idle timeout within 2 % or 20 ms (or as the backend itself recorded,
    /// which may have waited for the processor), a work timeout within 5 % or 50 ms (1.1 s under a
    /// supervisor), a number of requests exactly, a size between those seen, bytes of a
    /// request to its head.
    pub right: bool,
}

impl Inferred {
    pub(super) fn of(report: &Report, scenario: &str, constant: &Constant) -> Self {
        let upstream = report
            .upstreams
            .iter()
            .find(|upstream| upstream.address == constant.upstream);
        let found = match constant.value {
            Value::FailedBodyBytes(bytes) => counted(report, &constant.upstream, bytes),
            value => upstream.and_then(|upstream| found(upstream, value)),
        };
        Self {
            scenario: scenario.to_owned(),
            constant: constant.clone(),
            found: found.map(|(found, _)| found),
            right: found.is_some_and(|(_, right)| right),
        }
    }

    /// How far off it is, where both are times in milliseconds.
    #[must_use]
    pub fn off_by_ms(&self) -> Option<f64> {
        match self.constant.value {
            Value::IdleTimeoutMs(ms)
            | Value::KeptMs { timeout: ms, .. }
            | Value::WorkTimeoutMs(ms)
            | Value::SupervisedTimeoutMs(ms) => self.found.map(|found| (found - ms).abs()),
            Value::RequestLimit(_) | Value::SizeThreshold { .. } | Value::FailedBodyBytes(_) => {
                None
            }
        }
    }
}

/// nginx's request line and headers, which a size inferred from a connection holds too.
const HEAD: u64 = 1024;

/// The bytes counted of the failed requests of a backend, those farthest from a body of
/// this size, and whether each is that and a head.
fn counted(report: &Report, upstream: &str, body: u64) -> Option<(f64, bool)> {
    let incidents = report.incidents.iter();
    let of_it = incidents.filter(|incident| incident.upstream == upstream);
    let counted: Option<Vec<u64>> = of_it
        .map(|incident| incident.connection.as_ref()?.request_bytes)
        .collect();
    let counted = counted?;
    let right = counted
        .iter()
        .all(|bytes| (body + 1..=body + HEAD).contains(bytes));
    let farthest = counted
        .into_iter()
        .max_by_key(|bytes| bytes.abs_diff(body))?;
    let farthest = u32::try_from(farthest).unwrap_or(u32::MAX);
    Some((f64::from(farthest), right))
}

/// What the report says, and whether that is near enough.
fn found(upstream: &Upstream, value: Value) -> Option<(f64, bool)> {
    let near = |found: f64, truth: f64, share: f64, least: f64| {
        (found, (found - truth).abs() <= (truth * share).max(least))
    };
    match value {
        Value::IdleTimeoutMs(ms) => {
            let found = upstream.idle_timeout?.ms;
            Some(near(found, ms, 0.02, 20.0))
        }
        Value::KeptMs {
            timeout,
            least,
            most,
        } => {
            let (found, right) = near(upstream.idle_timeout?.ms, timeout, 0.02, 20.0);
            Some((found, right || (least..=most).contains(&found)))
        }
        Value::WorkTimeoutMs(ms) => Some(near(upstream.work_timeout?.ms, ms, 0.05, 50.0)),
        Value::SupervisedTimeoutMs(ms) => Some(near(upstream.work_timeout?.ms, ms, 0.05, 1100.0)),
        Value::RequestLimit(requests) => {
            let found = upstream.request_limit?.requests;
            Some((f64::from(found), found == requests))
        }
        Value::FailedBodyBytes(_) => None,
        Value::SizeThreshold { answered, failed } => {
            let found = upstream.size_threshold?;
            let largest = (found.answered_bytes * 3 / 4, found.answered_bytes * 5 / 4);
            let right = largest.0 <= answered + HEAD
                && answered <= largest.1
                && found.bytes <= failed + HEAD
                && found.bytes > found.answered_bytes;
            // Sizes are far below 2⁵².
            Some((
                f64::from(u32::try_from(found.bytes).unwrap_or(u32::MAX)),
                right,
            ))
        }
    }
}
