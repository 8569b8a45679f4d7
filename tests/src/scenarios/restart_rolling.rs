//! Three backends of one upstream are restarted one after the other, and nginx tries
//! the next for what may be repeated, as is its default.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::act::{Act, Expected};
use crate::backend::{Habits, IPV4};
use crate::behaviour::Behaviour;
use crate::clock::{PATIENCE, now_ns, wait_for};
use crate::draw::Draw;
use crate::load::{Client, Request};
use crate::nginx::{Configuration, Upstream};
use crate::process_backend::{Death, ProcessBackend, Spec, program};
use crate::scenario::{Ended, Part, Scenario, Stage, acts};
use crate::sockets::{self, State};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "restart_rolling",
    description: "three backends restarted one after the other, nginx tries the next",
    alone: false,
    prepare,
};

/// Most requests until one comes to a certain backend: each worker of nginx goes round.
const MOST: usize = 60;

struct Rolling {
    backends: Vec<ProcessBackend>,
    order: Vec<usize>,
    keepalive: bool,
    /// Requests under way when a backend goes.
    at_work: usize,
    takes: Duration,
    /// Targets that may have been refused by this backend, and when they were sent.
    while_down: BTreeMap<String, (usize, u64)>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let spec = Spec {
        address: IPV4,
        habits: Habits::default(),
        graceful: draw.coin(),
    };
    let program = program()?;
    let backends = (0..3).map(|_| ProcessBackend::start(&program, spec));
    let mut order = vec![0, 1, 2];
    order.rotate_left(draw.count(0..=2));
    if draw.coin() {
        order.reverse();
    }
    Ok(Box::new(Rolling {
        backends: backends.collect::<Result<_>>()?,
        order,
        keepalive: draw.coin(),
        at_work: draw.count(3..=5),
        takes: draw.milliseconds(250..=400),
        while_down: BTreeMap::new(),
    }))
}

impl Rolling {
    /// Sends a good request; any backend may answer it.
    fn one(&self, stage: &Stage<'_>) -> Result<String> {
        let target = stage.target("restart_rolling");
        let response = Client::connect(stage.nginx.address())?.ask(&Request::get(&target))?;
        ensure!(response.status == 200, "{target} got {response:?}");
        Ok(target)
    }

    /// Sends good requests until this backend's process has answered one.
    fn serve(&self, stage: &Stage<'_>, at: usize) -> Result<()> {
        let backend = &self.backends[at];
        for _ in 0..MOST {
            self.one(stage)?;
            let records = backend.connections()?;
            let mut own = records.iter().filter(|(pid, _)| *pid == backend.pid());
            if own.any(|(_, record)| record.answered() > 0) {
                return Ok(());
            }
        }
        anyhow::bail!("of {MOST} requests none came to {}", backend.address())
    }

    /// Sends requests that take a while, and waits until each is worked on.
    fn at_work(&self, stage: &Stage<'_>) -> Result<Vec<Client>> {
        let behaviour = Behaviour::ANSWER.after(self.takes);
        let mut clients = Vec::new();
        let mut targets = BTreeSet::new();
        for number in 0..self.at_work {
            let target = stage.target("restart_rolling");
            let request = match number % 2 {
                0 => Request::get(&target),
                _ => Request::post(&target, 10),
            };
            let mut client = Client::connect(stage.nginx.address())?;
            client.send(&request.asking(behaviour))?;
            clients.push(client);
            targets.insert(target);
        }
        wait_for("the requests to be worked on", PATIENCE, || {
            let mut had = BTreeSet::new();
            for backend in &self.backends {
                for (_, record) in backend.connections()? {
                    had.extend(record.requests.into_iter().map(|request| request.target));
                }
            }
            Ok(targets.is_subset(&had).then_some(()))
        })?;
        Ok(clients)
    }

    fn restart(&mut self, stage: &Stage<'_>, at: usize) -> Result<()> {
        self.serve(stage, at)?;
        let clients = self.at_work(stage)?;
        let backend = &mut self.backends[at];
        let address = backend.address();
        backend.signal(Signal::TERM)?;
        backend.wait(PATIENCE)?;
        for mut client in clients {
            // A POST may have met its end.
            client.receive().context("a request that took a while")?;
        }
        // From now on nginx has only connects to try.
        wait_for("nginx to close its connections", PATIENCE, || {
            let held = sockets::towards(address)?;
            let open = |state| state == State::ESTABLISHED || state == State::CLOSE_WAIT;
            Ok((!held.iter().any(|socket| open(socket.state))).then_some(()))
        })?;
        for _ in 0..4 {
            let at_ns = now_ns();
            let target = self.one(stage)?;
            self.while_down.insert(target, (at, at_ns));
        }
        self.backends[at].restart()?;
        self.serve(stage, at)
    }
}

/// How a process ended that was told to by a SIGTERM and came back.
fn ended(death: &Death) -> Ended {
    let causes = match death.status.signal() {
        // By precedence the signal; that it was a restart is as right.
        Some(_) => vec!["backend-killed", "backend-restart"],
        None => vec!["backend-restart"],
    };
    Ended {
        pid: death.pid,
        seen_ns: death.seen_ns,
        what: format!("process {} ended: {}", death.pid, death.status),
        causes,
    }
}

impl Part for Rolling {
    fn configure(&self, configuration: &mut Configuration) {
        // With nginx's own max_fails it would leave a restarted backend out for ten seconds.
        let mut servers = self.backends.iter();
        let mut server = || {
            servers
                .next()
                .map(|one| format!("{} max_fails=0", one.address()))
        };
        let mut upstream = Upstream::new("restart_rolling", server().unwrap_or_default());
        while let Some(server) = server() {
            upstream = upstream.and(server);
        }
        if self.keepalive {
            upstream = upstream.keepalive(16);
        }
        configuration.upstreams.push(upstream);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        for at in self.order.clone() {
            self.restart(stage, at)
                .with_context(|| format!("backend {at} is restarted"))?;
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let mut found = Vec::new();
        for backend in &self.backends {
            found.extend(acts(&backend.connections()?, &BTreeSet::new(), |pid, _| {
                let mut deaths = backend.deaths().iter();
                deaths.find(|death| death.pid == pid).map(ended)
            }));
        }
        for (target, (at, at_ns)) in &self.while_down {
            found.push(Act {
                upstream: self.backends[*at].address().to_string(),
                nginx_end: None,
                target: Some(target.clone()),
                at_ns: *at_ns,
                what: "nobody listened".to_owned(),
                expected: Some(Expected::new("backend", "refused", "backend-restart")),
            });
        }
        Ok(found)
    }
}
