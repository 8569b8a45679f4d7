//! An incident before its verdict, and what is shown of it afterwards.

use std::ops::RangeInclusive;
use std::rc::Rc;

use super::end::caused_by;
use super::line::UpstreamLine;
use super::socket::Socket;
use crate::trace::record::{BackendExit, Connection, Continuation, Logged, PeerClose};

/// An incident before its verdict.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(super) line: UpstreamLine,
    pub(super) sighting: Option<Logged>,
    pub(super) socket: Socket,
    /// No call of nginx's was seen that met the connection's end: it must have been missed.
    pub(super) end_not_met: bool,
    pub(super) order: u64,
    /// The worker on the host.
    pub(super) pid: u32,
    pub(super) continuation: Option<Continuation>,
    /// The end of the backend's side.
    pub(super) peer_close: Option<Box<PeerClose>>,
    /// Had there been one, it would be known.
    pub(super) peer_remembered: bool,
}

impl Entry {
    pub(super) fn connection(&self) -> Option<&Rc<Connection>> {
        self.socket.connection()
    }

    /// Its connection, unless others come into question.
    pub(super) fn only_connection(&self) -> Option<&Rc<Connection>> {
        match &self.socket {
            Socket::Aligned(aligned) if !aligned.ordered => None,
            socket => socket.connection(),
        }
    }

    /// The end of the backend's side, if it can have caused the end that nginx saw.
    pub(super) fn cause_of_end(&self) -> Option<&PeerClose> {
        let close = self.peer_close.as_deref()?;
        let connection = self.connection()?;
        caused_by(connection, close).then_some(close)
    }

    /// When, on the monotonic clock: exact if the line was seen being written, and just
    /// after it if its connection is known.
    pub(super) fn ns(&self) -> u64 {
        let closed = || self.connection().map(|connection| connection.ended_ns);
        self.sighting
            .map(|sighting| sighting.ns)
            .or_else(closed)
            .map_or(self.line.read_ns, |ns| ns.min(self.line.read_ns))
    }

    /// The time within which it was written: of a line that was not seen being written
    /// only the second is known, whichever connection it was given.
    pub(super) fn span_ns(&self) -> RangeInclusive<u64> {
        const STAMP_NS: u64 = 1_000_000_000;
        let ns = self.ns();
        if self.sighting.is_some() {
            return ns..=ns;
        }
        let latest = ns.saturating_add(STAMP_NS).min(self.line.read_ns);
        ns.saturating_sub(STAMP_NS)..=latest.max(ns)
    }
}

/// What `show` draws a timeline from.
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// The incident's connection.
    pub connection: Option<Connection>,
    /// The sighting of its line.
    pub logged: Option<Logged>,
    /// What the worker did next.
    pub continuation: Option<Continuation>,
    /// The end of the backend's side, if a process on this host held it.
    pub peer_close: Option<PeerClose>,
    /// The end of that process.
    pub exit: Option<BackendExit>,
}
