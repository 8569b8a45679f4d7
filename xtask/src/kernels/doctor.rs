//! The column `doctor`: what `whoclosed doctor` says of a kernel, in three cases, held
//! against what is known of the guest from elsewhere: every statement, the exit status, and
//! the facts that the statements rest on.

use std::path::Path;

use serde_json::Value;

use super::rows::TOO_OLD;
use super::unseen;

/// Runs the cases and writes the facts.
pub(super) const SCRIPT: &str = include_str!("doctor.sh");

/// What it says where there is no nginx, and where the kernel does not describe its types.
const NO_NGINX: &str = "no nginx is running here";
const NO_TYPES: &str = "cannot use the kernel's type information";
/// Workers of the script's nginx.
const WORKERS: u64 = 2;

/// One case, and what its answer has to be.
struct Case<'a> {
    name: &'a str,
    /// What keeps a capture from running, a part of each statement, in their order. If
    /// there is any the exit status is 1, else 0.
    obstacles: Vec<&'a str>,
    has_nginx: bool,
    has_types: bool,
    /// Whether nothing is missing that a kernel may have.
    is_full: bool,
}

/// How many answers there were, and what is wrong with them. On a kernel that forbids what
/// the programs do, the statement has to say so in these words.
pub(super) fn judge(said: &str, forbids: Option<&str>, sees_calls: bool) -> (u64, Vec<String>) {
    let locked: Vec<&str> = forbids.into_iter().collect();
    let case = |name, obstacles, has_nginx, has_types| Case {
        name,
        obstacles,
        has_nginx,
        has_types,
        is_full: sees_calls,
    };
    let without_nginx = [&[NO_NGINX], locked.as_slice()].concat();
    let without_types = match forbids {
        // One statement has both words: what else is refused follows from the age.
        Some(TOO_OLD) => vec![NO_TYPES],
        _ => [&[NO_TYPES], locked.as_slice()].concat(),
    };
    let cases = [
        case("whole", locked, true, true),
        case("without-nginx", without_nginx, false, true),
        case("without-types", without_types, true, false),
    ];
    let mut answers = 0;
    let mut wrong = Vec::new();
    for case in &cases {
        let told = match answer(said, case.name) {
            Some((answer, status)) => {
                answers += 1;
                case.wrong(said, &answer, status)
            }
            None => {
                let last = said.lines().rev().find(|line| !line.trim().is_empty());
                vec![format!("no answer: {}", last.unwrap_or_default())]
            }
        };
        wrong.extend(told.iter().map(|told| format!("{}: {told}", case.name)));
    }
    (answers, wrong)
}

/// The answer in a case, and the exit status.
fn answer<'a>(said: &'a str, case: &str) -> Option<(Value, &'a str)> {
    let (_, after) = said.split_once(&format!("case: {case}\n"))?;
    let (json, after) = after.split_once("\nexit: ")?;
    let json = json.find('{').map(|at| &json[at..])?;
    Some((
        serde_json::from_str(json).ok()?,
        after.lines().next()?.trim(),
    ))
}

/// What the script found itself.
fn fact<'a>(said: &'a str, name: &str) -> &'a str {
    said.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or_default()
        .trim()
}

/// The word in brackets: `none [integrity] confidentiality`; none if the kernel is open.
fn lockdown(file: &str) -> Option<&str> {
    let (word, _) = file.split_once('[')?.1.split_once(']')?;
    (word != "none").then_some(word)
}

impl Case<'_> {
    fn wrong(&self, said: &str, answer: &Value, status: &str) -> Vec<String> {
        let is_free = self.obstacles.is_empty();
        let found = &answer["found"];
        let lockdown = lockdown(fact(said, "lockdown"));
        let clock = fact(said, "clock");
        let mut wrong = self.statements(answer, clock);
        let has_more = !wrong.is_empty();
        let mut hold = |what: &str, is: &Value, expected: Value| {
            if *is != expected {
                wrong.push(format!("{what} is {is}, not {expected}"));
            }
        };
        let is_full = is_free && self.is_full;
        let expected = if is_full { "0" } else { "1" };
        hold("the exit status", &status.into(), expected.into());
        if has_more {
            // What else is wrong follows from that.
            return wrong;
        }
        hold("possible", &answer["possible"], is_free.into());
        hold("full", &answer["full"], is_full.into());
        let kernel = &found["kernel"];
        hold("release", &kernel["release"], fact(said, "release").into());
        hold("lockdown", &kernel["lockdown"], lockdown.into());
        hold("clock_source", &kernel["clock_source"], clock.into());
        let types = &kernel["type_information"];
        hold("type_information", types, self.has_types.into());
        let count = |field: &Value| field.as_array().map_or(0, Vec::len).into();
        let is_there = usize::from(self.has_nginx).into();
        hold("the number of nginx", &count(&found["nginx"]), is_there);
        if self.has_nginx {
            let nginx = &found["nginx"][0];
            let pid: Option<u64> = fact(said, "nginx").parse().ok();
            let workers: Option<u64> = fact(said, "workers").parse().ok();
            let folder = Path::new(fact(said, "folder"));
            let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
            let log = &nginx["error_logs"];
            hold("master_pid", &nginx["master_pid"], pid.into());
            hold("the script's own count", &workers.into(), WORKERS.into());
            hold("workers", &nginx["workers"], WORKERS.into());
            let configuration = &nginx["configuration_path"];
            hold("configuration", configuration, file("nginx.conf").into());
            hold("its reading", &nginx["configuration_read"], true.into());
            hold("the number of logs", &count(log), 1.into());
            hold("log", &log[0]["path"], file("logs/error.log").into());
            hold("level", &log[0]["level"], "info".into());
            hold("log function", &nginx["exports_log_function"], true.into());
            hold("log calls seen", &nginx["log_calls_seen"], is_free.into());
        }
        if is_free {
            let hooks = found["hooks"].as_array().into_iter().flatten();
            let is_missing = |hook: &&Value| {
                let name = hook["name"].as_str().unwrap_or_default();
                hook["attached"] != true && (self.is_full || !unseen::HOOKS.contains(&name))
            };
            for hook in hooks.filter(is_missing) {
                wrong.push(format!("{} is not attached", hook["name"]));
            }
        }
        wrong
    }

    /// What prevents a capture has to be as expected, and nothing else may be said.
    fn statements(&self, answer: &Value, clock: &str) -> Vec<String> {
        let all = answer["statements"].as_array().into_iter().flatten();
        let (obstacles, others): (Vec<&Value>, Vec<&Value>) =
            all.partition(|statement| statement["weight"] == "prevents");
        let text = |statement: &Value| statement["text"].as_str().unwrap_or_default().to_owned();
        // True of a guest wherever its clock is a slow one.
        let slow = format!("takes its time from {clock}");
        let is_expected = |other: &&Value| match other["weight"].as_str() {
            Some("note") => text(other).ends_with(&slow),
            Some("limits") => !self.is_full && text(other).starts_with(unseen::LIMIT),
            _ => false,
        };
        let has_limit = others.iter().any(|other| other["weight"] == "limits");
        if !self.is_full && self.obstacles.is_empty() && !has_limit {
            return vec!["it does not say that requests cannot be counted".to_owned()];
        }
        let mut wrong: Vec<String> = (others.into_iter())
            .filter(|other| !is_expected(other))
            .map(|other| format!("it says {}", other["text"]))
            .collect();
        let said: Vec<String> = obstacles.into_iter().map(text).collect();
        let is_right = said.len() == self.obstacles.len()
            && said
                .iter()
                .zip(&self.obstacles)
                .all(|(said, part)| said.contains(part));
        if !is_right {
            wrong.push(format!(
                "of what prevents a capture it says {said:?}, not {:?}",
                self.obstacles
            ));
        }
        wrong
    }
}

#[cfg(test)]
mod tests;
