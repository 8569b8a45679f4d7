//! Connections that switched protocols. Either end may close: that is how they end. The
//! backend resets: that is a failure. Nobody speaks: nginx's timer, logged as
//! information only.

use anyhow::{Result, ensure};

use crate::act::{Act, Expected};
use crate::backend::{Backend, Connection, Habits, IPV4};
use crate::behaviour::{Behaviour, Kind, Means};
use crate::clock::PATIENCE;
use crate::draw::Draw;
use crate::load::{Client, Request};
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Scenario, Stage};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "websocket",
    description: "upgraded connections: closed by either end, reset by the backend, silent",
    alone: false,
    prepare,
};

const BLOCK: &str = "websocket";

/// How one connection ends, after some messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Client(Means),
    Backend(Means),
    Timer,
}

struct Upgraded {
    backend: Backend,
    patience_ms: u64,
    plans: Vec<(Ends, usize)>,
    reset: Vec<String>,
    timed_out: Vec<String>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let plans = [
        Ends::Client(Means::Fin),
        Ends::Backend(Means::Fin),
        Ends::Backend(Means::Rst),
        Ends::Client(Means::Rst),
        Ends::Backend(Means::HalfClose),
        Ends::Backend(Means::Rst),
        Ends::Timer,
    ]
    .map(|ends| (ends, draw.count(1..=5)));
    Ok(Box::new(Upgraded {
        backend: Backend::start(IPV4, Habits::default())?,
        patience_ms: draw.number(400..=900),
        plans: plans.to_vec(),
        reset: Vec::new(),
        timed_out: Vec::new(),
    }))
}

impl Part for Upgraded {
    fn configure(&self, configuration: &mut Configuration) {
        let upstream = Upstream::new(BLOCK, self.backend.address())
            .upgrading()
            .with(&format!("proxy_read_timeout {}ms;", self.patience_ms));
        configuration.upstreams.push(upstream);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        for (ends, messages) in self.plans.clone() {
            let target = stage.target(BLOCK);
            let ended_by = match ends {
                Ends::Backend(means) => Some(means),
                Ends::Client(_) | Ends::Timer => None,
            };
            let mut client = Client::connect(stage.nginx.address())?;
            let behaviour = Behaviour::of(Kind::Upgrade { ended_by });
            client.upgrade(&Request::get(&target).asking(behaviour))?;
            match ends {
                Ends::Client(means) => {
                    for _ in 0..messages {
                        client.echo(b"a message")?;
                    }
                    client.abort(means)?;
                }
                Ends::Backend(means) => {
                    // What was echoed just before a reset may be lost on nginx's way.
                    let echoed = client.echo(b"the last message");
                    ensure!(means.resets() || echoed.is_ok(), "{echoed:?}");
                    client.drain()?;
                    if means.resets() {
                        self.reset.push(target);
                    }
                }
                Ends::Timer => {
                    for _ in 0..messages {
                        client.echo(b"a message")?;
                    }
                    client.drain()?;
                    self.timed_out.push(target);
                }
            }
        }
        self.backend.wait_until("all ends", PATIENCE, |records| {
            records.iter().all(|record| !record.is_open())
        })?;
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let act = |connection: &Connection| {
            let request = connection.requests.last()?;
            let end = connection.end?;
            let expected = if self.reset.contains(&request.target) {
                Some(Expected::new("backend", "rst", "response-aborted"))
            } else if self.timed_out.contains(&request.target) {
                Some(Expected::new("nginx", "timeout", "read-timeout"))
            } else {
                None
            };
            Some(Act {
                upstream: connection.local.to_string(),
                nginx_end: Some(connection.remote),
                target: Some(request.target.clone()),
                at_ns: end.at_ns,
                what: format!("{}: {:?} {:?}", request.behaviour, end.how, end.why),
                expected,
            })
        };
        Ok(self.backend.connections().iter().filter_map(act).collect())
    }
}
