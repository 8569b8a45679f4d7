//! The end of the process that held the backend's side of a connection: what
//! `backend-killed`, `backend-oom`, `backend-crashed` and `backend-exited` share.

use super::{Case, how_it_ended, in_flight, reuse, sentences};
use crate::judge::case::words;
use crate::judge::end::peer_end_ns;
use crate::judge::history::History;
use crate::judge::work::may_be_a_supervisors;
use crate::nginx::message::MessageKind;
use crate::report::model::Confidence;
use crate::report::words::{counted, signal_name};
use crate::trace::record::{BackendExit, Exit, PeerClose};

/// A process that ends this soon after a close meant to end then.
const SOON_NS: u64 = 1_000_000_000;

/// A process that ended and with it the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    pub(super) close: &'a PeerClose,
    pub(super) exit: Exit,
    pub(super) ended_ns: u64,
    /// It had closed the connection by a call; how long before it ended.
    closed_before_ns: Option<u64>,
}

/// Did nginx find a FIN or RST of the backend's, on a connection that had come about?
pub(super) fn backend_ended(case: &Case<'_>) -> bool {
    let found = matches!(
        case.line.kind,
        MessageKind::PrematureClose
            | MessageKind::ReceiveFailed
            | MessageKind::SendFailed
            | MessageKind::TlsSendFailed
            | MessageKind::ConnectFailed
            | MessageKind::PeerClosedInTlsHandshake
    );
    let connection = case.connection().filter(|_| found);
    connection.is_some_and(|connection| {
        connection.established_ns.is_some() && peer_end_ns(connection).is_some()
    })
}

/// The owner of the backend's side, if its end is what ended the connection: nginx found
/// a FIN or RST that the dying process, or one that was about to end, had caused.
pub(super) fn of<'a>(case: &Case<'a>) -> Option<Owner<'a>> {
    let close = case.peer_close().filter(|_| backend_ended(case))?;
    if let Some(exit) = close.exit {
        return Some(Owner {
            close,
            exit,
            ended_ns: close.ns,
            closed_before_ns: None,
        });
    }
    let ended = case.backend_exit().filter(|exit| {
        !is_another_programs(exit, close)
            && !is_a_servers_child(case, close)
            && !is_perhaps_a_copy(case, close)
    })?;
    Some(Owner {
        close,
        exit: ended.exit,
        ended_ns: ended.ns,
        closed_before_ns: Some(ended.ns.saturating_sub(close.ns)),
    })
}

/// Did a process of this host close, and live on?
pub(super) fn by_its_own_call(case: &Case<'_>) -> bool {
    own_close(case).is_some_and(|close| lived_on(case, close))
}

/// The close that a process made by a call, as far as is known.
fn own_close<'a>(case: &Case<'a>) -> Option<&'a PeerClose> {
    case.peer_close()
        .filter(|close| close.exit.is_none() && !is_a_servers_child(case, close))
        .filter(|close| !is_perhaps_a_copy(case, close))
        .filter(|_| case.backend_exit().is_none())
}

/// Would it be known by now if the process had ended soon after this close? Not at the end of
/// a trace that was cut off.
fn lived_on(case: &Case<'_>, close: &PeerClose) -> bool {
    close.ns.saturating_add(SOON_NS) < case.watched_until_ns
}

/// The same, in a sentence.
pub(super) fn own_call(case: &Case<'_>) -> Option<String> {
    let copy = case.peer_close().filter(|close| close.exit.is_none());
    if let Some(close) = copy.filter(|close| is_perhaps_a_copy(case, close)) {
        return Some(format!(
            "{}, child of {}, was the last to close the other end; whether it held more than a \
             copy of its parent's, this kernel does not tell",
            short_name(close),
            close.parent_pid
        ));
    }
    let close = own_close(case)?;
    let unread = u64::from(close.unread_bytes);
    let leaving = if unread > 0 {
        format!(
            ", leaving {} of nginx's unread,",
            counted(unread, "byte", "bytes")
        )
    } else {
        String::new()
    };
    let and = if lived_on(case, close) {
        "and lived on"
    } else {
        "and may have ended soon after"
    };
    Some(format!(
        "{}, which held the other end, closed the connection by a call{leaving} {and}",
        short_name(close)
    ))
}

/// `process 4711 (gunicorn)`, and where it ran if that was another host.
pub(super) fn short_name(close: &PeerClose) -> String {
    format!("process {} ({}){}", close.pid, close.comm, on_host(close))
}

/// Where the process ran, if another capture saw it.
fn on_host(close: &PeerClose) -> String {
    let host = close.host.as_deref();
    host.map_or_else(String::new, |host| format!(" on {host}"))
}

/// Is this the child of a process that serves the backend's connections itself? Between
/// fork() and exec() a child holds copies of them all: a connection that the server closes
/// meanwhile ends only when exec() closes the copy, and what becomes of the child says
/// nothing of the server.
fn is_a_servers_child(case: &Case<'_>, close: &PeerClose) -> bool {
    let history = case.history;
    close.parent_pid > 1 && history.is_some_and(|history| history.serves(close.parent_pid))
}

/// May this be a child that was just starting another program, and had a copy of its parent's
/// connection? Then the parent has closed, and what becomes of the child says nothing of it.
/// One that had ended others of the upstream's connections before is no such child.
fn is_perhaps_a_copy(case: &Case<'_>, close: &PeerClose) -> bool {
    let served = |history: &History| history.served_before(close.pid, close.ns);
    close.may_be_copy && !case.history.is_some_and(served)
}

/// Did the process run another program between its close and its end? What it closed then
/// were copies of its parent's connections, and its end is that program's.
fn is_another_programs(exit: &BackendExit, close: &PeerClose) -> bool {
    exit.comm != close.comm
}

impl Owner<'_> {
    /// A process that closes by a call may have meant that connection alone.
    pub(super) const fn confidence(&self) -> Confidence {
        match self.closed_before_ns {
            None => Confidence::Certain,
            Some(before) if before <= SOON_NS => Confidence::Likely,
            Some(_) => Confidence::Possible,
        }
    }

    /// The same of a signal, which may have been that of a supervisor who ends this
    /// upstream's workers after a time, if such a time is inferred.
    pub(super) fn confidence_of_a_signal(&self, case: &Case<'_>) -> Confidence {
        let limited = case.history.is_some_and(|history| {
            let work = history.work();
            work.timeout().is_some() && !work.ended_the_server(self.close)
        });
        match self.confidence() {
            Confidence::Certain if limited && may_be_a_supervisors(self.exit) => Confidence::Likely,
            confidence => confidence,
        }
    }

    /// `process 4711 (gunicorn, child of 4700)`.
    pub(super) fn name(&self) -> String {
        let PeerClose {
            pid,
            parent_pid,
            comm,
            ..
        } = self.close;
        let on = on_host(self.close);
        format!("process {pid} ({comm}, child of {parent_pid}){on}")
    }

    /// `was killed by SIGKILL (9)`.
    pub(super) fn fate(&self) -> String {
        fate(self.exit)
    }

    /// What the process's end and the socket show.
    pub(super) fn evidence(&self, case: &Case<'_>) -> Vec<String> {
        let (name, what) = (self.name(), self.fate());
        let ended = self.closed_before_ns.map_or_else(
            || format!("{name}, which held the other end, {what}; that closed the connection"),
            |before| {
                format!(
                    "{name}, which held the other end, closed the connection by a call and {} \
                     later {what}",
                    words(before)
                )
            },
        );
        sentences([
            Some(ended),
            how_it_ended(case),
            in_flight(case),
            self.leftovers(),
            reuse(case),
        ])
    }

    fn leftovers(&self) -> Option<String> {
        if !self.close.accepted {
            return Some("it had not accepted the connection yet".to_owned());
        }
        let unread = u64::from(self.close.unread_bytes);
        (unread > 0).then(|| {
            format!(
                "it left {} of nginx's unread, so its host sent an RST",
                counted(unread, "byte", "bytes")
            )
        })
    }
}

/// How a process ended, in words that follow its name.
pub(super) fn fate(exit: Exit) -> String {
    match exit {
        Exit::Code(status) => format!("exited with status {status}"),
        Exit::Signal(number) if is_crash(number) => {
            format!("crashed: {} ended it", signal(number))
        }
        Exit::Signal(number) => format!("was killed by {}", signal(number)),
        Exit::OutOfMemory => "was killed by the kernel, which had no memory left for it".to_owned(),
    }
}

/// `SIGKILL (9)`.
pub(super) fn signal(number: u32) -> String {
    signal_name(number).map_or_else(
        || format!("signal {number}"),
        |name| format!("{name} ({number})"),
    )
}

/// Signals by which the kernel answers what the program itself did wrong, and abort().
pub(super) const fn is_crash(signal: u32) -> bool {
    matches!(signal, 4 | 5 | 6 | 7 | 8 | 11 | 31)
}

/// That nginx could repeat requests that met such an end, where its configuration
/// forbids it.
pub(super) fn retries(case: &Case<'_>) -> String {
    let directive = case.directive("next_upstream");
    match case.settings.next_upstream.as_deref() {
        Some(set) if !set.split_whitespace().any(|word| word == "error") => format!(
            ". {directive} is `{set}`: with `error` nginx would try another peer for requests \
             that may be repeated (costs: work done twice)"
        ),
        _ => String::new(),
    }
}
