//! Worker processes that exit after their number of answers, as gunicorn's
//! `max_requests` has it: each finishes its answer, closes its idle connections and
//! exits with 0. Requests meet such connections.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::act::Act;
use crate::behaviour::Behaviour;
use crate::draw::Draw;
use crate::load::{Client, Method, Request};
use crate::nginx::Configuration;
use crate::process_backend::Supervision;
use crate::processes::Stopped;
use crate::scenario::{Crew, Part, Scenario, Stage};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "prefork_recycled",
    description: "workers exit with 0 after their number of requests, met by requests",
    alone: false,
    prepare,
};

/// How long a worker's last request takes: enough to stop it meanwhile.
const LAST_TAKES: Duration = Duration::from_millis(200);

struct Recycled {
    crew: Crew,
    limit: usize,
    rounds: Vec<(usize, Method)>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let methods = [Method::Get, Method::Post];
    let rounds: Vec<_> = (0..draw.count(2..=3))
        .map(|_| (draw.count(6..=8), draw.one_of(&methods)))
        .collect();
    // More than a worker gets beside, so that it is recycled when that is raced.
    let beside: usize = rounds.iter().map(|(clients, _)| 4 * clients).sum();
    let limit = draw.count(beside + 5..=beside + 20);
    let supervision = Supervision {
        workers: draw.count(2..=3),
        recycle_after: Some(limit),
        work_limit: None,
        look_every: Duration::from_secs(1),
        abort_first: false,
    };
    Ok(Box::new(Recycled {
        crew: Crew::start("prefork_recycled", supervision)?,
        limit,
        rounds,
    }))
}

impl Recycled {
    /// Answers that the worker has given.
    fn answers(&self, worker: u32) -> Result<usize> {
        let records = self.crew.backend().connections()?.into_iter();
        let its = records.filter(|(pid, _)| *pid == worker);
        Ok(its.map(|(_, record)| record.answered()).sum())
    }

    /// Sends a good request over this client's connection; the worker that answered it.
    fn one(&self, stage: &Stage<'_>, client: &mut Client) -> Result<u32> {
        let target = self.crew.target(stage, true);
        let response = client.ask(&Request::get(&target))?;
        ensure!(response.status == 200, "a good request got {response:?}");
        self.crew.answerer(&target)
    }

    fn round(&self, stage: &Stage<'_>, clients: usize, method: Method) -> Result<()> {
        let mut clients = self.crew.pool(stage, clients)?;
        let Some(mut first) = clients.pop() else {
            return Ok(());
        };
        // nginx takes the connection that it used last, so one worker gets them all, or
        // nearly: one that has not come to its last request is let go on.
        let worker = self.one(stage, &mut first)?;
        for _ in self.answers(worker)? + 1..self.limit {
            let request = Request::get(self.crew.target(stage, true));
            let response = first.ask(&request)?;
            ensure!(response.status == 200, "a good request got {response:?}");
        }
        let target = self.crew.target(stage, true);
        let last = Request::get(&target).asking(Behaviour::ANSWER.after(LAST_TAKES));
        first.send(&last)?;
        let worker = self.crew.holder(&target)?;
        // On a machine that stalls it may have gone by now, unmet.
        if let Ok(stopped) = Stopped::stop(&[worker]) {
            let last = self.answers(worker)? + 1 == self.limit;
            if last && self.crew.working()?.contains_key(&worker) {
                self.crew.meet(stage, clients, method, worker, || {
                    drop(stopped);
                    Ok(())
                })?;
            }
        }
        first.receive()?;
        // The others serve on.
        self.crew.pool(stage, self.crew.supervision().workers + 1)?;
        Ok(())
    }
}

impl Part for Recycled {
    fn configure(&self, configuration: &mut Configuration) {
        self.crew.configure(configuration);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        for (clients, method) in &self.rounds {
            self.round(stage, *clients, *method)?;
        }
        self.crew.serve(stage)
    }

    fn truth(&self) -> Result<Vec<Act>> {
        self.crew.truth()
    }
}
