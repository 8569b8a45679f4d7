//! The backend ends the connection in a body that nginx cannot hand on, because its
//! client does not read: the line comes when the client reads on, long after the end.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::act::{Act, Expected};
use crate::backend::{Backend, Connection, Habits, IPV4};
use crate::behaviour::{Behaviour, Framing, Kind, Means};
use crate::clock::PATIENCE;
use crate::draw::Draw;
use crate::load::{Client, Request};
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Scenario, Stage};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "slow_client",
    description: "reset in a body that a slow client has not read: the line comes late",
    alone: false,
    prepare,
};

const BLOCK: &str = "slow_client";
/// Between two reads of the client: slower than nginx and the backend by far.
const READ_EVERY: Duration = Duration::from_millis(2);

struct Slow {
    backend: Backend,
    /// What the backend does, and how long the client does not read after that.
    plans: Vec<(Behaviour, Means, Duration)>,
    sent: Vec<(String, Means)>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let plans = [Means::Rst, draw.one_of(&[Means::Rst, Means::Fin])].map(|means| {
        let kind = Kind::CloseInBody {
            // More than all buffers between backend and client take.
            body: draw.count(30_000_000..=40_000_000),
            framing: Framing::Length,
            means,
        };
        (Behaviour::of(kind), means, draw.milliseconds(300..=1200))
    });
    Ok(Box::new(Slow {
        backend: Backend::start(IPV4, Habits::default())?,
        plans: plans.to_vec(),
        sent: Vec::new(),
    }))
}

impl Part for Slow {
    fn configure(&self, configuration: &mut Configuration) {
        let upstream = Upstream::new(BLOCK, self.backend.address()).with("proxy_buffering off;");
        configuration.upstreams.push(upstream);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        for (behaviour, means, pause) in &self.plans {
            let target = stage.target(BLOCK);
            let mut client = Client::connect(stage.nginx.address())?;
            client.send(&Request::get(&target).asking(*behaviour))?;
            let ended = |records: &[Connection]| {
                records.iter().any(|record| {
                    let last = record.requests.last();
                    last.is_some_and(|last| last.target == target) && !record.is_open()
                })
            };
            let deadline = Instant::now() + PATIENCE;
            while !ended(&self.backend.connections()) {
                ensure!(Instant::now() < deadline, "the backend never ended");
                // On a machine that stalls, it may come to the end first.
                if client.receive_part(100_000).is_err() {
                    break;
                }
                thread::sleep(READ_EVERY);
            }
            thread::sleep(*pause);
            client.drain()?;
            self.sent.push((target, *means));
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let act = |connection: &Connection| {
            let request = connection.requests.last()?;
            let sent = self
                .sent
                .iter()
                .find(|(target, _)| *target == request.target);
            Some(Act {
                upstream: connection.local.to_string(),
                nginx_end: Some(connection.remote),
                target: Some(request.target.clone()),
                at_ns: connection.end?.at_ns,
                what: request.behaviour.to_string(),
                expected: sent
                    .map(|(_, means)| Expected::new("backend", means.word(), "response-aborted")),
            })
        };
        Ok(self.backend.connections().iter().filter_map(act).collect())
    }
}
