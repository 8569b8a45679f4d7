//! A worker of nginx's dies, or is ended, with requests in the backend's hands. It writes
//! no line about them; the other worker's requests and the new worker's are as ever.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::act::Act;
use crate::backend::Backend;
use crate::behaviour::{Behaviour, Kind, Means};
use crate::clock::{PATIENCE, wait_for};
use crate::draw::Draw;
use crate::nginx::{Configuration, Upstream};
use crate::processes;
use crate::scenario::{InFlight, Part, Scenario, Stage, carried, closed_without_answer};
use crate::tls_backend;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "worker_killed",
    description: "a worker of nginx's ends by a signal with requests in flight: no line of it",
    alone: true,
    prepare,
};

struct Killed {
    upstream: Upstream,
    backend: Backend,
    signal: Signal,
    in_flight: Vec<Behaviour>,
    failing: Vec<Behaviour>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let close = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)).once();
    let (backend, upstream) = tls_backend::either(draw, "worker_killed")?;
    Ok(Box::new(Killed {
        upstream: upstream.keepalive(8),
        backend,
        signal: draw.one_of(&[Signal::KILL, Signal::SEGV, Signal::TERM]),
        in_flight: (0..draw.count(6..=10))
            .map(|_| Behaviour::ANSWER.after(draw.milliseconds(500..=900)))
            .collect(),
        failing: (0..draw.count(3..=6))
            .map(|_| close.after(draw.milliseconds(50..=450)))
            .collect(),
    }))
}

impl Part for Killed {
    fn configure(&self, configuration: &mut Configuration) {
        configuration.upstreams.push(self.upstream.clone());
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        let begin = |behaviours: &[Behaviour]| {
            InFlight::begin(stage, "worker_killed", &self.backend, behaviours)
        };
        let in_flight = begin(&self.in_flight)?;
        let workers = stage.nginx.workers()?;
        let victim = *workers.first().context("no worker")?;
        processes::signal(victim, self.signal)?;
        wait_for("a new worker", PATIENCE, || {
            let now = stage.nginx.workers()?;
            Ok((now.len() == workers.len() && !now.contains(&victim)).then_some(()))
        })?;
        for response in in_flight.finish() {
            // The victim's clients got nothing at all.
            let served = response.is_ok_and(|response| response.status != 200);
            ensure!(!served, "a request got an error instead of silence");
        }
        drop(begin(&self.failing)?.finish());
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let connections = self.backend.connections();
        Ok(carried(&connections, closed_without_answer))
    }
}
