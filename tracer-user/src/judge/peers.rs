//! The backend's side of connections, where a process on this host held it: who closed
//! there, and which of these processes ended.

use super::recent::Recent;
use crate::trace::record::{BackendExit, Connection, PeerClose};

/// A server that handles its signal closes its connections first and ends soon after.
const SOON_NS: u64 = 1_000_000_000;
/// On a busy host that takes longer; then the last of its connections ends soon before it.
const LATER_NS: u64 = 3_000_000_000;

/// What lines that are still to come may need.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// Ends by the end of the process: few, and the ones that matter most.
    dying: Recent<PeerClose>,
    /// Ends by a call.
    called: Recent<PeerClose>,
    /// The last end of a process of each pid.
    exits: Recent<BackendExit>,
    /// Ends of connections until then may have been forgotten.
    forgotten_ns: u64,
}

impl Peers {
    pub(super) fn close(&mut self, close: &PeerClose) {
        let closes = if close.exit.is_some() {
            &mut self.dying
        } else {
            &mut self.called
        };
        if let Some(forgotten) = closes.insert(close.cookie, close.clone()) {
            self.forgotten_ns = self.forgotten_ns.max(forgotten.ns);
        }
    }

    /// Is every end since then still known?
    pub(super) const fn remember_since(&self, ns: u64) -> bool {
        self.forgotten_ns < ns
    }

    pub(super) fn exit(&mut self, exit: &BackendExit) {
        self.exits.insert(u64::from(exit.pid), exit.clone());
    }

    /// The end of this connection's other side.
    pub(super) fn close_of(&self, connection: &Connection) -> Option<&PeerClose> {
        let cookie = connection.cookie;
        self.dying.get(cookie).or_else(|| self.called.get(cookie))
    }

    /// The last end of a process of this pid.
    pub(super) fn exit_of(&self, pid: u32) -> Option<&BackendExit> {
        self.exits.get(u64::from(pid))
    }

    /// The end of the process that closed, if it came with the close or soon after.
    /// `last_ns`: it ended its last connection of that upstream.
    pub(super) fn exit_after(&self, close: &PeerClose, last_ns: u64) -> Option<&BackendExit> {
        let exit = self.exit_of(close.pid)?;
        let to_the_end = last_ns > close.ns && last_ns.saturating_add(SOON_NS) >= exit.ns;
        let within = if to_the_end { LATER_NS } else { SOON_NS };
        let soon = close.ns.saturating_add(within);
        // Of a process that is ending, the close and the end may be noted in either order.
        let from = if close.exit.is_some() {
            close.ns.saturating_sub(SOON_NS)
        } else {
            close.ns
        };
        (from..=soon).contains(&exit.ns).then_some(exit)
    }
}
