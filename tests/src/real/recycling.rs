//! Workers that end after so many requests, under load. What fails then, if anything,
//! failed because of that.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::table::{Accuracy, Row};
use super::{Check, Process, Setting, journal};
use crate::act::{Act, Expected};
use crate::clock::{PATIENCE, wait_for};
use crate::load::{self, Outcome, Request};
use crate::nginx::Configuration;
use crate::scenario::{Part, Stage};

/// Requests under way at once.
const CLIENTS: usize = 4;
/// Workers that have to have ended.
const RECYCLED: usize = 3;

#[derive(Clone, Copy)]
pub(super) struct Recycler {
    /// Workers that its log says have ended after their last request.
    pub(super) ended: fn(&Process) -> BTreeSet<u32>,
    /// Adds the location `/BLOCK/`.
    pub(super) configure: fn(&Setting, &str, &mut Configuration),
}

pub(super) struct Recycling {
    setting: Setting,
    /// Requests that a worker serves.
    limit: u32,
    recycler: Recycler,
    outcomes: Vec<Outcome>,
}

impl Recycling {
    pub(super) fn new(setting: Setting, limit: u32, recycler: Recycler) -> Self {
        Self {
            setting,
            limit,
            recycler,
            outcomes: Vec::new(),
        }
    }

    fn block(&self) -> String {
        format!("{}_recycled", self.setting.block)
    }

    fn failed(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| !outcome.served())
    }
}

impl Part for Recycling {
    fn configure(&self, configuration: &mut Configuration) {
        (self.recycler.configure)(&self.setting, &self.block(), configuration);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        let ended = self.recycler.ended;
        wait_for("workers to be recycled", PATIENCE * 2, || {
            let requests: Vec<_> = (0..self.limit * 2)
                .map(|_| Request::get(stage.target(&self.block())))
                .collect();
            let address = stage.nginx.address();
            self.outcomes
                .extend(load::run(address, &requests, CLIENTS, true));
            thread::sleep(Duration::from_millis(200));
            Ok((ended(&self.setting.process).len() >= RECYCLED).then_some(()))
        })
    }

    /// A line about a connection of a worker that ended is that worker's.
    fn truth(&self) -> Result<Vec<Act>> {
        let ended = (self.recycler.ended)(&self.setting.process);
        let upstream = self.setting.process.address().to_string();
        let mut acts = Vec::new();
        let mut seen = BTreeSet::new();
        for entry in journal::read(&self.setting.process) {
            let Some(port) = entry.port.filter(|_| ended.contains(&entry.pid)) else {
                continue;
            };
            if seen.insert((entry.pid, port)) {
                acts.push(Act {
                    upstream: upstream.clone(),
                    nginx_end: Some(([127, 0, 0, 1], port).into()),
                    target: None,
                    at_ns: entry.at_ns,
                    what: format!("worker {} recycled", entry.pid),
                    expected: Some(
                        Expected::new("backend", "fin", "worker-recycled").or_means("rst"),
                    ),
                });
            }
        }
        // Accepted by the kernel for a worker that ended, and never read.
        let read: BTreeSet<_> = journal::read(&self.setting.process)
            .into_iter()
            .map(|entry| entry.target)
            .collect();
        for outcome in self.failed() {
            let target = &outcome.request.target;
            if !read.contains(target) {
                acts.push(Act {
                    upstream: upstream.clone(),
                    nginx_end: None,
                    target: Some(target.clone()),
                    at_ns: outcome.finished_ns,
                    what: "no application received it".to_owned(),
                    expected: Some(
                        Expected::new("backend", "fin", "worker-recycled").or_means("rst"),
                    ),
                });
            }
        }
        Ok(acts)
    }
}

impl Check for Recycling {
    fn row(&self, upstream: &Value) -> Row {
        Row {
            accuracy: Accuracy::None,
            configured: f64::from(self.limit),
            requests: Some(self.outcomes.len()),
            failed: Some(self.failed().count()),
            ..Row::new(&self.setting, "recycling", upstream)
        }
    }
}
