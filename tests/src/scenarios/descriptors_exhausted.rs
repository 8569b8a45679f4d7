//! nginx's worker has no descriptor left for a connection to the backend.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::act::Act;
use crate::backend::{Backend, Connection, Habits, IPV4};
use crate::behaviour::{Behaviour, Kind};
use crate::clock::{PATIENCE, now_ns, wait_for};
use crate::draw::Draw;
use crate::load::{Client, Request};
use crate::nginx::{Configuration, Nginx, Upstream};
use crate::scenario::{Part, Scenario, Stage, without_resources};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "descriptors_exhausted",
    description: "the worker has used up its file descriptors",
    alone: true,
    prepare,
};

/// `worker_rlimit_nofile`.
const LIMIT: usize = 64;

struct Exhausted {
    backend: Backend,
    /// Requests that get a descriptor before there are none.
    spare: usize,
    failing: usize,
    failed: Vec<(String, u64)>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    Ok(Box::new(Exhausted {
        backend: Backend::start(IPV4, Habits::default())?,
        spare: draw.count(1..=6),
        failing: draw.count(3..=8),
        failed: Vec::new(),
    }))
}

/// Descriptors that the only worker has open.
pub(super) fn open_descriptors(nginx: &Nginx) -> Result<usize> {
    let workers = nginx.workers()?;
    let [worker] = workers.as_slice() else {
        anyhow::bail!("nginx has not one worker: {workers:?}");
    };
    let folder = format!("/proc/{worker}/fd");
    Ok(fs::read_dir(&folder).context(folder)?.count())
}

impl Part for Exhausted {
    fn configure(&self, configuration: &mut Configuration) {
        configuration.workers = 1;
        configuration.worker_connections = 1024;
        configuration.main += &format!("worker_rlimit_nofile {LIMIT};\n");
        let upstream = Upstream::new("descriptors_exhausted", self.backend.address());
        configuration.upstreams.push(upstream);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        // Each of these has been answered, so it has a descriptor of the worker's.
        let mut clients = Vec::new();
        while open_descriptors(stage.nginx)? + self.spare < LIMIT {
            let target = stage.target("descriptors_exhausted");
            let mut client = Client::connect(stage.nginx.address())?;
            let response = client.ask(&Request::get(target))?;
            ensure!(response.status == 200, "a good request got {response:?}");
            clients.push(client);
            let closed = |records: &[Connection]| records.iter().all(|one| !one.is_open());
            self.backend
                .wait_until("the end of the request", PATIENCE, closed)?;
        }
        // With the last descriptors gone each failure, after which nginx closes the
        // client's connection, leaves one to the next request.
        let waiting = Behaviour::of(Kind::AnswerTogether { requests: 1000 });
        let mut holding = Vec::new();
        for mut client in clients {
            if self.failed.len() == self.failing {
                break;
            }
            let (target, at_ns) = (stage.target("descriptors_exhausted"), now_ns());
            client.send(&Request::get(&target).asking(waiting))?;
            let is_held = wait_for("a request to be held or to fail", PATIENCE, || {
                let records = self.backend.connections();
                let mut requests = records.iter().flat_map(|record| &record.requests);
                if requests.any(|request| request.target == target) {
                    return Ok(Some(true));
                }
                let lines = stage.nginx.upstream_lines()?;
                let request = format!("GET {target} HTTP/");
                let failed = lines.iter().any(|line| line.contains(&request));
                Ok(failed.then_some(false))
            })?;
            if is_held {
                holding.push(client);
                continue;
            }
            let response = client.receive()?;
            ensure!(
                response.status == 500,
                "no descriptor is left: {response:?}"
            );
            self.failed.push((target, at_ns));
        }
        ensure!(!self.failed.is_empty(), "every request got a descriptor");
        self.backend.answer_waiting(holding.len())?;
        for mut client in holding {
            let response = client.receive()?;
            ensure!(response.status == 200, "a held request got {response:?}");
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        Ok(without_resources(
            &self.backend,
            &self.failed,
            "the worker has no descriptor left",
        ))
    }
}
