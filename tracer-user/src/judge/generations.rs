//! The settings each worker runs with: those that its master had loaded when it started
//! the worker. After a reload new workers have the new ones, while the old ones finish
//! their requests with the old.

use std::collections::HashMap;

use crate::trace::record::{Configuration, Nginx, Worker};

/// By master and by worker.
#[derive(Debug, Default)]
pub(super) struct Generations {
    loaded: HashMap<u32, Vec<Loaded>>,
    lives: HashMap<u32, Vec<Life>>,
}

/// What a master had loaded from some moment on.
#[derive(Debug)]
struct Loaded {
    since_ns: u64,
    nginx: Nginx,
}

/// A worker from its start to its end; its pid may be given again.
#[derive(Debug)]
struct Life {
    master_pid: u32,
    since_ns: u64,
    gone_ns: Option<u64>,
}

impl Generations {
    /// An instance as it is from some moment on; 0 for the first that is known of it.
    /// Returns whether it has loaded another configuration since the last time.
    pub(super) fn loaded(&mut self, nginx: &Nginx, since_ns: u64) -> bool {
        for worker in &nginx.workers {
            self.started(nginx.master_pid, worker, since_ns);
        }
        let loaded = self.loaded.entry(nginx.master_pid).or_default();
        let same = |last: &&mut Loaded| {
            let last = &last.nginx;
            last.configuration == nginx.configuration
                && last.error_logs == nginx.error_logs
                && last.changed_before_start == nginx.changed_before_start
        };
        if let Some(last) = loaded.last_mut().filter(same) {
            // The rest is of the instance: it holds for all of its settings.
            last.nginx = nginx.clone();
            return false;
        }
        let first = loaded.is_empty();
        loaded.push(Loaded {
            since_ns: if first { 0 } else { since_ns },
            nginx: nginx.clone(),
        });
        !first
    }

    pub(super) fn started(&mut self, master_pid: u32, worker: &Worker, ns: u64) {
        let lives = self.lives.entry(worker.pid).or_default();
        if lives.last().is_none_or(|life| life.gone_ns.is_some()) {
            lives.push(Life {
                master_pid,
                since_ns: ns,
                gone_ns: None,
            });
        }
    }

    pub(super) fn gone(&mut self, pid: u32, ns: u64) {
        let life = self.lives.get_mut(&pid).and_then(|lives| lives.last_mut());
        if let Some(life) = life.filter(|life| life.gone_ns.is_none()) {
            life.gone_ns = Some(ns);
        }
    }

    /// What a worker that logged at `ns` was running with. One that started and ended
    /// between two looks is not known: it is taken for one of that moment.
    pub(super) fn of(&self, master_pid: u32, pid: u32, ns: u64) -> Option<&Nginx> {
        let since_ns = self.life(pid, ns).map_or(ns, |life| life.since_ns);
        self.at(master_pid, since_ns)
    }

    /// The same of a worker whose start is known.
    pub(super) fn of_worker(&self, pid: u32, ns: u64) -> Option<&Nginx> {
        let life = self.life(pid, ns)?;
        self.at(life.master_pid, life.since_ns)
    }

    fn life(&self, pid: u32, ns: u64) -> Option<&Life> {
        let lives = self.lives.get(&pid)?;
        lives
            .iter()
            .find(|life| life.gone_ns.is_none_or(|gone| ns <= gone))
            .or(lives.last())
    }

    fn at(&self, master_pid: u32, since_ns: u64) -> Option<&Nginx> {
        let loaded = self.loaded.get(&master_pid)?;
        let then = loaded
            .iter()
            .rev()
            .find(|loaded| loaded.since_ns <= since_ns);
        Some(&then.or(loaded.first())?.nginx)
    }

    /// All that one master had loaded, oldest first.
    pub(super) fn all_of(&self, master_pid: u32) -> impl Iterator<Item = &Nginx> {
        let loaded = self.loaded.get(&master_pid).into_iter().flatten();
        loaded.map(|loaded| &loaded.nginx)
    }
}

/// The configuration, if it is known to be the one in force.
pub(super) fn in_force(nginx: &Nginx) -> Option<&Configuration> {
    nginx
        .configuration
        .as_ref()
        .filter(|_| !nginx.changed_before_start)
}
