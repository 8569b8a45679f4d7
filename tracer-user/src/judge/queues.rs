//! Queues of new connections on this host that were full when they were looked at.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::trace::record::Listener;

/// Queues are looked at once a second.
const LOOKED_AT_NS: u64 = 1_500_000_000;

/// A queue that was full when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FullQueue {
    pub(super) queued: u32,
    pub(super) limit: u32,
    /// It may be that of another container: it listens at every address of another
    /// network namespace.
    pub(super) perhaps_another: bool,
}

/// Full queues by port, in the order of the looks.
#[derive(Debug, Default)]
pub(super) struct Queues {
    by_port: BTreeMap<u16, Vec<Listener>>,
}

impl Queues {
    /// A look found this one full.
    pub(super) fn full_one(&mut self, listener: &Listener) {
        let queues = self.by_port.entry(listener.port).or_default();
        queues.push(listener.clone());
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
        let queues = self.by_port.get(&remote.port())?;
        let first = queues.partition_point(|queue| queue.ns < *span.start());
        queues
            .iter()
            .skip(first)
            .take_while(|queue| span.contains(&queue.ns))
            .filter(|queue| takes(queue.address, remote.ip()))
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
