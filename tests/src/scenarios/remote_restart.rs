//! A backend on another machine is restarted: it closes every connection, idle ones and
//! those with a request in flight, connects are refused for a while, then it serves
//! again. Nothing of its process is seen.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::act::{Act, Expected};
use crate::backend::{Backend, Connection, Habits, Request as Served, Why};
use crate::behaviour::{Behaviour, Kind};
use crate::clock::{PATIENCE, between, now_ns};
use crate::draw::Draw;
use crate::load::{Client, Method, Request};
use crate::netns::{Namespace, Remote};
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Scenario, Stage};
use crate::stale::{Race, pooled_by};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "remote_restart",
    description: "a backend on another machine closes all, is refused, serves again",
    alone: false,
    prepare,
};

const FRESH: &str = "remote_restart";
const KEPT: &str = "remote_restart_kept";
/// Within so long all of it has to end for a restart to show.
const BURST: Duration = Duration::from_millis(900);

/// A request that is in flight when the backend ends.
#[derive(Clone, Copy)]
struct Flight {
    /// As a POST over the block that keeps connections, which nginx does not repeat.
    kept: bool,
    /// Half of the answer's body has been sent.
    in_body: bool,
}

struct Restarted {
    remote: Remote,
    backend: Option<Backend>,
    idle: usize,
    /// Silence on them before the restart.
    idle_for: Duration,
    flights: Vec<Flight>,
    refusals: usize,
    /// Records of the backend before.
    before: Vec<Connection>,
    refused: Vec<(String, u64)>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let namespace = Arc::new(Namespace::create()?);
    let address = draw.one_of(&[namespace.ipv4(), namespace.ipv6()]);
    let remote = Remote::prepare(&namespace, address)?;
    let flights = (0..draw.count(2..=4)).map(|_| Flight {
        kept: draw.coin(),
        in_body: draw.coin(),
    });
    let flights = flights.collect();
    Ok(Box::new(Restarted {
        backend: Some(remote.start(Habits::default())?),
        remote,
        idle: draw.count(2..=5),
        idle_for: draw.milliseconds(50..=400),
        flights,
        refusals: draw.count(1..=3),
        before: Vec::new(),
        refused: Vec::new(),
    }))
}

impl Restarted {
    fn backend(&self) -> Result<&Backend> {
        self.backend.as_ref().context("the backend is down")
    }

    fn serve(&self, stage: &Stage<'_>) -> Result<()> {
        for block in [FRESH, KEPT] {
            let request = Request::get(stage.target(block));
            let response = Client::connect(stage.nginx.address())?.ask(&request)?;
            ensure!(response.status == 200, "a good request got {response:?}");
        }
        Ok(())
    }

    fn fly(&self, flight: Flight, stage: &Stage<'_>) -> Result<Client> {
        let behaviour = if flight.in_body {
            Behaviour::of(Kind::StallInBody { body: 9000 })
        } else {
            Behaviour::ANSWER.after(Duration::from_secs(600))
        };
        let block = if flight.kept { KEPT } else { FRESH };
        let target = stage.target(block);
        let request = if flight.kept {
            Request::post(&target, 10)
        } else {
            Request::get(&target)
        };
        let mut client = Client::connect(stage.nginx.address())?;
        client.send(&request.asking(behaviour))?;
        let has_come = |record: &Connection| {
            record.requests.last().is_some_and(|last| {
                last.target == target && last.answer.is_some() == flight.in_body
            })
        };
        self.backend()?
            .wait_until("a request to be in flight", PATIENCE, |records| {
                records.iter().any(has_come)
            })?;
        Ok(client)
    }
}

impl Part for Restarted {
    fn configure(&self, configuration: &mut Configuration) {
        let address = self.remote.address();
        let upstreams = [
            Upstream::new(FRESH, address),
            Upstream::new(KEPT, address).keepalive(16),
        ];
        configuration.upstreams.extend(upstreams);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        self.serve(stage)?;
        let clients = self
            .flights
            .iter()
            .map(|flight| self.fly(*flight, stage))
            .collect::<Result<Vec<_>>>()?;
        let idle = pooled_by(
            stage.nginx,
            &Race {
                location: format!("/{KEPT}/"),
                requests: self.idle,
                method: Method::Get,
                served_before: 1,
            },
        )?;
        std::thread::sleep(self.idle_for);
        let backend = self.backend.take().context("the backend is down")?;
        self.before = backend.stop();
        for mut client in clients {
            // What it gets, if anything, is not the point: that it is over is.
            let _ = client.receive();
        }
        drop(idle);
        for _ in 0..self.refusals {
            let target = stage.target(FRESH);
            let at_ns = now_ns();
            let response = Client::connect(stage.nginx.address())?.ask(&Request::get(&target))?;
            ensure!(response.status == 502, "nobody listens, yet: {response:?}");
            self.refused.push((target, at_ns));
        }
        self.backend = Some(self.remote.start(Habits::default())?);
        self.serve(stage)
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let upstream = self.remote.address().to_string();
        let ends: Vec<_> = self
            .before
            .iter()
            .filter(|record| record.closed_because(Why::Stopped))
            .filter_map(|record| record.end)
            .map(|end| end.at_ns)
            .collect();
        let (first, last) = (ends.iter().min(), ends.iter().max());
        let at_once = first
            .zip(last)
            .is_some_and(|(&first, &last)| between(first, last) < BURST);
        let now = self.backend()?.connections();
        let restart = || Expected::new("backend", "fin", "backend-restart");
        let mut acts = Vec::new();
        for record in self.before.iter().chain(&now) {
            let act = |target: Option<&Served>, at_ns, what: String, expected| Act {
                upstream: upstream.clone(),
                nginx_end: Some(record.remote),
                target: target.map(|request| request.target.clone()),
                at_ns,
                what: format!("restart of a remote backend: {what}"),
                expected,
            };
            let stopped = record.end.filter(|_| record.closed_because(Why::Stopped));
            let mut was_idle = true;
            for request in &record.requests {
                let met = stopped.filter(|_| request.answered_ns().is_none());
                was_idle &= met.is_none();
                let expected = met.map(|_| match (at_once, request.answer) {
                    (true, _) => restart(),
                    // Too slow a machine: it does not show.
                    (false, None) => restart().or_cause("closed-without-answer"),
                    (false, Some(_)) => restart().or_cause("response-aborted"),
                });
                let at_ns = met.map_or(request.read_ns, |end| end.at_ns);
                let what = request.behaviour.to_string();
                acts.push(act(Some(request), at_ns, what, expected));
            }
            // A request may meet it while nginx's workers are stopped.
            if let Some(end) = stopped.filter(|_| was_idle) {
                let expected = Some(restart().or_cause("stale-keepalive"));
                acts.push(act(None, end.at_ns, "idle".to_owned(), expected));
            }
        }
        acts.extend(self.refused.iter().map(|(target, at_ns)| Act {
            upstream: upstream.clone(),
            nginx_end: None,
            target: Some(target.clone()),
            at_ns: *at_ns,
            what: "refused while a remote backend restarts".to_owned(),
            expected: Some(Expected::new("backend", "refused", "backend-restart")),
        }));
        Ok(acts)
    }
}
