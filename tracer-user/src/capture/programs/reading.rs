//! What a running capture reads out of the programs' maps.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, PerCpuArray};
use tracer_ebpf::backend::{BackendKey, BackendProcess, PROCESSES};
use tracer_ebpf::connection::Connection;
use tracer_ebpf::continuation::Continuation;
use tracer_ebpf::loss;
use tracer_ebpf::settings::THREADS;
use tracer_ebpf::upstream::{UpstreamCounters, UpstreamKey};

use super::{OPEN_CONNECTIONS, Programs, map};
use crate::capture::{counters, missed_runs, open_connections};

/// What of these totals is more than was told. One that a program, interrupted while it
/// added to it, has set back goes on from there.
fn not_told(totals: Vec<(String, u64)>, told: &mut BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let mut new = Vec::new();
    for (name, total) in totals {
        let before = told.insert(name.clone(), total).unwrap_or(0);
        if total > before {
            new.push((name, total - before));
        }
    }
    new
}

impl Programs {
    /// Counters of all upstreams seen, added up over the processors, by slot.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn upstreams(&mut self) -> Result<BTreeMap<u32, (UpstreamKey, UpstreamCounters)>> {
        let slots: HashMap<_, [u8; UpstreamKey::SIZE], u32> =
            HashMap::try_from(map(&mut self.ebpf, "UPSTREAM_SLOTS")?)?;
        let mut keys = Vec::new();
        for entry in slots.iter() {
            let (key, slot) = entry?;
            keys.push((UpstreamKey::read(&key)?, slot));
        }
        let counters: PerCpuArray<_, [u8; UpstreamCounters::SIZE]> =
            PerCpuArray::try_from(map(&mut self.ebpf, "UPSTREAMS")?)?;
        let mut upstreams = BTreeMap::new();
        for (key, slot) in keys {
            let mut sum = UpstreamCounters::ZERO;
            for processor in counters.get(&slot, 0)?.iter() {
                counters::add(&mut sum, &UpstreamCounters::read(processor)?);
            }
            upstreams.insert(slot, (key, sum));
        }
        Ok(upstreams)
    }

    /// What processes have done with the connections of upstreams. One that comes or
    /// goes meanwhile may be missing, or there twice.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn backend_processes(&mut self) -> Result<Vec<(BackendKey, BackendProcess)>> {
        let map: HashMap<_, [u8; BackendKey::SIZE], [u8; BackendProcess::SIZE]> =
            HashMap::try_from(map(&mut self.ebpf, "BACKENDS")?)?;
        // Entries that go under the reader may make it begin anew.
        map.iter()
            .take(2 * PROCESSES)
            .map(|entry| {
                let (key, process) = entry?;
                Ok((BackendKey::read(&key)?, BackendProcess::read(&process)?))
            })
            .collect()
    }

    /// A thread's slot in the table of continuations, if it is that thread's.
    #[must_use]
    pub fn continuation(&mut self, tid: u32) -> Option<Continuation> {
        let table: Array<_, [u8; Continuation::SIZE]> =
            Array::try_from(map(&mut self.ebpf, "THREAD_TABLE").ok()?).ok()?;
        let slot = tid % u32::try_from(THREADS).ok()?;
        let found = Continuation::decode(&table.get(&slot, 0).ok()?).ok()?;
        (found.tid == tid && found.failed_cookie != 0).then_some(found)
    }

    /// What was lost since the last call, by name.
    ///
    /// # Errors
    /// If the loss counters cannot be read.
    pub fn new_losses(&mut self) -> Result<Vec<(String, u64)>> {
        let mut totals = Vec::new();
        let counters: PerCpuArray<_, u64> = PerCpuArray::try_from(map(&mut self.ebpf, "LOSS")?)?;
        for (index, name) in (0..loss::COUNT).zip(loss::NAMES) {
            let total: u64 = counters.get(&index, 0)?.iter().sum();
            totals.push((name.to_owned(), total));
        }
        let missed = missed_runs::by_program(&self.ebpf, self.uprobes.links());
        self.twins
            .attach_where_missed(&mut self.ebpf, &missed, &totals);
        totals.extend(
            self.twins
                .that_count(missed)
                .into_iter()
                .map(|(name, missed)| (format!("missed_runs:{name}"), missed)),
        );
        Ok(not_told(totals, &mut self.losses_told))
    }

    /// Has the kernel begun to skip changes of state? See [`super::super::twins`].
    pub(in crate::capture) fn look_at_changes_of_state(&mut self) {
        self.twins.attach_where_states_are_missed(&mut self.ebpf);
    }

    /// What has become worse since the last call, in sentences.
    pub(in crate::capture) fn warnings(&mut self) -> Vec<String> {
        self.twins.warnings()
    }

    /// Upstream connections that are open now.
    ///
    /// # Errors
    /// If the kernel has no such iterator or it cannot be read.
    pub fn open_connections(&mut self) -> Result<Vec<Connection>> {
        // A connection that is just being set up has no cookie yet and does not decode.
        let open = self.open::<{ Connection::SIZE }>(OPEN_CONNECTIONS, "CONNECTIONS")?;
        let open = open.iter().filter_map(|one| Connection::decode(one).ok());
        Ok(open.filter(|one| one.sent == 0).collect())
    }

    pub(super) fn open<const SIZE: usize>(
        &mut self,
        program: &str,
        map: &str,
    ) -> Result<Vec<[u8; SIZE]>> {
        let map = self.ebpf.map(map).context("no map of connections")?;
        let program = self.ebpf.program(program).context("no such program")?;
        open_connections::read(program.fd()?, open_connections::map_fd(map)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_after_a_counter_was_set_back_is_told() {
        let mut told = BTreeMap::new();
        let mut tell = |total| {
            let new = not_told(vec![("logged_records".to_owned(), total)], &mut told);
            new.first().map_or(0, |(_, count)| *count)
        };
        assert_eq!([5, 5, 3, 4, 6].map(&mut tell), [5, 0, 0, 1, 2]);
    }
}
