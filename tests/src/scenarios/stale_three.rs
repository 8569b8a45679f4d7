//! Three backends in one upstream block, all with an idle timeout shorter than nginx's.
//! One request that meets the dead connections of all three disables them all: each
//! stale connection counts as a failure of its peer, and for `fail_timeout` nginx
//! answers `no live upstreams` although nothing is wrong with any of them.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::act::{Act, Expected};
use crate::backend::{Backend, Connection, Habits, IPV4, Idle, Why};
use crate::behaviour::Means;
use crate::clock::{PATIENCE, between, now_ns, sleep_until, wait_for};
use crate::draw::Draw;
use crate::load::{Client, Method, Request};
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Scenario, Stage};
use crate::sockets;
use crate::stale::{await_arrival, closed_across};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "stale_three",
    description: "stale connections disable all three peers: no live upstreams follows",
    alone: false,
    prepare,
};

const BLOCK: &str = "stale_three";
/// How often clients ask while nothing answers.
const ASK_EVERY: Duration = Duration::from_millis(350);

struct Three {
    backends: Vec<Backend>,
    idle: Idle,
    /// Method of each round's request, and the requests before it.
    rounds: Vec<(Method, usize)>,
    /// Requests that no peer was left for, and when.
    unserved: Vec<(String, u64)>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let idle = Idle {
        after: draw.milliseconds(200..=350),
        means: draw.one_of(&[Means::Fin, Means::HalfClose, Means::FinThenRst, Means::Rst]),
    };
    let habits = Habits {
        idle: Some(idle),
        ..Habits::default()
    };
    let mut backends = Vec::new();
    for _ in 0..3 {
        backends.push(Backend::start(IPV4, habits)?);
    }
    // A reset is found before anything is sent: even a POST is tried with all three.
    let methods: &[_] = if idle.means.resets() {
        &[draw.one_of(&[Method::Get, Method::Post])]
    } else {
        &[Method::Get, Method::Post]
    };
    let rounds = methods.iter().map(|method| (*method, draw.count(3..=9)));
    Ok(Box::new(Three {
        backends,
        idle,
        rounds: rounds.collect(),
        unserved: Vec::new(),
    }))
}

impl Part for Three {
    fn configure(&self, configuration: &mut Configuration) {
        let mut servers = self.backends.iter().map(|backend| {
            // nginx's own max_fails is 1.
            format!("{} fail_timeout=1s", backend.address())
        });
        let first = servers.next().unwrap_or_default();
        let upstream = Upstream::new(BLOCK, first).keepalive(8);
        let upstream = servers.fold(upstream, Upstream::and);
        configuration.upstreams.push(upstream);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        for (method, before) in self.rounds.clone() {
            self.race(stage, method, before)?;
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let mut acts = Vec::new();
        for connection in self.backends.iter().flat_map(Backend::connections) {
            let Some(end) = connection.end else { continue };
            acts.push(Act {
                upstream: connection.local.to_string(),
                nginx_end: Some(connection.remote),
                target: None,
                at_ns: end.at_ns,
                what: format!("{:?}: {:?}", end.why, end.how),
                expected: (end.why == Why::Idle)
                    .then(|| closed_across(&[], &connection, "stale-keepalive")),
            });
        }
        let unserved = |(target, at_ns): &(String, u64)| Act {
            upstream: BLOCK.to_owned(),
            nginx_end: None,
            target: Some(target.clone()),
            at_ns: *at_ns,
            what: "all peers disabled".to_owned(),
            expected: Some(Expected::new("nginx", "none", "no-live-upstreams")),
        };
        acts.extend(self.unserved.iter().map(unserved));
        Ok(acts)
    }
}

impl Three {
    /// One request that meets three dead connections, and those after it until one is
    /// answered again.
    fn race(&mut self, stage: &Stage<'_>, method: Method, before: usize) -> Result<()> {
        for backend in &self.backends {
            backend.wait_until("all connections to end", PATIENCE, |records| {
                records.iter().all(|record| !record.is_open())
            })?;
        }
        let holds = self.backends.iter();
        let mut holds: Vec<_> = holds
            .map(|backend| (backend.address(), backend.hold_closes()))
            .collect();
        let mut client = Client::connect(stage.nginx.address())?;
        let pooled = self.pool(stage, &mut client, before)?;

        let first_answer = pooled.first().and_then(Connection::last_answered_ns);
        let silence = between(first_answer.context("no answer")?, now_ns());
        let lead = self.idle.after / 4;
        sleep_until(Instant::now() + self.idle.after.saturating_sub(lead + silence));
        let stopped = stage.stop_workers()?;
        let target = stage.target(BLOCK);
        let body = if method == Method::Post { 10 } else { 0 };
        client.send(&Request {
            method,
            target: target.clone(),
            behaviour: None,
            body,
        })?;
        let ends = [(client.remote(), client.local())];
        wait_for("the request to arrive at nginx", PATIENCE, || {
            let socket = sockets::find(&ends)?[0];
            Ok(socket.filter(|socket| socket.unread > 0))
        })?;
        // In the order in which nginx will take them from its pool: one whose end it reads
        // while it is still there would be closed and no failure.
        for connection in &pooled {
            let address = connection.local;
            holds.retain(|(of, _)| *of != address);
            for backend in self.backends.iter().filter(|one| one.address() == address) {
                backend.wait_until("the close", PATIENCE, |records| {
                    records.iter().all(|record| !record.is_open())
                })?;
            }
            await_arrival(std::slice::from_ref(connection), self.idle.means)?;
        }
        drop(stopped);

        let at_ns = now_ns();
        let status = client.receive()?.status;
        // A POST that was sent is not sent again: it disables one peer and that is all.
        if status != 200 && (method == Method::Get || self.idle.means.resets()) {
            self.unserved.push((target, at_ns));
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let target = stage.target(BLOCK);
            let at_ns = now_ns();
            if client.ask(&Request::get(&target))?.status == 200 {
                return Ok(());
            }
            self.unserved.push((target, at_ns));
            if Instant::now() > deadline {
                bail!("the peers stayed disabled");
            }
            thread::sleep(ASK_EVERY);
        }
    }

    /// Asks, so often at least, until each backend has one connection in the pool of the
    /// worker that the client is connected to, and returns these, the least recently used
    /// first: so nginx will take them.
    fn pool(
        &self,
        stage: &Stage<'_>,
        client: &mut Client,
        before: usize,
    ) -> Result<Vec<Connection>> {
        // A peer that the race before disabled comes back after its fail_timeout.
        let deadline = Instant::now() + PATIENCE;
        for asked in 1.. {
            let response = client.ask(&Request::get(stage.target(BLOCK)))?;
            if response.status != 200 || !response.kept {
                bail!("a request before the race got {response:?}");
            }
            // The client may have its answer a moment before that is written down.
            for backend in &self.backends {
                backend.wait_until("the answer to be recorded", PATIENCE, |records| {
                    let mut open = records.iter().filter(|record| record.is_open());
                    open.all(|record| record.answered() == record.requests.len())
                })?;
            }
            let mut open: Vec<_> = self
                .backends
                .iter()
                .flat_map(Backend::connections)
                .filter(Connection::is_open)
                .collect();
            open.sort_by_key(Connection::last_answered_ns);
            if asked >= before && open.len() == self.backends.len() {
                return Ok(open);
            }
            if asked >= before {
                if Instant::now() > deadline {
                    break;
                }
                // Far more often than connections are closed for being idle.
                thread::sleep(Duration::from_millis(5));
            }
        }
        bail!("nginx did not pool a connection of each backend in {PATIENCE:?}")
    }
}
