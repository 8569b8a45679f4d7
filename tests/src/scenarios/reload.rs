//! nginx reloads under traffic: old workers finish what they have. Nothing fails of it
//! (control); what the backend does to requests in the old workers' hands, and what
//! happens in the new ones, is told as ever.

use std::thread;

use anyhow::{Result, ensure};

use crate::act::Act;
use crate::backend::Backend;
use crate::behaviour::{Behaviour, Kind, Means};
use crate::clock::{PATIENCE, wait_for};
use crate::draw::Draw;
use crate::load::{self, Request};
use crate::nginx::{Configuration, Upstream};
use crate::processes;
use crate::scenario::{InFlight, Part, Scenario, Stage, carried, closed_without_answer};
use crate::tls_backend;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "reload",
    description: "nginx reloads under traffic: nothing fails of it (control)",
    alone: true,
    prepare,
};

struct Reloaded {
    upstream: Upstream,
    backend: Backend,
    /// What is in the old workers' hands at each reload.
    slow: Vec<Vec<Behaviour>>,
    /// Of these each fails by the backend: at the reloads, and after the last.
    failing: Vec<Behaviour>,
    /// Good requests beside each.
    good: usize,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let slow = |draw: &mut Draw| {
        let count = draw.count(4..=8);
        let slow = (0..count).map(|_| Behaviour::ANSWER.after(draw.milliseconds(300..=800)));
        slow.collect()
    };
    let close = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)).once();
    let reloads = draw.count(1..=2);
    let (backend, upstream) = tls_backend::either(draw, "reload")?;
    Ok(Box::new(Reloaded {
        upstream: upstream.keepalive(8),
        backend,
        slow: (0..reloads).map(|_| slow(draw)).collect(),
        failing: (0..=reloads)
            .map(|_| close.after(draw.milliseconds(100..=450)))
            .collect(),
        good: draw.count(100..=300),
    }))
}

impl Reloaded {
    fn reload(&self, stage: &Stage<'_>, slow: &[Behaviour], failing: Behaviour) -> Result<()> {
        let good: Vec<_> = (0..self.good)
            .map(|_| Request::get(stage.target("reload")))
            .collect();
        let address = stage.nginx.address();
        thread::scope(|scope| {
            // Each on a connection of its own: nginx may close an idle one at any time.
            let beside = scope.spawn(|| load::run(address, &good, 4, false));
            let in_flight = InFlight::begin(stage, "reload", &self.backend, slow)?;
            let to_fail = InFlight::begin(stage, "reload", &self.backend, &[failing])?;
            let old = stage.nginx.reload()?;
            for response in in_flight.finish() {
                let response = response?;
                ensure!(response.status == 200, "a slow request got {response:?}");
            }
            // On a kept connection it is tried again.
            drop(to_fail.finish());
            let outcomes = beside.join();
            let served = |outcome: &load::Outcome| outcome.served();
            ensure!(
                outcomes.is_ok_and(|outcomes| outcomes.iter().all(served)),
                "a request beside the reload was not served"
            );
            wait_for("the old workers to go", PATIENCE, || {
                let gone = old.iter().all(|pid| !processes::is_alive(*pid));
                Ok(gone.then_some(()))
            })
        })
    }
}

impl Part for Reloaded {
    fn configure(&self, configuration: &mut Configuration) {
        // Longer than any request.
        configuration.shutdown_timeout = "60s";
        configuration.upstreams.push(self.upstream.clone());
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        for (slow, failing) in self.slow.iter().zip(&self.failing) {
            self.reload(stage, slow, *failing)?;
        }
        let last = self.failing.last().copied();
        let last = InFlight::begin(stage, "reload", &self.backend, last.as_slice())?;
        drop(last.finish());
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let connections = self.backend.connections();
        Ok(carried(&connections, closed_without_answer))
    }
}
