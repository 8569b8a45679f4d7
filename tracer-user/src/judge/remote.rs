//! A backend as one network namespace names it: containers may have the same address,
//! each for a backend of its own.

use std::net::SocketAddr;

use super::{Entry, Judge};
use crate::trace::record::{BackendProcess, Connection, Upstream};

/// An address in a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Remote {
    pub(super) address: SocketAddr,
    /// Inode number of the namespace; 0 if it is not known.
    pub(super) netns: u32,
}

impl Remote {
    pub(super) const fn of(connection: &Connection) -> Self {
        Self {
            address: connection.remote,
            netns: connection.netns,
        }
    }

    pub(super) const fn counted(counters: &Upstream) -> Self {
        Self {
            address: SocketAddr::new(counters.address, counters.port),
            netns: counters.netns,
        }
    }

    pub(super) const fn served_by(process: &BackendProcess) -> Self {
        Self {
            address: SocketAddr::new(process.address.to_canonical(), process.port),
            netns: process.netns,
        }
    }
}

impl Judge {
    /// The backend of an entry: where no connection tells the namespace, it is that of the
    /// worker's other connections, or the only one that has such a backend.
    pub(super) fn remote_of(&self, entry: &Entry) -> Option<Remote> {
        let address = entry.line.peer?;
        let netns = entry
            .connection()
            .map(|connection| connection.netns)
            .or_else(|| self.networks.get(&entry.pid).copied())
            .or_else(|| self.namespaces_with(address).next())
            .unwrap_or(0);
        Some(Remote { address, netns })
    }

    /// Namespaces in which such a backend is known.
    fn namespaces_with(&self, address: SocketAddr) -> impl Iterator<Item = u32> {
        let at = |netns| Remote { address, netns };
        self.upstreams
            .range(at(0)..=at(u32::MAX))
            .map(|(remote, _)| remote.netns)
    }

    /// Whose backend it is, if its address says too little: what the report puts after it.
    pub(super) fn whose(&self, remote: Remote) -> String {
        if self.namespaces_with(remote.address).nth(1).is_none() {
            return String::new();
        }
        let instances = self.capture.iter().flat_map(|capture| &capture.nginx);
        let mut there = instances.filter(|nginx| nginx.netns == Some(remote.netns));
        match (there.next(), there.next()) {
            (Some(nginx), None) => format!(" of nginx {}", nginx.master_pid),
            _ => format!(" in network namespace {}", remote.netns),
        }
    }
}
