//! Joins a report's incidents to the acts that stand behind them, and scores them.
//!
//! An incident belongs to the act whose request its line names, at the backend that
//! its line names: the text of nginx's log, not the connection that the tool found.
//! Where no such request met an act, it belongs to the act on the connection that
//! the tool found, if that act needs no request. Each act is used once.

mod error_log;
mod table;

use std::collections::BTreeMap;

use serde::Serialize;

pub use error_log::{LogLine, read as read_error_log};

use crate::act::{Act, Constant, Expected, Value};
use crate::verdicts::{Incident, Report};

/// Counts for one true cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Lines.
    pub lines: usize,
    /// Of these, with a connection that the backend recorded.
    pub with_connection: usize,
    /// The tool found that connection.
    pub right_connection: usize,
    /// Right side.
    pub right_side: usize,
    /// Right means.
    pub right_means: usize,
    /// Right cause.
    pub right_cause: usize,
    /// Another cause, `unexplained` aside.
    pub wrong: usize,
    /// `unexplained`.
    pub unexplained: usize,
    /// `unexplained` although there was evidence.
    pub needlessly_unexplained: usize,
}

/// Verdicts at one confidence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Calibration {
    /// All.
    pub verdicts: usize,
    /// Right ones.
    pub right: usize,
}

/// An inferred constant against the configured one.
#[derive(Clone, Debug, Serialize)]
pub struct Inferred {
    /// The configured one.
    pub constant: Constant,
    /// What the report says, in the same unit.
    pub found: Option<f64>,
    /// Within 2 % or 20 ms; a number of requests exactly.
    pub right: bool,
}

/// The score of one run, or of several added up.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Score {
    /// By true cause.
    pub causes: BTreeMap<String, Row>,
    /// True cause, then the cause that the tool gave: how often.
    pub confusion: BTreeMap<String, BTreeMap<String, usize>>,
    /// By confidence.
    pub calibration: BTreeMap<String, Calibration>,
    /// Inferred constants.
    pub constants: Vec<Inferred>,
    /// Acts that met no request or left no line, by cause: no fault of the tool's.
    pub without_line: BTreeMap<String, usize>,
    /// Each mistake that fails the run, in words: a wrong `certain`, a false incident,
    /// a missing line, a wrong connection.
    pub failures: Vec<String>,
    /// Each other mistake, in words.
    pub mistakes: Vec<String>,
}

impl Score {
    /// Scores one run's report.
    #[must_use]
    pub fn of(report: &Report, acts: &[Act], constants: &[Constant], log: &[LogLine]) -> Self {
        let mut score = Self::default();
        score.compare_lines(report, log);
        let mut used = vec![false; acts.len()];
        for incident in &report.incidents {
            let found = find(incident, acts, &used);
            if let Some(at) = found {
                used[at] = true;
            }
            match found.map(|at| (&acts[at], acts[at].expected.as_ref())) {
                Some((act, Some(expected))) => score.judge(incident, act, expected),
                Some((act, None)) => score.failures.push(format!(
                    "false incident {} about a normal act ({})",
                    named(incident),
                    act.what
                )),
                None => score.failures.push(format!(
                    "false incident {}: no act behind it",
                    named(incident)
                )),
            }
        }
        for (act, _) in acts.iter().zip(used).filter(|(_, used)| !used) {
            if let Some(expected) = &act.expected {
                *score
                    .without_line
                    .entry(expected.cause().into())
                    .or_default() += 1;
            }
        }
        for constant in constants {
            score.constants.push(infer(report, constant));
        }
        score
    }

    /// The log's failures and the report's incidents have to be the same lines.
    fn compare_lines(&mut self, report: &Report, log: &[LogLine]) {
        for line in log {
            let same = |incident: &&Incident| incident.line.offset == line.offset;
            if !report.incidents.iter().any(|incident| same(&incident)) {
                let text = &line.text;
                self.failures
                    .push(format!("missing line at byte {}: {text}", line.offset));
            }
        }
    }

    fn judge(&mut self, incident: &Incident, act: &Act, expected: &Expected) {
        let truth = expected.cause();
        let said = incident.cause.as_str();
        let right_side = expected.sides.contains(&incident.side.as_str());
        let right_means = expected.means.contains(&incident.means.as_str());
        let right_cause = expected.causes.contains(&said);
        let unexplained = said == "unexplained" && !right_cause;
        let row = self.causes.entry(truth.to_owned()).or_default();
        row.lines += 1;
        row.right_side += usize::from(right_side);
        row.right_means += usize::from(right_means);
        row.right_cause += usize::from(right_cause);
        row.wrong += usize::from(!right_cause && !unexplained);
        row.unexplained += usize::from(unexplained);
        row.needlessly_unexplained += usize::from(unexplained && expected.evident);
        if let Some(nginx_end) = act.nginx_end {
            row.with_connection += 1;
            let right = incident.connection.as_ref().is_some_and(|found| {
                found.local == nginx_end && found.remote.to_string() == act.upstream
            });
            row.right_connection += usize::from(right);
            if !right {
                let found = incident.connection.as_ref().map(|found| found.local);
                self.failures.push(format!(
                    "wrong connection {}: {found:?}, not {nginx_end}",
                    named(incident)
                ));
            }
        }
        let shown = if right_cause || expected.causes.is_empty() {
            truth
        } else {
            said
        };
        let said_of = self.confusion.entry(truth.to_owned()).or_default();
        *said_of.entry(shown.to_owned()).or_default() += 1;
        // `unexplained` claims no cause that could be right or wrong.
        if !unexplained {
            let calibration = self
                .calibration
                .entry(incident.confidence.clone())
                .or_default();
            calibration.verdicts += 1;
            calibration.right += usize::from(right_cause && right_side);
        }
        if right_side && right_means && right_cause {
            return;
        }
        let mistake = format!(
            "{} is called {} {} {} ({}), but is {} {} {truth} ({})",
            named(incident),
            incident.side,
            incident.means,
            said,
            incident.confidence,
            expected.sides.join("/"),
            expected.means.join("/"),
            act.what,
        );
        if incident.confidence == "certain" && !unexplained && !(right_side && right_cause) {
            self.failures.push(format!("wrong and certain: {mistake}"));
        } else {
            self.mistakes.push(mistake);
        }
    }

    /// Nothing that fails a run.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.failures.is_empty()
    }

    /// Adds another run's score; `name` goes before each of its mistakes.
    pub fn add(&mut self, name: &str, other: Self) {
        for (cause, row) in other.causes {
            let sum = self.causes.entry(cause).or_default();
            sum.lines += row.lines;
            sum.with_connection += row.with_connection;
            sum.right_connection += row.right_connection;
            sum.right_side += row.right_side;
            sum.right_means += row.right_means;
            sum.right_cause += row.right_cause;
            sum.wrong += row.wrong;
            sum.unexplained += row.unexplained;
            sum.needlessly_unexplained += row.needlessly_unexplained;
        }
        for (truth, said) in other.confusion {
            let sum = self.confusion.entry(truth).or_default();
            for (cause, count) in said {
                *sum.entry(cause).or_default() += count;
            }
        }
        for (confidence, calibration) in other.calibration {
            let sum = self.calibration.entry(confidence).or_default();
            sum.verdicts += calibration.verdicts;
            sum.right += calibration.right;
        }
        for (cause, count) in other.without_line {
            *self.without_line.entry(cause).or_default() += count;
        }
        self.constants.extend(other.constants);
        let prefixed = |text: String| format!("{name}: {text}");
        self.failures
            .extend(other.failures.into_iter().map(prefixed));
        self.mistakes
            .extend(other.mistakes.into_iter().map(prefixed));
    }
}

/// The act behind an incident.
fn find(incident: &Incident, acts: &[Act], used: &[bool]) -> Option<usize> {
    let free = || {
        let both = acts.iter().enumerate().zip(used);
        both.filter(|((_, act), used)| !**used && act.upstream == incident.upstream)
            .map(|(act, _)| act)
    };
    let of_its_request = |faulty: bool| {
        free()
            .filter(|(_, act)| act.target.is_some() && act.target.as_deref() == incident.target())
            .filter(|(_, act)| act.expected.is_some() == faulty)
            .min_by_key(|(_, act)| act.at_ns)
    };
    let on_its_connection = || {
        let found = incident.connection.as_ref()?;
        free().find(|(_, act)| act.target.is_none() && act.nginx_end == Some(found.local))
    };
    of_its_request(true)
        .or_else(on_its_connection)
        .or_else(|| of_its_request(false))
        .map(|(at, _)| at)
}

fn infer(report: &Report, constant: &Constant) -> Inferred {
    let upstream = report
        .upstreams
        .iter()
        .find(|upstream| upstream.address == constant.upstream);
    let (found, allowed, truth) = match constant.value {
        Value::IdleTimeoutMs(ms) => {
            let found = upstream.and_then(|upstream| upstream.idle_timeout);
            (found.map(|found| found.ms), (ms * 0.02).max(20.0), ms)
        }
        Value::RequestLimit(requests) => {
            let found = upstream.and_then(|upstream| upstream.request_limit);
            let found = found.map(|found| f64::from(found.requests));
            (found, 0.0, f64::from(requests))
        }
    };
    Inferred {
        constant: constant.clone(),
        found,
        right: found.is_some_and(|found| (found - truth).abs() <= allowed),
    }
}

fn named(incident: &Incident) -> String {
    format!(
        "{} ({}, {})",
        incident.id,
        incident.upstream,
        incident.target().unwrap_or("no request")
    )
}

#[cfg(test)]
mod tests;
