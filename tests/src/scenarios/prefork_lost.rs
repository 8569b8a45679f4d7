//! One of several worker processes is killed, at work and idle; the others serve on.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::act::Act;
use crate::draw::Draw;
use crate::load::Method;
use crate::nginx::Configuration;
use crate::process_backend::Supervision;
use crate::scenario::{Crew, Part, Scenario, Stage};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "prefork_lost",
    description: "one of several worker processes is killed by SIGKILL, others serve on",
    alone: false,
    prepare,
};

struct Lost {
    crew: Crew,
    /// Over the block that keeps connections or not, for each request; a list a death.
    at_work: Vec<Vec<bool>>,
    takes: Duration,
    idle: usize,
    method: Method,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let supervision = Supervision {
        workers: draw.count(3..=4),
        recycle_after: None,
        work_limit: None,
        look_every: Duration::from_secs(1),
        abort_first: false,
    };
    let mut at_work = Vec::new();
    for _ in 0..draw.count(2..=3) {
        let requests = draw.count(2..=supervision.workers);
        at_work.push((0..requests).map(|_| draw.coin()).collect());
    }
    Ok(Box::new(Lost {
        crew: Crew::start("prefork_lost", supervision)?,
        at_work,
        takes: draw.milliseconds(250..=400),
        idle: draw.count(4..=8),
        method: draw.one_of(&[Method::Get, Method::Post]),
    }))
}

/// The worker with the most of something.
fn busiest(counts: &BTreeMap<u32, usize>) -> Option<u32> {
    let most = counts.iter().max_by_key(|(_, count)| **count);
    most.map(|(pid, _)| *pid)
}

impl Part for Lost {
    fn configure(&self, configuration: &mut Configuration) {
        self.crew.configure(configuration);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        for kept in &self.at_work {
            self.crew.serve(stage)?;
            let mut clients = Vec::new();
            for &kept in kept {
                clients.push(self.crew.begin(stage, kept, self.takes)?.0);
            }
            // On a machine that stalls they may all be answered by now.
            if let Some(worker) = busiest(&self.crew.working()?) {
                self.crew.kill(worker)?;
            }
            for mut client in clients {
                // It may have been the dead worker's.
                let _ = client.receive();
            }
        }
        let clients = self.crew.pool(stage, self.idle)?;
        let idle = self.crew.idle()?;
        let counts = idle.iter().map(|(pid, kept)| (*pid, kept.len()));
        let worker = busiest(&counts.collect()).context("nginx keeps no connection")?;
        self.crew.meet(stage, clients, self.method, worker, || {
            self.crew.kill(worker)
        })?;
        self.crew.serve(stage)
    }

    fn truth(&self) -> Result<Vec<Act>> {
        self.crew.truth()
    }
}
