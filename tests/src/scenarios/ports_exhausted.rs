//! No local port is left for a connection to the backend. nginx and backend are in a
//! network namespace of their own, whose range of ports is narrowed.

use std::fs;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};

use crate::act::Act;
use crate::backend::{Backend, Connection, Habits, IPV4};
use crate::behaviour::{Behaviour, Kind};
use crate::clock::{PATIENCE, now_ns};
use crate::draw::Draw;
use crate::load::{Client, Request};
use crate::netns::Namespace;
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Scenario, Stage, without_resources};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "ports_exhausted",
    description: "every local port that connections to the backend may use is taken",
    alone: true,
    prepare,
};

const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Ports of clients, and of connections to the backend while there are enough.
const WIDE: RangeInclusive<u16> = 50_000..=60_000;
const NARROW_FROM: u16 = 40_000;

struct Exhausted {
    backend: Backend,
    // Dropped after what runs in it.
    namespace: Namespace,
    /// Ports, and so requests that are in flight meanwhile.
    ports: u16,
    failing: usize,
    good: usize,
    failed: Vec<(String, u64)>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let namespace = Namespace::create()?;
    let backend = namespace.enter(|| {
        set(WIDE)?;
        Backend::start(IPV4, Habits::default())
    })?;
    Ok(Box::new(Exhausted {
        backend,
        namespace,
        ports: draw.one_of(&[2, 4, 6, 8]),
        failing: draw.count(3..=8),
        good: draw.count(1..=5),
        failed: Vec::new(),
    }))
}

/// Narrows or widens the range of the thread's own namespace.
fn set(range: RangeInclusive<u16>) -> Result<()> {
    let text = format!("{} {}", range.start(), range.end());
    fs::write(RANGE, text).with_context(|| format!("cannot write {RANGE}"))
}

impl Part for Exhausted {
    fn configure(&self, configuration: &mut Configuration) {
        let upstream = Upstream::new("ports_exhausted", self.backend.address());
        configuration.upstreams.push(upstream);
    }

    fn namespace(&self) -> Option<&Namespace> {
        Some(&self.namespace)
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        let mut failed = Vec::new();
        self.namespace.enter(|| {
            // Clients connect while there are ports for them.
            let connect = || Client::connect(stage.nginx.address());
            let target = || stage.target("ports_exhausted");
            for _ in 0..self.good {
                let response = connect()?.ask(&Request::get(target()))?;
                ensure!(response.status == 200, "a good request got {response:?}");
            }
            let several = |count| (0..count).map(|_| connect()).collect::<Result<Vec<_>>>();
            let mut holding = several(usize::from(self.ports))?;
            let failing = several(self.failing)?;
            set(NARROW_FROM..=NARROW_FROM + self.ports - 1)?;
            let waiting = Behaviour::of(Kind::AnswerTogether { requests: 1000 });
            for client in &mut holding {
                client.send(&Request::get(target()).asking(waiting))?;
            }
            let open = |records: &[Connection]| {
                let open = records.iter().filter(|record| record.is_open());
                open.filter(|record| !record.requests.is_empty()).count() == holding.len()
            };
            let what = "requests in flight on every port";
            self.backend.wait_until(what, PATIENCE, open)?;
            for mut client in failing {
                let (target, at_ns) = (target(), now_ns());
                let response = client.ask(&Request::get(&target))?;
                ensure!(response.status == 502, "no port is free, yet: {response:?}");
                failed.push((target, at_ns));
            }
            set(WIDE)?;
            self.backend.answer_waiting(holding.len())?;
            for mut client in holding {
                let response = client.receive()?;
                ensure!(response.status == 200, "a held request got {response:?}");
            }
            Ok(())
        })?;
        self.failed = failed;
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        Ok(without_resources(
            &self.backend,
            &self.failed,
            "no local port is free",
        ))
    }
}
