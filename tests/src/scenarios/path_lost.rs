//! The path to the backend is lost, and it is the kernel that gives the connections up,
//! not nginx: after its last retransmission, with ETIMEDOUT or with what a router reported
//! meanwhile. nginx and backend are in a network namespace of their own, where that takes
//! seconds and not a quarter of an hour.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::act::{Act, Expected};
use crate::backend::{Backend, Connection, Habits, IPV4};
use crate::clock::{PATIENCE, now_ns};
use crate::draw::Draw;
use crate::load::{Method, Request};
use crate::netns::{Forgotten, Middlebox, Namespace};
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Scenario, Stage};
use crate::stale::{Race, pooled_by};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "path_lost",
    description: "the kernel gives connections up: ETIMEDOUT, EHOSTUNREACH",
    alone: true,
    prepare,
};

/// How often a segment of an established connection is sent again.
const RETRIES: &str = "/proc/sys/net/ipv4/tcp_retries2";

struct Lost {
    backend: Backend,
    middlebox: Middlebox,
    // Dropped after what runs in it.
    namespace: Arc<Namespace>,
    how: Forgotten,
    requests: usize,
    lost: Vec<(Connection, u64)>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let namespace = Arc::new(Namespace::create()?);
    let backend = namespace.enter(|| {
        fs::write(RETRIES, "2").with_context(|| format!("cannot write {RETRIES}"))?;
        Backend::start(IPV4, Habits::default())
    })?;
    Ok(Box::new(Lost {
        backend,
        middlebox: Middlebox::before(&namespace)?,
        namespace,
        how: draw.one_of(&[Forgotten::Dropped, Forgotten::Unreachable]),
        requests: draw.count(3..=6),
        lost: Vec::new(),
    }))
}

impl Lost {
    fn lose(&self, stage: &Stage<'_>) -> Result<Vec<(Connection, u64)>> {
        let race = Race {
            location: "/path_lost/".to_owned(),
            requests: self.requests,
            method: Method::Post,
            served_before: 1,
        };
        let mut clients = pooled_by(stage.nginx, &race)?;
        let answered = |records: &[Connection]| records.iter().all(|record| record.answered() == 1);
        let what = "the answers before";
        let records = self.backend.wait_until(what, PATIENCE, answered)?;
        let ends: Vec<_> = records.iter().map(|record| record.remote).collect();
        ensure!(ends.len() == self.requests, "nginx keeps {ends:?}");
        self.middlebox.forget(&ends, self.how)?;
        let at_ns = now_ns();
        for client in &mut clients {
            client.send(&Request::post(stage.target("path_lost"), 100))?;
        }
        for client in &mut clients {
            let response = client.receive()?;
            ensure!(response.status == 502, "over a lost path: {response:?}");
        }
        Ok(records.into_iter().map(|record| (record, at_ns)).collect())
    }
}

impl Part for Lost {
    fn configure(&self, configuration: &mut Configuration) {
        let upstream = Upstream::new("path_lost", self.backend.address()).keepalive(16);
        configuration.upstreams.push(upstream);
    }

    fn namespace(&self) -> Option<&Namespace> {
        Some(&self.namespace)
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        self.lost = self.namespace.enter(|| self.lose(stage))?;
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let act = |(record, at_ns): &(Connection, u64)| Act {
            upstream: record.local.to_string(),
            nginx_end: Some(record.remote),
            target: None,
            at_ns: *at_ns,
            what: format!("path lost: {}", self.how),
            expected: Some(
                Expected::new("network", "timeout", "path-timeout").or_means("unreachable"),
            ),
        };
        Ok(self.lost.iter().map(act).collect())
    }
}
