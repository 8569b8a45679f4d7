//! What is known of the backend's side where a process on this host held it: whether it
//! had closed, what it left unread, and whether its queue of new connections was full.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::recent::Recent;
use crate::trace::record::{BackendProcess, Connection, Listener, PeerClose};

/// Queues are looked at once a second.
const LOOKED_AT_NS: u64 = 1_500_000_000;

/// One connection's other side.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BackendSide {
    /// Bytes of nginx's that its process had not read when it closed.
    pub(super) unread: Option<u32>,
    /// It was still open when nginx's side had ended.
    pub(super) open: bool,
    /// The queue of its listening socket was full meanwhile.
    pub(super) full: Option<FullQueue>,
}

/// A queue that was full when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FullQueue {
    pub(super) queued: u32,
    pub(super) limit: u32,
    /// It may be that of another container: it listens at every address of another
    /// network namespace.
    pub(super) perhaps_another: bool,
}

/// What the trace says of backends on this host.
#[derive(Debug, Default)]
pub(super) struct BackendSides {
    /// Bytes left unread, by the cookie of nginx's side.
    closes: Recent<u32>,
    /// Backends whose connections' other side is watched.
    local: BTreeSet<SocketAddr>,
    /// Full queues by port: address, network namespace, when, queued, limit.
    queues: BTreeMap<u16, Vec<Listener>>,
}

impl BackendSides {
    pub(super) fn close(&mut self, close: &PeerClose) {
        self.closes.insert(close.cookie, close.unread_bytes);
    }

    pub(super) fn process(&mut self, process: &BackendProcess) {
        let address = SocketAddr::new(process.address.to_canonical(), process.port);
        self.local.insert(address);
    }

    pub(super) fn listener(&mut self, listener: &Listener) {
        let queues = self.queues.entry(listener.port).or_default();
        queues.push(listener.clone());
    }

    /// The other side of a connection.
    pub(super) fn of(&self, connection: &Connection) -> BackendSide {
        let unread = self.closes.get(connection.cookie).copied();
        BackendSide {
            unread,
            open: unread.is_none()
                && self.local.contains(&connection.remote)
                && self.closes.is_complete()
                && connection.established_ns.is_some()
                && !connection.first_seen_mid_life,
            full: self.full(
                connection.remote,
                Some(connection.netns),
                connection.opened_ns,
                connection.ended_ns,
            ),
        }
    }

    /// A queue at this address that was full in this time.
    pub(super) fn full(
        &self,
        remote: SocketAddr,
        netns: Option<u32>,
        from_ns: u64,
        to_ns: u64,
    ) -> Option<FullQueue> {
        let span = from_ns.saturating_sub(LOOKED_AT_NS)..=to_ns.saturating_add(LOOKED_AT_NS);
        let queues = self.queues.get(&remote.port())?;
        queues
            .iter()
            .filter(|queue| span.contains(&queue.ns) && takes(queue.address, remote.ip()))
            .map(|queue| FullQueue {
                queued: queue.queued,
                limit: queue.limit,
                perhaps_another: queue.address.is_unspecified() && netns != Some(queue.netns),
            })
            .min_by_key(|queue| queue.perhaps_another)
    }
}

/// Does a socket that listens at this address take connections to that one?
fn takes(listening: IpAddr, address: IpAddr) -> bool {
    let listening = listening.to_canonical();
    match listening {
        // A wildcard of IPv6 takes both families, unless it is told not to.
        IpAddr::V6(wildcard) if wildcard.is_unspecified() => true,
        IpAddr::V4(wildcard) if wildcard.is_unspecified() => address.to_canonical().is_ipv4(),
        other => other == address.to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_takes_connections_of_its_families() {
        let takes = |listening: &str, address: &str| {
            takes(listening.parse().unwrap(), address.parse().unwrap())
        };
        assert!(takes("0.0.0.0", "10.0.0.1") && takes("::", "10.0.0.1") && takes("::", "::1"));
        assert!(!takes("0.0.0.0", "::1") && !takes("10.0.0.2", "10.0.0.1"));
        assert!(takes("10.0.0.1", "::ffff:10.0.0.1"));
    }
}
