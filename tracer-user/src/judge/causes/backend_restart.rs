//! `backend-restart`: the backend stopped as a whole and began again. Three ways to see
//! it, asked at different places of the list:
//!
//! * by a refused connect: the address had been served in this capture and was served
//!   again later; certain if a process of it was seen ending in between;
//! * by its process: it exited with status 0, no other served on, and the address was
//!   served again;
//! * by a burst, remote backends too: at least three older connections ended within a
//!   second, none of them by the idle timeout, and then connects were refused, or of its
//!   older connections none was left and new ones were served. Not if a process of this
//!   host closed this one and is not known to have ended. Likely only.

use super::connect_refused::{ENDED_BEFORE_NS, is_refused, refusal};
use super::with_socket;
use super::{Case, Remedy, Verdict, how_it_ended, in_flight, owner, reuse, sentences};
use crate::judge::case::words;
use crate::judge::end::peer_end_ns;
use crate::judge::history::Stop;
use crate::report::model::{Cause, Confidence};
use crate::report::words::counted;
use crate::trace::record::{Exit, PeerClose};

pub(super) fn by_refusal(case: &Case<'_>) -> Option<Verdict> {
    if !is_refused(case) {
        return None;
    }
    let history = case.history?;
    let ns = case.began_ns();
    let gap = history.gap(ns)?;
    let since = history
        .established_before(ns)?
        .max(ns.saturating_sub(ENDED_BEFORE_NS));
    let exit = history.exit_between(since, gap.to_ns);
    let nobody = gap.to_ns.saturating_sub(gap.from_ns);
    Some(Verdict {
        cause: Cause::BackendRestart,
        confidence: if exit.is_some() {
            with_socket(case)
        } else {
            Confidence::Likely
        },
        evidence: sentences([
            Some(refusal(case)),
            exit.map(|(process, at, exit)| {
                format!(
                    "process {} ({}, child of {}), which had served there, {} {}",
                    process.pid,
                    process.comm,
                    process.parent_pid,
                    owner::fate(exit),
                    beside(at, ns)
                )
            }),
            Some(format!(
                "the backend was last seen there {} before, and a connection was established \
                 again {} later: nobody listened for {} at most",
                words(ns.saturating_sub(gap.from_ns)),
                words(gap.to_ns.saturating_sub(ns)),
                words(nobody)
            )),
        ]),
        advice: Some(remedy(
            case,
            &format!(
                "{} refused connects between two times at which it was served",
                case.line.upstream
            ),
        )),
    })
}

pub(super) fn by_exit(case: &Case<'_>) -> Option<Verdict> {
    let owner = owner::of(case)?;
    let history = case.history?;
    let again = history.served_again(owner.ended_ns)?;
    if owner.exit != Exit::Code(0) {
        return None;
    }
    let successor = history.successor(owner.close.pid, owner.ended_ns);
    let by = successor.map_or_else(String::new, |process| {
        format!(
            ", now by process {} ({}, child of {})",
            process.pid, process.comm, process.parent_pid
        )
    });
    let mut evidence = owner.evidence(case);
    evidence.insert(
        1,
        format!(
            "no other process served on; connections were established and answered again from \
             {} later on{by}",
            words(again.saturating_sub(owner.ended_ns))
        ),
    );
    Some(Verdict {
        cause: Cause::BackendRestart,
        confidence: if successor.is_some() {
            owner.confidence()
        } else {
            Confidence::Likely
        },
        evidence,
        advice: Some(remedy(
            case,
            &format!(
                "{}'s process exited in order and another took its place",
                case.line.upstream
            ),
        )),
    })
}

pub(super) fn by_burst(case: &Case<'_>) -> Option<Verdict> {
    if !owner::backend_ended(case) || case.sent_nothing() || case.was_stale().is_some() {
        return None;
    }
    // A process of this host that closed and lived on did not restart.
    let lives_on = |close: &PeerClose| {
        let history = case.history;
        close.exit.is_none() && !history.is_some_and(|history| history.has_exited(close.pid))
    };
    if case.peer_close().is_some_and(lives_on) {
        return None;
    }
    let Stop {
        burst,
        refused,
        again_ns,
    } = case.history?.stopped(peer_end_ns(case.connection()?)?)?;
    let after = if refused {
        "after that connects were refused"
    } else {
        "after that none of its older connections was left, and new ones were served"
    };
    let again = again_ns.map_or_else(String::new, |again| {
        format!(
            "; a connection was established again {} after the last of them",
            words(again.saturating_sub(burst.last_ns))
        )
    });
    Some(Verdict {
        cause: Cause::BackendRestart,
        confidence: Confidence::Likely,
        evidence: sentences([
            Some(format!(
                "the backend ended {} within {}, {} of them with a request in flight and none by \
                 its idle timeout",
                counted(burst.connections as u64, "connection", "connections"),
                words(burst.last_ns.saturating_sub(burst.first_ns)),
                burst.in_flight
            )),
            Some(format!("{after}{again}")),
            how_it_ended(case),
            in_flight(case),
            reuse(case),
        ]),
        advice: Some(remedy(
            case,
            &format!("{} ended its connections all at once", case.line.upstream),
        )),
    })
}

/// `1.200 ms before`.
fn beside(at: u64, ns: u64) -> String {
    if at <= ns {
        format!("{} before", words(ns - at))
    } else {
        format!("{} later", words(at - ns))
    }
}

fn remedy(case: &Case<'_>, because: &str) -> Remedy {
    Remedy {
        text: format!(
            "take a server out of rotation before it restarts (a preStop hook, `down` and a \
             reload, a health check that fails first) and let it finish its requests; or let the \
             new process listen before the old one stops (socket activation, SO_REUSEPORT). Both \
             cost slower deploys{}",
            owner::retries(case)
        ),
        because: because.to_owned(),
    }
}
