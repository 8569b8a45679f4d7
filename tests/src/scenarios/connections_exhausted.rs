//! nginx's worker has none of its `worker_connections` left for one to the backend.

use std::fs;
use std::io::Write;
use std::net::TcpStream;

use anyhow::{Result, ensure};

use super::descriptors_exhausted::open_descriptors;
use crate::act::Act;
use crate::backend::{Backend, Habits, IPV4};
use crate::clock::{PATIENCE, now_ns, wait_for};
use crate::draw::Draw;
use crate::load::{Client, Request};
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Scenario, Stage, without_resources};
use crate::sockets;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "connections_exhausted",
    description: "the worker has used up its worker_connections",
    alone: true,
    prepare,
};

struct Exhausted {
    backend: Backend,
    worker_connections: u32,
    good: usize,
    failing: usize,
    failed: Vec<(String, u64)>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    Ok(Box::new(Exhausted {
        backend: Backend::start(IPV4, Habits::default())?,
        worker_connections: if draw.coin() { 16 } else { 25 },
        good: draw.count(1..=5),
        failing: draw.count(3..=8),
        failed: Vec::new(),
    }))
}

impl Exhausted {
    /// Clients that have sent half a request's head, so that nginx closes none of them
    /// for the sake of another, until it accepts no more.
    fn fill(&self, stage: &Stage<'_>) -> Result<Vec<TcpStream>> {
        let mut filling = Vec::new();
        loop {
            let mut client = TcpStream::connect(stage.nginx.address())?;
            let ends = (stage.nginx.address(), client.local_addr()?);
            client.write_all(b"GET /filling HTTP/1.1\r\n")?;
            let accepted = wait_for("a client to be accepted or not", PATIENCE, || {
                // What nginx has read it has accepted.
                if let [Some(socket)] = sockets::find(&[ends])?.as_slice()
                    && socket.unread == 0
                {
                    return Ok(Some(true));
                }
                let log = fs::read_to_string(stage.nginx.error_log())?;
                let full = log.contains("worker_connections are not enough");
                Ok(full.then_some(false))
            })?;
            if !accepted {
                return Ok(filling);
            }
            filling.push(client);
        }
    }
}

impl Part for Exhausted {
    fn configure(&self, configuration: &mut Configuration) {
        configuration.workers = 1;
        configuration.worker_connections = self.worker_connections;
        let upstream = Upstream::new("connections_exhausted", self.backend.address());
        configuration.upstreams.push(upstream);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        let mut served = Vec::new();
        for _ in 0..self.good {
            let request = Request::get(stage.target("connections_exhausted"));
            let mut client = Client::connect(stage.nginx.address())?;
            served.push((stage.nginx.address(), client.local()));
            let response = client.ask(&request)?;
            ensure!(response.status == 200, "a good request got {response:?}");
        }
        wait_for("nginx to have closed what it served", PATIENCE, || {
            let gone = sockets::find(&served)?.iter().all(Option::is_none);
            Ok(gone.then_some(()))
        })?;
        let mut filling = self.fill(stage)?;
        let full = open_descriptors(stage.nginx)?;
        // One connection for a client, none for the backend.
        filling.pop();
        wait_for("a connection to be free", PATIENCE, || {
            Ok((open_descriptors(stage.nginx)? < full).then_some(()))
        })?;
        while self.failed.len() < self.failing {
            let (target, at_ns) = (stage.target("connections_exhausted"), now_ns());
            let response = Client::connect(stage.nginx.address())?.ask(&Request::get(&target))?;
            ensure!(
                response.status == 500,
                "no connection is left: {response:?}"
            );
            self.failed.push((target, at_ns));
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        Ok(without_resources(
            &self.backend,
            &self.failed,
            "the worker has no connection left",
        ))
    }
}
