//! The judge's part that takes what is known of the backends' own side: which process
//! ended which connection, and each upstream's history.

use super::end::{caused_by, ended_by_reset, unacked_at_end};
use super::history::History;
use super::remote::Remote;
use super::{Entry, Judge};
use crate::nginx::message::MessageKind;
use crate::trace::record::{BackendExit, BackendProcess, Connection, PeerClose};

/// How it is known that the backend's side was open still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StillOpen {
    /// Its process closed it, at this time, after nginx's side had ended.
    ClosedLater(u64),
    /// It was not seen to close, as the sides of other connections were.
    NeverClosed,
}

impl Judge {
    /// An upstream connection, at its end.
    pub(super) fn remember(&mut self, connection: &Connection) {
        let peer = self.peers.close_of(connection);
        let history = self.histories.entry(Remote::of(connection)).or_default();
        history.connection(connection, peer);
        if let Some(exit) = peer.and_then(|peer| self.peers.exit_of(peer.pid)) {
            history.exit(exit);
        }
        if peer.is_none() {
            self.remotes
                .insert(connection.cookie, Remote::of(connection));
        }
    }

    /// A line says that a connection failed.
    pub(super) fn remember_failure(&mut self, entry: &Entry) {
        let of_the_backend = matches!(
            entry.line.kind,
            MessageKind::PrematureClose
                | MessageKind::ReceiveFailed
                | MessageKind::SendFailed
                | MessageKind::TlsSendFailed
        );
        if let Some(connection) = entry.connection().filter(|_| of_the_backend)
            && let Some(history) = self.histories.get_mut(&Remote::of(connection))
        {
            history.aborted(connection, entry.cause_of_end());
        }
    }

    /// Usually before its connection's record, sometimes after the line.
    pub(super) fn peer_close(&mut self, close: &PeerClose) {
        self.peers.close(close);
        if let Some(entry) = self
            .entry_of
            .get(&close.cookie)
            .and_then(|index| self.entries.get_mut(*index))
        {
            entry.peer_close = Some(Box::new(close.clone()));
        }
        if let Some(remote) = self.remotes.get(close.cookie)
            && let Some(history) = self.histories.get_mut(remote)
        {
            history.late_peer_close(close);
            if let Some(exit) = self.peers.exit_of(close.pid) {
                history.exit(exit);
            }
        }
    }

    pub(super) fn backend_exit(&mut self, exit: &BackendExit) {
        self.peers.exit(exit);
        for history in self.histories.values_mut() {
            history.exit(exit);
        }
    }

    pub(super) fn backend_process(&mut self, process: &BackendProcess) {
        let remote = Remote::served_by(process);
        let history = self.histories.entry(remote).or_default();
        history.seen(process);
        if let Some(exit) = self.peers.exit_of(process.pid) {
            history.exit(exit);
        }
    }

    /// The end of the process that ended an entry's connection.
    pub(super) fn exit_of(&self, entry: &Entry) -> Option<&BackendExit> {
        let close = entry.cause_of_end()?;
        let history = self.history_of(entry);
        let last = history.and_then(|history| history.last_end_of(close.pid));
        self.peers.exit_after(close, last.unwrap_or(0))
    }

    /// Was the backend's side, on this host, still open when nginx's saw an RST?
    pub(super) fn peer_open(&self, entry: &Entry) -> Option<StillOpen> {
        let connection = entry.connection().filter(|found| ended_by_reset(found))?;
        if let Some(close) = &entry.peer_close {
            return (!caused_by(connection, close)).then_some(StillOpen::ClosedLater(close.ns));
        }
        self.never_closed(entry).then_some(StillOpen::NeverClosed)
    }

    /// Only a side that had come about shows: one whose queue was full may not have.
    fn never_closed(&self, entry: &Entry) -> bool {
        let local = self.history_of(entry).is_some_and(History::is_local);
        let came_about = |connection: &Connection| {
            let unacked = unacked_at_end(connection).map_or(0, u64::from);
            connection.received_bytes > 0 || unacked < connection.sent_bytes
        };
        local
            && entry.peer_remembered
            && entry.connection().is_some_and(|connection| {
                connection.established_ns.is_some()
                    && !connection.first_seen_mid_life
                    && !self.unwatched.contains(&connection.cookie)
                    && came_about(connection)
            })
    }

    pub(super) fn history_of(&self, entry: &Entry) -> Option<&History> {
        self.histories.get(&self.remote_of(entry)?)
    }

    /// Infers from what has come by now.
    pub(super) fn settle_history(&mut self, remote: Remote) {
        if let Some(history) = self.histories.get_mut(&remote) {
            let figures = self.upstreams.get(&remote);
            history.settle(
                figures.and_then(|figures| figures.settled().idle_timeout),
                figures.map_or(0, super::Figures::longest_first_byte_ns),
            );
        }
    }
}
