//! The column `doctor`: what `whoclosed doctor` says of a kernel, in five cases, held
//! against what is known of the guest from elsewhere: every statement, the exit status, and
//! the facts that the statements rest on; and where no capture is possible, that a capture
//! ends with the first of the statements.

mod refusal;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::rows::TOO_OLD;
use super::unseen;
use super::withheld::Calls;

/// Runs the cases and writes the facts.
pub(super) const SCRIPT: &str = concat!(include_str!("quiet_nginx.sh"), include_str!("doctor.sh"));

/// What it says where there is no nginx, and where the kernel does not describe its types.
const NO_NGINX: &str = "no nginx is running here";
const NO_TYPES: &str = "cannot use the kernel's type information";
/// What it says of listening sockets where the kernel cannot be asked for them: guests have
/// no modules, and this is one in Debian's kernels (CONFIG_INET_DIAG).
const NO_LIST: &str = "Cannot look at listening sockets";
/// What it says where the ends of functions see nginx's calls: of the nginx that listens on a
/// unix socket, and of the one that has nothing which goes past these.
const PAST: &str = "It will not be known whether clients on unix sockets were served";
const NONE_PAST: &str = "Clients on unix sockets, and what the kernel encrypts (KTLS), would not";
/// Workers of each of the script's nginx.
const WORKERS: u64 = 2;

/// Whom a case is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    /// The script's nginx whose facts have this word before them.
    Nginx(&'static str),
    /// None that there is.
    NoNginx,
    /// The accepting side of connections to its port.
    Backend,
}

/// The nginx with an ordinary log, and the one whose log is a pipe.
const WHOLE: &str = "whole";
const PIPED: &str = "piped";

/// One case, and what its answer has to be.
struct Case<'a> {
    name: &'a str,
    /// What keeps a capture from running, a part of each statement, in their order. If
    /// there is any the exit status is 1, else 0.
    obstacles: Vec<&'a str>,
    about: About,
    has_types: bool,
    /// What sees nginx's sends and receives.
    calls: Calls,
    /// Whether that is the ends of functions, by the row or for want of tracepoints.
    at_ends: bool,
    /// Whether the kernel can be asked for its sockets.
    lists_sockets: bool,
    /// Whether programs can ask it for a task's registers.
    hands_out_registers: bool,
}

/// How many answers there were, and what is wrong with them. On a kernel that forbids what
/// the programs do, the statement has to say so in these words.
pub(super) fn judge(said: &str, forbids: Option<&str>, calls: Calls) -> (u64, Vec<String>) {
    let locked: Vec<&str> = forbids.into_iter().collect();
    let case = |name, obstacles: &[_], about| Case {
        name,
        obstacles: obstacles.to_vec(),
        about,
        has_types: true,
        calls,
        at_ends: calls == Calls::AtEnds || calls.are_seen() && fact(said, "tells of sends") == "no",
        lists_sockets: fact(said, "lists sockets") == "yes",
        hands_out_registers: fact(said, "hands out registers") == "yes",
    };
    let without_nginx = [&[NO_NGINX], locked.as_slice()].concat();
    let without_types = match forbids {
        // One statement has both words: what else is refused follows from the age.
        Some(TOO_OLD) => vec![NO_TYPES],
        _ => [&[NO_TYPES], locked.as_slice()].concat(),
    };
    let cases = [
        case("whole", &locked, About::Nginx(WHOLE)),
        case("piped", &locked, About::Nginx(PIPED)),
        case("backend", &locked, About::Backend),
        case("without-nginx", &without_nginx, About::NoNginx),
        Case {
            has_types: false,
            ..case("without-types", &without_types, About::Nginx(WHOLE))
        },
    ];
    let mut answers = 0;
    let mut wrong = Vec::new();
    for case in &cases {
        let told = match answer(said, case.name) {
            Some((answer, status)) => {
                answers += 1;
                let refusal = refusal::wrong(said, case.name, &answer);
                let told = case.wrong(said, &answer, status);
                told.into_iter().chain(refusal).collect()
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

/// What the calls with which nginx writes to a pipe are seen by, before the log's name.
const WRITES: &str = "sys_enter for ";

/// A log that is a pipe, by the pid of its nginx.
fn stderr_of(pid: &str) -> String {
    format!("stderr of nginx {pid}")
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
        let is_full = is_free && self.is_full();
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
        let role = match self.about {
            About::Backend => "backend",
            _ => "nginx",
        };
        hold("role", &found["role"], role.into());
        let count = |field: &Value| field.as_array().map_or(0, Vec::len).into();
        let is_there = usize::from(matches!(self.about, About::Nginx(_))).into();
        hold("the number of nginx", &count(&found["nginx"]), is_there);
        match self.about {
            About::Nginx(which) => {
                let nginx = &found["nginx"][0];
                let fact = |name: &str| fact(said, &format!("{which} {name}"));
                let pid: Option<u64> = fact("nginx").parse().ok();
                let workers: Option<u64> = fact("workers").parse().ok();
                let folder = Path::new(fact("folder"));
                let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
                let path = match which {
                    PIPED => stderr_of(fact("nginx")),
                    _ => file("logs/error.log"),
                };
                let log = &nginx["error_logs"];
                hold("master_pid", &nginx["master_pid"], pid.into());
                hold("the script's own count", &workers.into(), WORKERS.into());
                hold("workers", &nginx["workers"], WORKERS.into());
                let configuration = &nginx["configuration_path"];
                hold("configuration", configuration, file("nginx.conf").into());
                hold("its reading", &nginx["configuration_read"], true.into());
                hold("the number of logs", &count(log), 1.into());
                hold("log", &log[0]["path"], path.into());
                hold("level", &log[0]["level"], "info".into());
                hold("log function", &nginx["exports_log_function"], true.into());
                hold("log calls seen", &nginx["log_calls_seen"], is_free.into());
            }
            About::Backend => {
                let port = fact(said, "port");
                let listening = match self.lists_sockets {
                    true => format!("{port} (nginx)"),
                    false => port.to_owned(),
                };
                hold("listening", &found["listening"], listening.into());
            }
            About::NoNginx => {}
        }
        if is_free {
            wrong.extend(self.hooks(said, &found["hooks"]));
        }
        wrong
    }

    /// Whether nothing is missing that a kernel may have.
    fn is_full(&self) -> bool {
        self.limits().is_empty()
    }

    /// How each statement of what is missing begins.
    fn limits(&self) -> Vec<&'static str> {
        let own = match self.about {
            About::Backend => (!self.lists_sockets).then_some(NO_LIST),
            _ if !self.calls.are_seen() => Some(unseen::LIMIT),
            About::Nginx(WHOLE) => self.at_ends.then_some(PAST),
            _ => None,
        };
        let registers = (!self.hands_out_registers).then_some(unseen::NO_REGISTERS);
        own.into_iter().chain(registers).collect()
    }

    /// Every hook has to be attached, in whichever way, and what the case is about has to
    /// be among them.
    fn hooks(&self, said: &str, hooks: &Value) -> Vec<String> {
        let hooks: BTreeMap<String, String> = (hooks.as_array().into_iter().flatten())
            .map(|hook| {
                let name = hook["name"].as_str().unwrap_or_default();
                let became = match (hook["attached"] == true, hook["by"].as_str()) {
                    (true, Some(by)) => format!("by {by}"),
                    (true, None) => "attached".to_owned(),
                    _ => "absent".to_owned(),
                };
                (name.to_owned(), became)
            })
            .collect();
        let may_be_missing = |name: &String| match name.as_str() {
            unseen::REGISTERS => !self.hands_out_registers,
            name => !self.calls.are_seen() && unseen::HOOKS.contains(&name),
        };
        let mut wrong: Vec<String> = (hooks.iter())
            .filter(|(name, became)| *became == "absent" && !may_be_missing(name))
            .map(|(name, _)| format!("{name} is not attached"))
            .collect();
        if hooks.is_empty() {
            wrong.push("no hook is told".to_owned());
        }
        if let About::Nginx(which) = self.about {
            wrong.extend(self.calls.wrong(&hooks));
            let pid = fact(said, &format!("{which} nginx"));
            let writes = format!("{WRITES}{}", stderr_of(pid));
            let is_told = hooks.contains_key(&writes);
            if is_told != (which == PIPED) {
                wrong.push(format!("of the hook {writes:?} it is told: {is_told}"));
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
        let limits = self.limits();
        let begins = |other: &Value, limit: &str| text(other).starts_with(limit);
        let is_expected = |other: &&Value| match other["weight"].as_str() {
            Some("note") => {
                text(other).ends_with(&slow) || self.at_ends && begins(other, NONE_PAST)
            }
            Some("limits") => limits.iter().any(|limit| begins(other, limit)),
            _ => false,
        };
        let is_said = |limit: &&&str| others.iter().any(|other| begins(other, limit));
        let unsaid = limits.iter().find(|limit| !is_said(limit));
        if let (Some(limit), true) = (unsaid, self.obstacles.is_empty()) {
            return vec![format!("it does not say {limit:?}")];
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
