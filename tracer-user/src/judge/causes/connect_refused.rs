//! `connect-refused`: nobody listened at the address. Requires: ECONNREFUSED in the
//! line, or ENOENT for a unix socket; the socket shows the RST to the SYN. The end of the
//! process that had served the address is named if no connection came about since.

use super::{Case, Remedy, Verdict, owner, sentences, with_socket};
use crate::judge::case::{errno, words};
use crate::judge::history::Process;
use crate::nginx::message::MessageKind;
use crate::report::model::Cause;
use crate::trace::record::Exit;

/// How long before a refused connect its process may have ended to be the reason.
pub(super) const ENDED_BEFORE_NS: u64 = 60_000_000_000;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    if !is_refused(case) {
        return None;
    }
    let ended = gone(case);
    let why = ended.and_then(|gone| gone.why(case));
    let since = why
        .as_ref()
        .map_or_else(String::new, |why| format!(": its process had {}", why.past));
    Some(Verdict {
        cause: Cause::ConnectRefused,
        confidence: with_socket(case),
        evidence: sentences([Some(refusal(case)), ended.map(|gone| gone.told())]),
        advice: Some(Remedy {
            text: remedy(case, why.as_ref()),
            because: format!("nothing listened at {}{since}", case.line.upstream),
        }),
    })
}

pub(super) fn is_refused(case: &Case<'_>) -> bool {
    let failed = matches!(
        case.line.kind,
        MessageKind::ConnectFailed | MessageKind::ConnectFailedAtOnce
    );
    failed && (case.errno() == errno::ECONNREFUSED || no_socket_file(case))
}

fn no_socket_file(case: &Case<'_>) -> bool {
    case.line.unix && case.errno() == errno::ENOENT
}

/// How it was refused, in a sentence.
pub(super) fn refusal(case: &Case<'_>) -> String {
    let seen = case.connection().and_then(|connection| {
        let rst = connection.rst_received_ns?;
        Some(format!(
            "the SYN to {} was answered with an RST after {}",
            connection.remote,
            words(rst.saturating_sub(connection.opened_ns))
        ))
    });
    let gave = if no_socket_file(case) {
        "connect() gave ENOENT (2): there is no such unix socket"
    } else {
        "connect() gave ECONNREFUSED (111)"
    };
    seen.unwrap_or_else(|| gave.to_owned())
}

/// A process that had served the address, and whose end was seen.
#[derive(Clone, Copy)]
struct Gone<'a> {
    process: &'a Process,
    exit: Exit,
    at_ns: u64,
    refused_ns: u64,
}

/// How it ended, in words that follow "had", and what to do about that.
struct Why {
    past: String,
    first: &'static str,
}

fn gone<'a>(case: &Case<'a>) -> Option<Gone<'a>> {
    let refused_ns = case.began_ns();
    let (process, at_ns, exit) = case.history?.exit_between(0, refused_ns)?;
    Some(Gone {
        process,
        exit,
        at_ns,
        refused_ns,
    })
}

impl Gone<'_> {
    fn told(&self) -> String {
        format!(
            "process {} ({}, child of {}), which had served there, {} {} before",
            self.process.pid,
            self.process.comm,
            self.process.parent_pid,
            owner::fate(self.exit),
            words(self.refused_ns.saturating_sub(self.at_ns))
        )
    }

    /// Is that why nobody listened? Not if others were served since, or it is long ago.
    fn why(&self, case: &Case<'_>) -> Option<Why> {
        let served = case.history?.established_before(self.refused_ns);
        let long_ago = self.refused_ns.saturating_sub(self.at_ns) > ENDED_BEFORE_NS;
        if served.is_some_and(|served| served > self.at_ns) || long_ago {
            return None;
        }
        let (past, first) = match self.exit {
            Exit::Code(status) => (
                format!("exited with status {status}"),
                "its own log says why it ended",
            ),
            Exit::Signal(number) if owner::is_crash(number) => (
                format!("crashed ({})", owner::signal(number)),
                "its own log or its core dump says why",
            ),
            Exit::Signal(number) => (
                format!("been killed by {}", owner::signal(number)),
                "find out who sent the signal: a supervisor, an orchestrator, a person",
            ),
            Exit::OutOfMemory => (
                "been killed by the kernel, which had no memory left for it".to_owned(),
                "give it more memory, or let it use less",
            ),
        };
        Some(Why { past, first })
    }
}

fn remedy(case: &Case<'_>, why: Option<&Why>) -> String {
    let start = "start the backend, or take the address out of the upstream; if it was \
                 restarting, let it listen before it is sent traffic (costs: a slower start)";
    let start = why.map_or_else(
        || start.to_owned(),
        |Why { past, first }| {
            format!(
                "the backend's process had {past}, and none had taken its place: {first}; then \
                 {start}"
            )
        },
    );
    match case.settings.retries() {
        Some(true) if case.settings.servers > 1 => start,
        Some(true) => format!(
            "{start}. Another `server` in the upstream, which nginx would then try, covers it, \
             and has to carry the load"
        ),
        _ => format!(
            "{start}. `{} error` covers it where there is another peer, which then carries its \
             load",
            case.directive("next_upstream")
        ),
    }
}
