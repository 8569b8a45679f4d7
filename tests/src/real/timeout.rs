//! The worker timeout: requests for something that never ends, until the server's
//! supervisor ends the worker that has one.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::table::{Accuracy, Inferred, Measured, Row};
use super::{Check, Process, Setting, direct, journal};
use crate::act::{Act, Expected};
use crate::clock::{PATIENCE, now_ns, wait_for};
use crate::draw::Draw;
use crate::load::{Client, Request};
use crate::nginx::Configuration;
use crate::scenario::{Part, Stage};

/// Requests that hang at once; the server has more workers.
const TOGETHER: usize = 2;
/// How often.
const ROUNDS: usize = 3;

/// How a server takes requests, and tells of workers that it ended.
#[derive(Clone, Copy)]
pub(super) struct Supervisor {
    /// Workers that its log says it ended for being too slow.
    pub(super) ended: fn(&Process) -> BTreeSet<u32>,
    /// Adds the location `/BLOCK/`.
    pub(super) configure: fn(&Setting, &str, &mut Configuration),
    /// Query of a request that takes too long and is lost with its worker.
    pub(super) lost: &'static str,
    /// Query of one that the worker still answers before it ends: no fault.
    pub(super) answered: Option<&'static str>,
    /// How long its log says the requests had taken. None: it speaks HTTP, and clients
    /// without nginx measure it.
    pub(super) measured: Option<fn(&Process) -> Vec<Duration>>,
    /// How the connection of a worker that it ended ends.
    pub(super) means: &'static [&'static str],
}

pub(super) struct Timeout {
    setting: Setting,
    after: Duration,
    supervisor: Supervisor,
    /// When each request of a round begins.
    starts: Vec<Duration>,
    measured: Vec<Duration>,
    /// Target, when its client had lost it.
    hung: Mutex<Vec<(String, u64)>>,
}

impl Timeout {
    pub(super) fn new(
        setting: Setting,
        after: Duration,
        supervisor: Supervisor,
        draw: &mut Draw,
    ) -> Self {
        let starts = (0..TOGETHER * (ROUNDS + 1)).map(|_| draw.milliseconds(0..=900));
        Self {
            setting,
            after,
            supervisor,
            starts: starts.collect(),
            measured: Vec::new(),
            hung: Mutex::new(Vec::new()),
        }
    }

    fn block(&self) -> String {
        format!("{}_work", self.setting.block)
    }

    fn hang(&self, stage: &Stage<'_>, start: Duration) -> Result<()> {
        let address = stage.nginx.address();
        let block = self.block();
        let good = Request::get(stage.target(&block));
        let response = Client::connect(address)?.ask(&good)?;
        if response.status != 200 {
            bail!("{block} answered {response:?}");
        }
        thread::sleep(start);
        let target = stage.target(&block) + self.supervisor.lost;
        let mut client = Client::connect(address)?;
        client.send(&Request::get(&target))?;
        // Only that it is over matters: nginx answers 502 for it, or passes on what the
        // server said at last.
        let _ = client.receive();
        let mut hung = self.hung.lock().unwrap_or_else(PoisonError::into_inner);
        hung.push((target, now_ns()));
        Ok(())
    }
}

impl Part for Timeout {
    fn configure(&self, configuration: &mut Configuration) {
        (self.supervisor.configure)(&self.setting, &self.block(), configuration);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        let address = self.setting.process.address();
        let (direct, through) = self.starts.split_at(TOGETHER);
        for round in through.chunks(TOGETHER) {
            thread::scope(|scope| {
                let one = |start: &Duration| {
                    let (hang, start) = (&*self, *start);
                    scope.spawn(move || hang.hang(stage, start))
                };
                let threads: Vec<_> = round.iter().map(one).collect();
                threads
                    .into_iter()
                    .try_for_each(|thread| match thread.join() {
                        Ok(hung) => hung,
                        Err(_) => bail!("a client panicked"),
                    })
            })?;
        }
        if let Some(query) = self.supervisor.answered {
            let request = Request::get(stage.target(&self.block()) + query);
            let response = Client::connect(stage.nginx.address())?.ask(&request)?;
            if response.status != 500 {
                bail!("{} answered {response:?}", request.target);
            }
        }
        let ended = self.supervisor.ended;
        wait_for("the supervisor to tell of all it ended", PATIENCE, || {
            thread::sleep(Duration::from_millis(20));
            Ok((ended(&self.setting.process).len() >= TOGETHER * ROUNDS).then_some(()))
        })?;
        self.measured = match self.supervisor.measured {
            Some(measured) => measured(&self.setting.process),
            None => {
                let target = format!("/direct/work{}", self.supervisor.lost);
                direct::times_in_flight(address, &target, direct, PATIENCE + self.after)?
            }
        };
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let entries = journal::read(&self.setting.process);
        let ended = (self.supervisor.ended)(&self.setting.process);
        let hung = self.hung.lock().unwrap_or_else(PoisonError::into_inner);
        let mut acts = Vec::new();
        for (target, over_ns) in hung.iter() {
            let entry = entries.iter().find(|entry| entry.target == *target);
            let entry = entry.with_context(|| format!("nobody received {target}"))?;
            let (first, more) = (self.supervisor.means.split_first())
                .context("a supervisor's connections end somehow")?;
            let expected = Expected::new("backend", first, "worker-timeout");
            let expected = more.iter().fold(expected, |all, means| all.or_means(means));
            acts.push(Act {
                upstream: self.setting.process.address().to_string(),
                nginx_end: entry.port.map(|port| ([127, 0, 0, 1], port).into()),
                target: Some(target.clone()),
                at_ns: *over_ns,
                what: format!("worker {} ended by its supervisor", entry.pid),
                expected: ended.contains(&entry.pid).then_some(expected),
            });
        }
        Ok(acts)
    }
}

impl Check for Timeout {
    fn row(&self, upstream: &Value) -> Row {
        Row {
            accuracy: Accuracy::Supervised,
            configured: self.after.as_secs_f64() * 1000.0,
            measured: Some(Measured::of_times(&self.measured)),
            inferred: Inferred::time(&upstream["work_timeout"]),
            ..Row::new(&self.setting, "worker timeout", upstream)
        }
    }
}
