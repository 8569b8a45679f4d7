//! What a capture on a backend's host does with the programs and their maps.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap};
use tracer_ebpf::accepted::Accepted;

use super::{OPEN_ACCEPTED, Programs, map};
use crate::trace::record::Role;

/// Maps that a capture on a backend's host looks into.
const OF_BACKENDS: [&str; 6] = [
    "ACCEPTED",
    "RECORDS",
    "BACKEND_PORTS",
    "WATCHED_EXITS",
    "LOSS",
    "AYA_LOGS",
];
/// Port numbers.
const PORTS: usize = 1 << 16;

impl Programs {
    /// Lets go of the maps of the other role's programs, which are not loaded.
    pub(super) fn drop_unused_maps(&mut self, role: Role) {
        let unused: Vec<String> = self
            .ebpf
            .maps()
            .map(|(name, _)| name.to_owned())
            .filter(|name| match role {
                Role::Nginx => name == "ACCEPTED",
                Role::Backend => !name.starts_with('.') && !OF_BACKENDS.contains(&name.as_str()),
            })
            .collect();
        for name in unused {
            drop(self.ebpf.take_map(&name));
        }
    }

    /// Connections at the ports asked for that are open now, in a capture on a backend's
    /// host.
    ///
    /// # Errors
    /// If the kernel has no such iterator or it cannot be read.
    pub fn open_accepted(&mut self) -> Result<Vec<Accepted>> {
        let open = self.open::<{ Accepted::SIZE }>(OPEN_ACCEPTED, "ACCEPTED")?;
        let open = open.iter().filter_map(|one| Accepted::decode(one).ok());
        Ok(open.filter(|one| one.sent == 0).collect())
    }

    /// Connections accepted at these ports count, from now on too.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn watch_ports(&mut self, ports: &BTreeSet<u16>) -> Result<()> {
        let mut map: Array<_, [u8; PORTS]> =
            Array::try_from(map(&mut self.ebpf, "BACKEND_PORTS")?)?;
        let mut marks = [0; PORTS];
        for port in ports {
            marks[usize::from(*port)] = 1;
        }
        map.set(0, marks, 0)
            .context("cannot tell the programs the ports")
    }

    /// The ends of these processes are to be told.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn watch_exits(&mut self, pids: &BTreeSet<u32>) -> Result<()> {
        let mut map: HashMap<_, u32, u32> =
            HashMap::try_from(map(&mut self.ebpf, "WATCHED_EXITS")?)?;
        for pid in pids {
            map.insert(*pid, 1, 0)
                .context("cannot tell the programs the processes")?;
        }
        Ok(())
    }
}
