//! From facts to sentences: what a capture here would tell, what it would not and why,
//! and what to do about it. No look at the host.

use serde::Serialize;

use super::found::{ErrorLog, Found, Nginx};
use crate::judge::by_functions;
use crate::nginx::line::Level;
use crate::trace::record::Role;

/// How much a statement weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// A capture would not run.
    Prevents,
    /// It would run, but not all verdicts would be full.
    Limits,
    /// Good to know.
    Note,
}

/// What a capture here would not tell, or would cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Statement {
    /// How much it weighs.
    pub weight: Weight,
    /// The consequence and its reason.
    pub text: String,
    /// What to do about it.
    #[serde(rename = "do")]
    pub remedy: Option<String>,
}

impl Statement {
    fn new(weight: Weight, text: impl Into<String>, remedy: impl Into<Option<String>>) -> Self {
        Self {
            weight,
            text: text.into(),
            remedy: remedy.into(),
        }
    }
}

/// What a capture says of a log that nginx will create: nothing will be missed.
const NOT_THERE_YET: &str = "it is read once nginx creates it";

/// All statements, the heaviest first.
pub(super) fn all(found: &Found) -> Vec<Statement> {
    let mut all: Vec<Statement> = found
        .obstacles
        .iter()
        .map(|obstacle| {
            Statement::new(
                Weight::Prevents,
                &obstacle.what,
                Some(obstacle.remedy.clone()).filter(|remedy| !remedy.is_empty()),
            )
        })
        .collect();
    // Where no capture runs, what it would lack is noise.
    let hooks = found.hooks.iter().filter(|_| all.is_empty());
    let hooks: Vec<Statement> = hooks
        .filter_map(|hook| {
            let reason = hook.reason.as_deref().filter(|_| !hook.attached)?;
            // Said of the hook that it goes with.
            if reason.starts_with("like ") {
                return None;
            }
            Some(Statement::new(
                Weight::Limits,
                consequence_first(&hook.name, reason),
                remedy_of(found, reason),
            ))
        })
        .collect();
    let calls = if all.is_empty() {
        calls_by_functions(found)
    } else {
        None
    };
    all.extend(hooks);
    all.extend(calls);
    all.extend(found.warnings.iter().map(|warning| of_warning(warning)));
    all.extend(found.nginx.iter().flat_map(of_nginx));
    all.extend(memory(found));
    all.extend(clock(found));
    all.sort_by_key(|said| said.weight);
    all
}

/// Those that a capture tells before it begins: what limits it, and whatever it would warn of
/// besides.
pub(super) fn before_capture(found: &Found) -> Vec<Statement> {
    let mut all = all(found);
    let warned: Vec<Statement> = found.warnings.iter().map(|text| of_warning(text)).collect();
    all.retain(|said| said.weight == Weight::Limits || warned.contains(said));
    all
}

fn of_warning(warning: &str) -> Statement {
    let (text, remedy) = in_two(warning);
    let weight = if text.contains(NOT_THERE_YET) {
        Weight::Note
    } else {
        Weight::Limits
    };
    Statement::new(weight, text, remedy)
}

/// `REASON; without it CONSEQUENCE`, the form of a hook's reason, turned round.
fn consequence_first(hook: &str, reason: &str) -> String {
    let parts = ["; without it ", "; without them "]
        .iter()
        .find_map(|between| reason.rsplit_once(between));
    match parts {
        Some((why, consequence)) => {
            format!("{}: {hook} is not attached ({why})", capital(consequence))
        }
        None => format!("{hook} is not attached: {reason}"),
    }
}

/// What programs at the ends of functions do not see of nginx's sends and receives: a limit
/// only where there is such a thing, or nobody knows.
fn calls_by_functions(found: &Found) -> Option<Statement> {
    let by = by_functions::instead(&found.hooks)?;
    let past: Vec<_> = (found.nginx.iter())
        .map(|nginx| nginx.past_functions)
        .collect();
    let unknown = by_functions::unknown(&past);
    let seen = format!(
        "nginx's sends and receives are seen at the ends of the kernel's TCP functions alone ({by})"
    );
    if unknown.is_empty() {
        return Some(Statement::new(
            Weight::Note,
            format!(
                "Clients on unix sockets, and what the kernel encrypts (KTLS), would not be seen, \
                 but nginx's configuration has neither: {seen}"
            ),
            None,
        ));
    }
    let condition = if by_functions::is_guessed(&past) {
        ", if there are any"
    } else {
        ""
    };
    Some(Statement::new(
        Weight::Limits,
        format!(
            "It will not be known {}{condition}: {seen}",
            unknown.join(", nor ")
        ),
        Some("run it on Linux 6.3 or later, which has tracepoints that see these too".to_owned()),
    ))
}

/// The words of the kernel's refusal of a uprobe to a process without CAP_SYS_ADMIN.
const UPROBE_REFUSED: &str = "`perf_event_open` failed: Permission denied";

fn remedy_of(found: &Found, reason: &str) -> Option<String> {
    let admin = found
        .process
        .capabilities
        .iter()
        .any(|capability| capability.name == "CAP_SYS_ADMIN" && capability.held);
    (reason.contains(UPROBE_REFUSED) && !admin).then(|| {
        "run whoclosed as root, or give it CAP_SYS_ADMIN: this kernel lets nobody else attach to \
         a program"
            .to_owned()
    })
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// A sentence that ends in what to do, after its last semicolon, in two.
fn in_two(sentence: &str) -> (String, Option<String>) {
    match sentence.rsplit_once("; ") {
        Some((what, remedy)) if is_asking(remedy) => (capital(what), Some(remedy.to_owned())),
        _ => (capital(sentence), None),
    }
}

fn is_asking(remedy: &str) -> bool {
    let verbs = ["run ", "give ", "start ", "set ", "build "];
    verbs.iter().any(|verb| remedy.starts_with(verb))
}

fn of_nginx(nginx: &Nginx) -> Vec<Statement> {
    let mut said = Vec::new();
    let name = format!("nginx {}", nginx.master_pid);
    if !nginx.configuration_read {
        said.push(Statement::new(
            Weight::Limits,
            format!(
                "Reports will not compare {name}'s settings with what its backends do: its \
                 configuration {} cannot be read ({})",
                nginx.configuration_path,
                nginx.configuration_problems.join("; ")
            ),
            None,
        ));
    } else if !nginx.configuration_problems.is_empty() {
        said.push(Statement::new(
            Weight::Note,
            format!(
                "Advice may rest on settings that {name} does not have: {}",
                nginx.configuration_problems.join("; ")
            ),
            None,
        ));
    }
    said.extend(levels(nginx, &name));
    said
}

/// Levels that leave out what a report is about. A line goes to all logs of its context and
/// to none of another one: of logs in one context the wider level counts, of contexts the
/// narrower.
fn levels(nginx: &Nginx, name: &str) -> Option<Statement> {
    let of = |log: &ErrorLog| Level::from_word(log.level.as_deref()?.as_bytes());
    let widest = nginx.error_logs.iter().filter_map(of).max();
    // Where contexts are not known, a log that gets all may stand beside any.
    let log = match &nginx.narrowest_log {
        Some(narrowest) => narrowest,
        None => (nginx.error_logs.iter()).find(|log| widest.is_some() && of(log) == widest)?,
    };
    let (level, word) = (of(log)?, log.level.as_deref()?);
    let others_show_more = widest.is_some_and(|widest| widest > level);
    if level < Level::Error {
        let (text, file) = if others_show_more {
            let text = format!(
                "Most failures of requests that {name} logs to {} will not be told: they are \
                 logged at error, and that log is at {word}",
                log.path
            );
            (text, log.path.as_str())
        } else {
            let text = format!(
                "Most failures of {name}'s upstreams will not be told: they are logged at error, \
                 and its error log is at {word}"
            );
            (text, "FILE")
        };
        return Some(Statement::new(
            Weight::Limits,
            text,
            Some(format!(
                "set `error_log {file} error;`, or info, and reload nginx"
            )),
        ));
    }
    let which = if others_show_more {
        format!("its error log {}", log.path)
    } else {
        "its error log".to_owned()
    };
    (level < Level::Info).then(|| {
        Statement::new(
            Weight::Note,
            format!(
                "Clients of {name} that leave before they are answered are counted, but not told \
                 one by one: nginx logs them at info, and {which} is at {word}"
            ),
            Some(
                "set `error_log FILE info;` and reload nginx for the time of a capture, if you \
                 look for them"
                    .to_owned(),
            ),
        )
    })
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn memory(found: &Found) -> Option<Statement> {
    let free = found.memory.free_bytes?;
    let by = found.memory.limited_by.as_deref().unwrap_or("this host");
    (free < found.memory.needed_bytes).then(|| {
        Statement::new(
            Weight::Limits,
            format!(
                "A capture may be ended for want of memory: it uses up to {}, and {by} has {} left",
                mebibytes(found.memory.needed_bytes),
                mebibytes(free)
            ),
            Some(format!("give it {}", mebibytes(found.memory.needed_bytes))),
        )
    })
}

/// Sources of time that take about a microsecond to read, each at every send and receive.
const SLOW_CLOCKS: [&str; 4] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"];

fn clock(found: &Found) -> Option<Statement> {
    let source = found.kernel.clock_source.as_deref()?;
    SLOW_CLOCKS.contains(&source).then(|| {
        Statement::new(
            Weight::Note,
            format!(
                "A capture costs nginx more here than elsewhere, a microsecond or so at each send \
                 and receive: the kernel takes its time from {source}"
            ),
            None,
        )
    })
}

/// What a capture would tell.
pub(super) fn can(found: &Found) -> Vec<String> {
    let missing = |hook: &str| {
        found
            .hooks
            .iter()
            .any(|known| !known.attached && !known.is_spare() && known.name.contains(hook))
    };
    let mut can = Vec::new();
    let mut say = |sentence: &str, hooks: &[&str]| {
        if !hooks.iter().any(|hook| missing(hook)) {
            can.push(sentence.to_owned());
        }
    };
    match found.role {
        Role::Nginx => {
            say(
                "who closed each upstream connection, how (FIN, RST, timeout) and in which phase",
                &["inet_sock_set_state", "tcp_destroy_sock"],
            );
            say(
                "how many requests it carried, how long it was idle, how long nginx waited",
                &["sock_send_length", "sock_recv_length"],
            );
            say(
                "when a reset came or went, and whether packets were sent again",
                &["tcp_receive_reset", "tcp_send_reset", "tcp_retransmit_skb"],
            );
            say(
                "why a backend's process on this host ended: exit, signal, out of memory",
                &["sched_process_exit"],
            );
            can.push(lines(found).to_owned());
        }
        Role::Backend => {
            say(
                "which accepted connections this host closed, how, and which process did it",
                &["inet_sock_set_state", "tcp_destroy_sock"],
            );
            say(
                "why such a process ended: exit, signal, out of memory",
                &["sched_process_exit"],
            );
            can.push(
                "nginx's side only together with a trace of its host: whoclosed report \
                 NGINX.trace BACKEND.trace"
                    .to_owned(),
            );
        }
    }
    can
}

fn lines(found: &Found) -> &'static str {
    if found.nginx.iter().all(|nginx| nginx.log_calls_seen) {
        "to which connection each error line belongs, exactly: nginx is seen writing it"
    } else {
        "to which connection each error line belongs, by the order of lines and closes"
    }
}
