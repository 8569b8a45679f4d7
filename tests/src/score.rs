//! Joins a report's incidents to the acts that stand behind them, and scores them.
//!
//! An incident belongs to the act whose request its line names, at the backend that
//! its line names: the text of nginx's log, not the connection that the tool found.
//! Where no such request met an act, it belongs to the act on the connection that
//! the tool found, if that act needs no request. Each act is used once.

mod access_log;
mod connections;
mod constants;
mod error_log;
pub mod page;
mod recorded;
pub mod section;
mod table;
mod wire;
pub mod without_uprobe;

use std::collections::BTreeMap;

use serde::Serialize;

pub use access_log::{Accessed, read as read_access_log};
pub use constants::Inferred;
pub use error_log::{LogLine, read as read_error_log};
pub use recorded::{Recorded, Traffic};
pub use wire::Carried;
use wire::Told;

use crate::act::{Act, Expected};
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
    /// What decides them was there to be seen.
    pub evident: usize,
    /// `unexplained`.
    pub unexplained: usize,
    /// `unexplained` although there was evidence.
    pub needlessly_unexplained: usize,
}

impl Row {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.lines += other.lines;
        self.with_connection += other.with_connection;
        self.right_connection += other.right_connection;
        self.right_side += other.right_side;
        self.right_means += other.right_means;
        self.right_cause += other.right_cause;
        self.wrong += other.wrong;
        self.evident += other.evident;
        self.unexplained += other.unexplained;
        self.needlessly_unexplained += other.needlessly_unexplained;
    }
}

/// Verdicts at one confidence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Calibration {
    /// All.
    pub verdicts: usize,
    /// Right ones.
    pub right: usize,
}

/// What stands behind an incident.
struct Found<'a> {
    /// What the wire says of its connection.
    told: Option<&'a Told>,
    scenario: &'a str,
    act: &'a Act,
    /// No line was seen being written.
    blind: bool,
}

/// The score of one run, or of several added up.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Score {
    /// Runs added up.
    pub runs: usize,
    /// By true cause.
    pub causes: BTreeMap<String, Row>,
    /// By scenario.
    pub scenarios: BTreeMap<String, Row>,
    /// By the strength of the match between line and connection.
    pub matches: BTreeMap<String, Row>,
    /// True cause, then the cause that the tool gave: how often.
    pub confusion: BTreeMap<String, BTreeMap<String, usize>>,
    /// By confidence.
    pub calibration: BTreeMap<String, Calibration>,
    /// Lines whose connection was held against the wire.
    pub witnessed: usize,
    /// Lines whose idle time was held against the lab's records.
    pub idle_times: usize,
    /// Inferred constants.
    pub constants: Vec<Inferred>,
    /// Each hook of the capture, and what became of it.
    pub hooks: BTreeMap<String, String>,
    /// Acts that met no request or left no line, by cause: no fault of the tool's.
    pub without_line: BTreeMap<String, usize>,
    /// Good requests beside.
    pub traffic: Option<Traffic>,
    /// What the capture lost, by kind.
    pub lost: BTreeMap<String, u64>,
    /// Sends of the crowd beside, and as many receives.
    pub crowd: u64,
    /// Incidents that nothing stands behind, or a normal act.
    pub false_incidents: usize,
    /// Lines of the log that the report lacks.
    pub missing_lines: usize,
    /// Runs that came to no end, and have no share in any number.
    pub broken_runs: usize,
    /// Each mistake that fails the run, in words: a wrong `certain`, a false incident,
    /// a missing line, a wrong connection, a good request that failed, a lost record.
    pub failures: Vec<String>,
    /// Each other mistake, in words.
    pub mistakes: Vec<String>,
}

impl Score {
    /// Scores one run's report.
    #[must_use]
    pub fn of(report: &Report, recorded: &Recorded) -> Self {
        let mut score = Self {
            runs: 1,
            traffic: recorded.traffic.clone(),
            ..Self::default()
        };
        score.hooks = hooks(report);
        score.compare_lines(report, &recorded.log);
        score.check_run(report, recorded.runs_may_be_missed);
        score.check_words(recorded);
        score.compare_records(recorded);
        let told = wire::compare(report, &recorded.log, &recorded.wire);
        let mut used = vec![false; recorded.acts.len()];
        for incident in &report.incidents {
            let found = find(incident, &recorded.acts, &used).or_else(|| {
                // The connection would have told which one.
                let guessed = recorded.without_uprobe && incident.matched != "exact";
                guessed.then(|| of_its_upstream(incident, &recorded.acts, &used))?
            });
            if let Some(at) = found {
                used[at] = true;
            }
            let Some((scenario, act)) = found.map(|at| &recorded.acts[at]) else {
                let incident = named(incident);
                score.false_incidents += 1;
                score
                    .failures
                    .push(format!("false incident {incident}: no act behind it"));
                continue;
            };
            match &act.expected {
                Some(expected) => {
                    let found = Found {
                        told: told.get(&incident.id),
                        scenario,
                        act,
                        blind: recorded.without_uprobe,
                    };
                    score.judge(incident, &found, expected);
                }
                None => {
                    score.false_incidents += 1;
                    score.failures.push(format!(
                        "false incident {} about a normal act of {scenario} ({})",
                        named(incident),
                        act.what
                    ));
                }
            }
        }
        for ((_, act), _) in recorded.acts.iter().zip(used).filter(|(_, used)| !used) {
            if let Some(expected) = &act.expected {
                *score
                    .without_line
                    .entry(expected.cause().into())
                    .or_default() += 1;
            }
        }
        for (scenario, constant) in &recorded.constants {
            let inferred = Inferred::of(report, scenario, constant);
            score.constants.push(inferred);
        }
        score
    }

    /// A truth that no report can tell would count as a mistake of the tool's.
    fn check_words(&mut self, recorded: &Recorded) {
        for (scenario, act) in &recorded.acts {
            let unknown = act.expected.iter().flat_map(Expected::unknown_words);
            for word in unknown {
                self.failures
                    .push(format!("{scenario} expects {word:?}, which no report says"));
            }
        }
    }

    /// Nothing may be lost, and no good request may fail.
    fn check_run(&mut self, report: &Report, runs_may_be_missed: bool) {
        for (what, count) in &report.capture.lost {
            if *count > 0 {
                self.lost.insert(what.clone(), *count);
                if runs_may_be_missed && is_missed_run(what) {
                    continue;
                }
                self.failures
                    .push(format!("the capture lost {count} {what}"));
            }
        }
        if let Some(traffic) = self.traffic.as_ref().filter(|traffic| traffic.failed > 0) {
            let some = traffic.failures.join("; ");
            self.failures
                .push(format!("{} good requests failed: {some}", traffic.failed));
        }
    }

    /// The log's failures and the report's incidents have to be the same lines.
    fn compare_lines(&mut self, report: &Report, log: &[LogLine]) {
        for line in log {
            let same = |incident: &&Incident| incident.line.offset == line.offset;
            if !report.incidents.iter().any(|incident| same(&incident)) {
                let text = &line.text;
                self.missing_lines += 1;
                self.failures
                    .push(format!("missing line at byte {}: {text}", line.offset));
            }
        }
    }

    fn judge(&mut self, incident: &Incident, found: &Found<'_>, expected: &Expected) {
        let Found { scenario, act, .. } = *found;
        let truth = expected.cause();
        let said = incident.cause.as_str();
        let right_side = expected.sides.contains(&incident.side.as_str());
        let right_means = expected.means.contains(&incident.means.as_str());
        let right_cause = expected.causes.contains(&said);
        let unexplained = said == "unexplained" && !right_cause;
        let right_connection = self.right_connection(incident, found);
        if right_connection == Some(true) {
            self.compare_idle(incident, found, expected);
        }
        let row = Row {
            lines: 1,
            with_connection: usize::from(right_connection.is_some()),
            right_connection: usize::from(right_connection == Some(true)),
            right_side: usize::from(right_side),
            right_means: usize::from(right_means),
            right_cause: usize::from(right_cause),
            wrong: usize::from(!right_cause && !unexplained),
            evident: usize::from(expected.evident),
            unexplained: usize::from(unexplained),
            needlessly_unexplained: usize::from(unexplained && expected.evident),
        };
        self.causes.entry(truth.to_owned()).or_default().add(&row);
        self.scenarios
            .entry(scenario.to_owned())
            .or_default()
            .add(&row);
        let strength = self.matches.entry(incident.matched.clone());
        strength.or_default().add(&row);
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
            "{} of {scenario} is called {} {} {} ({}), but is {} {} {truth} ({})",
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

    /// The score of a run that came to no end.
    #[must_use]
    pub fn broken(why: &str) -> Self {
        Self {
            broken_runs: 1,
            failures: vec![format!("came to no end: {why}")],
            ..Self::default()
        }
    }

    /// Adds another run's score; `name` goes before each of its mistakes.
    pub fn add(&mut self, name: &str, other: Self) {
        self.runs += other.runs;
        self.false_incidents += other.false_incidents;
        self.missing_lines += other.missing_lines;
        self.broken_runs += other.broken_runs;
        self.witnessed += other.witnessed;
        self.idle_times += other.idle_times;
        self.crowd += other.crowd;
        for (cause, row) in &other.causes {
            self.causes.entry(cause.clone()).or_default().add(row);
        }
        for (scenario, row) in &other.scenarios {
            let sum = self.scenarios.entry(scenario.clone()).or_default();
            sum.add(row);
        }
        for (strength, row) in &other.matches {
            self.matches.entry(strength.clone()).or_default().add(row);
        }
        for (what, count) in other.lost {
            *self.lost.entry(what).or_default() += count;
        }
        if let Some(traffic) = other.traffic {
            self.traffic.get_or_insert_default().add(traffic);
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
        self.hooks.extend(other.hooks);
        let prefixed = |text: String| format!("{name}: {text}");
        self.failures
            .extend(other.failures.into_iter().map(prefixed));
        self.mistakes
            .extend(other.mistakes.into_iter().map(prefixed));
    }
}

/// Whether a loss of this kind is of runs of a program that the kernel skipped.
#[must_use]
pub fn is_missed_run(kind: &str) -> bool {
    kind.starts_with("missed_runs:")
}

/// The act behind an incident.
fn find(incident: &Incident, acts: &[(String, Act)], used: &[bool]) -> Option<usize> {
    let free = || {
        let acts = acts.iter().map(|(_, act)| act).enumerate();
        let both = acts.zip(used);
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

/// An act on a connection of its backend that needs no request.
fn of_its_upstream(incident: &Incident, acts: &[(String, Act)], used: &[bool]) -> Option<usize> {
    acts.iter().zip(used).position(|((_, act), used)| {
        !used && act.target.is_none() && act.expected.is_some() && act.upstream == incident.upstream
    })
}

/// `attached`, what took its place, or why it is absent.
fn hooks(report: &Report) -> BTreeMap<String, String> {
    let hooks = report.capture.hooks.iter().map(|hook| {
        let became = match (hook.attached, &hook.by) {
            (true, None) => "attached".to_owned(),
            (true, Some(other)) => format!("by {other}"),
            (false, _) => {
                let reason = hook.reason.as_deref().unwrap_or("no reason recorded");
                format!("absent ({reason})")
            }
        };
        (hook.name.clone(), became)
    });
    hooks.collect()
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
