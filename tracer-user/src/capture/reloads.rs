//! Which configuration each instance runs with while it is captured. Files alone say
//! nothing of that: they may be changed and not loaded, and a worker that died is started
//! again with what its master had loaded before.

use super::host::{Host, Watched};
use crate::nginx::binary::Binary;
use crate::nginx::configuration;
use crate::nginx::processes::Instance;
use crate::nginx::processes::cycle::Cycle;
use crate::trace::record::ErrorLog;

/// Without symbols a reload shows once its old workers shut down, within 100 ms
/// (`ngx_master_process_cycle`): for so long it is looked for.
const LOOK_FOR_NS: u64 = 5_000_000_000;

/// What a master had loaded when its files were read.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Tells each reload, where it can be looked at.
    cycle: Option<Cycle>,
    /// It has told one of which the files were not read yet.
    again: bool,
    /// Workers have started since: when that was noticed first, and last.
    started: Option<(u64, u64)>,
    /// The trace was told that files have changed since.
    told_of_change: bool,
}

impl Loaded {
    pub(super) fn by(instance: &Instance, binary: &Binary) -> Self {
        Self {
            cycle: Cycle::open(instance, binary),
            again: false,
            started: None,
            told_of_change: false,
        }
    }
}

/// An instance that has loaded its configuration again.
#[derive(Debug)]
pub(super) struct Reloaded {
    /// Its index.
    pub(super) index: usize,
    /// The logs that are followed.
    pub(super) logs: Vec<ErrorLog>,
    /// When its first worker since then was noticed.
    pub(super) since_ns: u64,
}

impl Watched {
    /// Takes the files as in force if the master has loaded them again. Returns when the
    /// first worker was noticed that runs with them, if they say something else.
    fn loads(&mut self, started: bool, now_ns: u64) -> Option<u64> {
        if started {
            self.loaded.started.get_or_insert((now_ns, now_ns)).1 = now_ns;
        }
        let (since_ns, last_ns) = self.loaded.started?;
        let has_loaded = self.has_loaded();
        let again = has_loaded.is_none() && now_ns.saturating_sub(last_ns) < LOOK_FOR_NS;
        self.loaded.started = self.loaded.started.filter(|_| again);
        if has_loaded != Some(true) {
            return None;
        }
        let files = configuration::read_files(&self.instance, &self.binary);
        let before = std::mem::replace(&mut self.in_force, files);
        self.loaded.told_of_change = false;
        let differs = before.configuration != self.in_force.configuration
            || before.error_logs != self.in_force.error_logs
            || before.changed_since_start;
        differs.then_some(since_ns)
    }

    fn look_at_cycle(&mut self) {
        let changed = self.loaded.cycle.as_mut().is_some_and(Cycle::has_changed);
        self.loaded.again |= changed;
    }

    /// Is it known that the master has loaded its files since they were read last, by the
    /// time at which it started workers? `None` if that is not known yet.
    fn has_loaded(&mut self) -> Option<bool> {
        if self.loaded.cycle.is_some() {
            // The cycle is another one before the first worker of it starts.
            self.look_at_cycle();
            return Some(std::mem::take(&mut self.loaded.again));
        }
        let files = configuration::read_files(&self.instance, &self.binary);
        (!files.is_newer_than(self.instance.oldest_start_s())).then_some(true)
    }
}

impl Host {
    /// To be called often, see [`Cycle`].
    pub(super) fn look_at_cycles(&mut self) {
        self.watched.iter_mut().for_each(Watched::look_at_cycle);
    }

    /// Reads the configuration again of each master that has loaded it again, of which
    /// new workers are the first sign: `masters` have started some since the last call.
    pub(super) fn reloaded(&mut self, masters: &[u32], now_ns: u64) -> Vec<Reloaded> {
        let mut found = Vec::new();
        for (index, watched) in self.watched.iter_mut().enumerate() {
            let started = masters.contains(&watched.instance.master_pid);
            if let Some(since_ns) = watched.loads(started, now_ns) {
                found.push((index, since_ns));
            }
        }
        let read = found.into_iter().map(|(index, since_ns)| Reloaded {
            index,
            logs: self.follow_new_logs(index),
            since_ns,
        });
        read.collect()
    }

    /// Instances whose files say something else than they run with, of which the trace was
    /// not told: they were changed during the capture, and not loaded.
    pub(super) fn changed_files(&mut self) -> Vec<usize> {
        let mut found = Vec::new();
        for (index, watched) in self.watched.iter_mut().enumerate() {
            let known = watched.loaded.told_of_change || watched.in_force.changed_since_start;
            let files = configuration::read_files(&watched.instance, &watched.binary);
            if known
                || files.newest_change_s <= watched.in_force.newest_change_s
                || !files.is_newer_than(watched.instance.oldest_start_s())
            {
                continue;
            }
            watched.loaded.told_of_change = true;
            watched.in_force.problems.push(
                "the files were changed after the workers started, and not loaded: the settings \
                 named here are those that nginx runs with"
                    .to_owned(),
            );
            found.push(index);
        }
        found
    }
}
