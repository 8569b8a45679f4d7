//! What runs on each kernel: the lab's scenarios, each scored by the lab itself against
//! what its backends recorded, the demo, which also holds counts of requests and idle times, a
//! capture without root, and doctor.
//!
//! One script runs them in the guest and on the host, and writes the scores one after the
//! other; this reads them again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::withheld::{self, Calls};
use super::{doctor, nobody, unseen};
use crate::step;

/// A scenario of the table.
#[derive(Debug)]
pub(super) struct Scenario {
    /// Its column.
    pub(super) column: &'static str,
    what: What,
}

#[derive(Debug)]
enum What {
    /// Scenarios of the lab's, by their names there and with more of its options.
    Lab(&'static str),
    /// The lab's `stale`, captured without root.
    Nobody,
    /// The demo.
    Demo,
    /// The answers of `whoclosed doctor`.
    Doctor,
}

const fn of_lab(column: &'static str, lab: &'static str) -> Scenario {
    Scenario {
        column,
        what: What::Lab(lab),
    }
}

/// In the order of the columns.
const ALL: [Scenario; 13] = [
    of_lab("stale", "stale"),
    of_lab("closed", "closed"),
    of_lab("aborted", "aborted"),
    of_lab("refused", "refused"),
    of_lab("timeout", "read_timeout"),
    of_lab("killed", "killed"),
    of_lab("ipv6", "ipv6"),
    of_lab("upload", "upload"),
    of_lab("tls", "tls_closed"),
    of_lab("crowded", CROWDED),
    Scenario {
        column: "nobody",
        what: What::Nobody,
    },
    Scenario {
        column: "demo",
        what: What::Demo,
    },
    Scenario {
        column: DOCTOR,
        what: What::Doctor,
    },
];

/// The column whose numbers are answers, not verdicts.
pub(super) const DOCTOR: &str = "doctor";
/// Those of the short matrix: both sides, a connection that never was, a backend's death,
/// and bytes that nginx sends in two ways, by both means of counting them.
pub(super) const SHORT: [&str; 6] = ["stale", "closed", "refused", "killed", "upload", DOCTOR];

/// Failures of several kinds at once on one nginx, good requests and busy senders beside:
/// where programs can be preempted, the kernel skips runs for nginx then. Each sender that
/// runs has the others wait, and a program that was preempted in one of them is skipped for
/// as long; more senders make the emulator work longer, and little else.
const CROWDED: &str = "stale closed aborted --mixed --crowd 6";

/// Lines of the script's between the scores.
const BEGINS: &str = "scenario: ";
const STATUS: &str = "status: ";
/// What stands before the program's name in a loss of runs that the kernel skipped.
const MISSED: &str = "missed_runs:";
/// Before what the kernel says of when it preempts a task.
const PREEMPTION: &str = "preemption: ";

/// What became of one scenario.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// What is wrong, in words; nothing if all is right.
    pub(super) wrong: Vec<String>,
    /// Verdicts, or answers of doctor, that were held against the truth.
    pub(super) verdicts: u64,
    /// Of the verdicts, those that are right.
    pub(super) right: u64,
    /// Each hook and what became of it.
    pub(super) hooks: BTreeMap<String, String>,
    /// Runs of the capture's programs that the kernel skipped, by what the capture calls
    /// such a loss.
    pub(super) missed: BTreeMap<String, u64>,
    /// Sends of the crowd beside.
    pub(super) crowd: u64,
    /// The capture refused to run, as it has to on this kernel, and said why.
    pub(super) refused: bool,
}

impl Outcome {
    /// Nothing is wrong, but not all verdicts have their cause's own name.
    pub(super) fn is_plainer(&self) -> bool {
        self.wrong.is_empty() && self.right < self.verdicts
    }

    /// The same on a kernel that cannot have the programs: a capture has to refuse and
    /// to say this word; nothing else is right.
    fn refusing(self, word: &str) -> Self {
        let refused = self.wrong.iter().any(|wrong| wrong.contains(word));
        let wrong = match (refused, self.wrong.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => vec![format!("the capture ran, in spite of {word}")],
            (false, false) => {
                let said = self.wrong.join(" | ");
                vec![format!(
                    "the capture refused without a word of {word}: {said}"
                )]
            }
        };
        Self {
            wrong,
            refused,
            ..Self::default()
        }
    }
}

/// Those with these columns, or all.
pub(super) fn chosen(columns: &[String]) -> Result<Vec<&'static Scenario>> {
    let find = |column: &String| {
        let found = ALL.iter().find(|scenario| scenario.column == column);
        let columns = ALL.map(|scenario| scenario.column).join(", ");
        found.with_context(|| format!("no scenario {column:?}; there are {columns}"))
    };
    match columns {
        [] => Ok(ALL.iter().collect()),
        columns => columns.iter().map(find).collect(),
    }
}

/// What stands in the guest before the script.
pub(super) const PLACES: &str = "export WHOCLOSED=/bin/whoclosed WHOCLOSED_NGINX=/bin/nginx\n";

/// The script that runs them and writes their scores. It ends with 0 whatever they do.
pub(super) fn script(scenarios: &[&Scenario], seed: u64) -> String {
    let mut script = withheld::SCRIPT.to_owned();
    // Writing to a String does not fail.
    let _ = writeln!(
        script,
        "echo \"{PREEMPTION}$(cat /sys/kernel/debug/sched/preempt 2>/dev/null)\""
    );
    for scenario in scenarios {
        let command = match scenario.what {
            What::Lab(name) => {
                format!("whoclosed-lab {name} --seed {seed} --json --runs-may-be-missed")
            }
            What::Demo => {
                "whoclosed-demo --check --runs-may-be-missed --output \"$(mktemp -u)\"".to_owned()
            }
            What::Nobody => format!("( SEED={seed}; {} )", nobody::SCRIPT),
            What::Doctor => format!("( {} )", doctor::SCRIPT),
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            script,
            "echo '{BEGINS}{}'\n{command} 2>&1\necho \"{STATUS}$?\"",
            scenario.column
        );
    }
    script
}

/// Runs them on this kernel; what they wrote.
pub(super) fn here(
    scenarios: &[&Scenario],
    seed: u64,
    lab: &Path,
    agent: &Path,
    nginx: &Path,
) -> Result<String> {
    let script = script(scenarios, seed);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [lab.to_owned()]
        .into_iter()
        .chain(std::env::split_paths(&path));
    let mut command = step::outside_cargo("sh");
    command
        .arg("-c")
        .arg(script)
        .env("PATH", std::env::join_paths(folders).context("no PATH")?)
        .env("WHOCLOSED", agent)
        .env("WHOCLOSED_NGINX", nginx)
        .env_remove(withheld::VARIABLE)
        .stdin(std::process::Stdio::null());
    let output = command.output().context("cannot run sh")?;
    if !output.status.success() {
        bail!(
            "the scenarios did not run: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What became of each, in their order; fewer if the script came to no end. `refuses` is
/// what a capture has to say if it has to refuse on this kernel, `calls` what sees nginx's
/// sends and receives there.
pub(super) fn read(
    scenarios: &[&Scenario],
    output: &str,
    refuses: Option<&str>,
    calls: Calls,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut rest = output;
    for scenario in scenarios {
        let begin = format!("{BEGINS}{}\n", scenario.column);
        let Some((_, after)) = rest.split_once(&begin) else {
            break;
        };
        let Some((said, after)) = after.split_once(&format!("\n{STATUS}")) else {
            break;
        };
        let status = after.lines().next().unwrap_or_default();
        let succeeded = status.trim() == "0";
        let capture = |outcome: Outcome| match refuses {
            Some(word) => outcome.refusing(word),
            None => outcome,
        };
        outcomes.push(match scenario.what {
            What::Lab(_) => capture(scored(said, succeeded, calls, |_, _| ())),
            What::Nobody => capture(scored(said, succeeded, calls, |score, wrong| {
                if nobody::is_blind(said, calls) {
                    wrong.retain(|wrong| !unseen::claims_nothing(wrong));
                }
                wrong.extend(nobody::wrong(said, score, calls));
            })),
            What::Demo if calls.are_seen() => capture(checked(said, succeeded)),
            What::Demo => capture(unseen::checked(said)),
            What::Doctor => answered(said, succeeded, refuses, calls),
        });
        rest = after;
    }
    outcomes
}

/// Where in the output each scenario begins, of those that did.
pub(super) fn beginnings<'a>(
    scenarios: &'a [&Scenario],
    output: &'a str,
) -> impl Iterator<Item = (&'static str, usize)> + 'a {
    scenarios.iter().filter_map(|scenario| {
        let begin = format!("{BEGINS}{}\n", scenario.column);
        Some((scenario.column, output.find(&begin)?))
    })
}

/// When this kernel preempts a task, if it can be asked: the word in brackets of
/// `none voluntary (full) lazy`.
pub(super) fn preemption(output: &str) -> Option<&str> {
    let said = (output.lines()).find_map(|line| line.strip_prefix(PREEMPTION))?;
    Some(said.split_once('(')?.1.split_once(')')?.0)
}

/// The lab's own score. Here every verdict has to be right, whatever its confidence, and
/// every constant that could be inferred; and nothing that the score shows may be wrong.
fn scored(
    said: &str,
    succeeded: bool,
    calls: Calls,
    more: impl FnOnce(&Value, &mut Vec<String>),
) -> Outcome {
    let json = said.find("\n{").map(|at| &said[at..]);
    let Some(score) = json.and_then(|json| serde_json::from_str::<Value>(json).ok()) else {
        return Outcome::broken(said);
    };
    let strings = |field: &str| {
        let all = score[field].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).map(str::to_owned)
    };
    let mut wrong: Vec<String> = strings("failures").chain(strings("mistakes")).collect();
    // Each is about one line.
    let about_a_line = |wrong: &&String| wrong.contains(" is called ");
    let mistakes = wrong.iter().filter(about_a_line).count() as u64;
    wrong.retain(|wrong| calls.are_seen() || !unseen::is_plainer(wrong));
    let constants = score["constants"].as_array().into_iter().flatten();
    // Of what the kernel skipped nothing need be known.
    let lost = score["lost"].as_object().into_iter().flatten();
    let missed = lost.filter_map(|(kind, count)| {
        let program = kind.strip_prefix(MISSED)?;
        Some((program.to_owned(), count.as_u64()?))
    });
    let missed: BTreeMap<String, u64> = missed.collect();
    let is_call = |program: &String| unseen::CALLS.iter().any(|of| program.starts_with(of));
    let sees_all = calls.are_seen() && !missed.keys().any(is_call);
    let is_wrong = |constant: &&Value| {
        constant["right"] != true && (sees_all || !unseen::is_unknown(constant))
    };
    for constant in constants.filter(is_wrong) {
        wrong.push(format!(
            "{} was inferred as {}",
            constant["constant"]["value"], constant["found"]
        ));
    }
    let rows = score["causes"].as_object().into_iter().flatten();
    let verdicts: u64 = rows.filter_map(|(_, row)| row["lines"].as_u64()).sum();
    more(&score, &mut wrong);
    if verdicts == 0 && wrong.is_empty() {
        wrong.push("there was nothing to judge".to_owned());
    } else if verdicts == mistakes && wrong.is_empty() {
        wrong.push("no verdict is right".to_owned());
    }
    if !succeeded && wrong.is_empty() {
        wrong.push("the lab failed".to_owned());
    }
    let hooks = score["hooks"].as_object().into_iter().flatten();
    let hooks = hooks.map(|(hook, became)| (hook.clone(), became.as_str().unwrap_or("").into()));
    let hooks: BTreeMap<String, String> = hooks.collect();
    wrong.extend(calls.wrong(&hooks));
    Outcome {
        right: verdicts.saturating_sub(mistakes),
        wrong,
        verdicts,
        hooks,
        missed,
        crowd: score["crowd"].as_u64().unwrap_or(0),
        refused: false,
    }
}

/// The demo's own check, which ends in its exit status.
fn checked(said: &str, succeeded: bool) -> Outcome {
    if !succeeded {
        return Outcome::broken(said);
    }
    // "9 faults, 11 incidents: all right"
    let faults = said
        .lines()
        .find_map(|line| line.split_once(" faults, ")?.0.trim().parse().ok());
    let Some(faults) = faults else {
        return Outcome::broken(said);
    };
    // "lost: 3 missed_runs:whoclosed_send"
    let missed = said.lines().filter_map(|line| {
        let (count, kind) = line.strip_prefix("lost: ")?.split_once(' ')?;
        let program = kind.strip_prefix(MISSED)?;
        Some((program.to_owned(), count.parse().ok()?))
    });
    Outcome {
        verdicts: faults,
        right: faults,
        missed: missed.collect(),
        ..Outcome::default()
    }
}

/// The answers of doctor.
fn answered(said: &str, succeeded: bool, refuses: Option<&str>, calls: Calls) -> Outcome {
    let (verdicts, mut wrong) = doctor::judge(said, refuses, calls);
    if !succeeded && wrong.is_empty() {
        wrong.push("the script failed".to_owned());
    }
    let about = |wrong: &String| wrong.split(": ").next().map(str::to_owned);
    let wrong_answers: BTreeSet<String> = wrong.iter().filter_map(about).collect();
    Outcome {
        right: verdicts.saturating_sub(wrong_answers.len() as u64),
        wrong,
        verdicts,
        ..Outcome::default()
    }
}

impl Outcome {
    /// Of what came to no end: its last words.
    fn broken(said: &str) -> Self {
        const LINES: usize = 6;
        let lines: Vec<&str> = said
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let last = lines[lines.len().saturating_sub(LINES)..].join(" | ");
        Self {
            wrong: vec![last],
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests;
