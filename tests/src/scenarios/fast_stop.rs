//! nginx is stopped at once (SIGTERM or SIGINT to its master) with requests in the
//! backend's hands: its workers write no line about them. What failed before is told.

use anyhow::{Result, ensure};
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
    name: "fast_stop",
    description: "nginx is stopped at once with requests in flight: no line of it (control)",
    alone: true,
    prepare,
};

struct Stopped {
    upstream: Upstream,
    backend: Backend,
    signal: Signal,
    in_flight: Vec<Behaviour>,
    failing: Vec<Behaviour>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let close = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)).once();
    let body = draw.count(5_000..=30_000);
    let mut in_flight = vec![Behaviour::ANSWER.after(PATIENCE); draw.count(3..=8)];
    in_flight.push(Behaviour::of(Kind::StallInBody { body }));
    let (backend, upstream) = tls_backend::either(draw, "fast_stop")?;
    Ok(Box::new(Stopped {
        upstream: upstream.keepalive(8),
        backend,
        signal: draw.one_of(&[Signal::TERM, Signal::INT]),
        in_flight,
        failing: (0..draw.count(2..=4))
            .map(|_| close.after(draw.milliseconds(50..=450)))
            .collect(),
    }))
}

impl Part for Stopped {
    fn configure(&self, configuration: &mut Configuration) {
        configuration.upstreams.push(self.upstream.clone());
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        let begin = |behaviours: &[Behaviour]| {
            InFlight::begin(stage, "fast_stop", &self.backend, behaviours)
        };
        drop(begin(&self.failing)?.finish());
        let in_flight = begin(&self.in_flight)?;
        processes::signal(stage.nginx.master_pid(), self.signal)?;
        wait_for("nginx to end", PATIENCE, || {
            Ok((!processes::is_alive(stage.nginx.master_pid())).then_some(()))
        })?;
        for response in in_flight.finish() {
            let complete = response.is_ok_and(|response| response.complete);
            ensure!(!complete, "a request in flight was answered");
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let connections = self.backend.connections();
        Ok(carried(&connections, closed_without_answer))
    }
}
