//! A reload with a short `worker_shutdown_timeout` cuts the requests that old workers
//! still have. nginx writes no line of it for HTTP (ngx_http_upstream.c, nginx 1.22 and
//! 1.31): no incident may come of it, and a line there were would be nginx's own doing.

use anyhow::{Result, ensure};

use crate::act::{Act, Expected};
use crate::backend::{Backend, Connection, Why};
use crate::behaviour::{Behaviour, Kind, Means};
use crate::clock::PATIENCE;
use crate::draw::Draw;
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{InFlight, Part, Scenario, Stage, carried, closed_without_answer};
use crate::tls_backend;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "shutdown_timeout",
    description: "worker_shutdown_timeout cuts requests at a reload, without a line",
    alone: true,
    prepare,
};

const SHUTDOWN_TIMEOUT: &str = "1s";

struct Cut {
    upstream: Upstream,
    backend: Backend,
    /// Longer than old workers may stay.
    long: Vec<Behaviour>,
    /// Answered before.
    short: Vec<Behaviour>,
    failing: Vec<Behaviour>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let long = Behaviour::ANSWER.after(PATIENCE);
    let stalling = Behaviour::of(Kind::StallInBody {
        body: draw.count(5_000..=30_000),
    });
    let mut all_long = vec![long; draw.count(2..=4)];
    all_long.push(stalling);
    let close = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)).once();
    let (backend, upstream) = tls_backend::either(draw, "shutdown_timeout")?;
    Ok(Box::new(Cut {
        upstream: upstream.keepalive(8),
        backend,
        long: all_long,
        short: vec![Behaviour::ANSWER; draw.count(2..=6)],
        failing: (0..2)
            .map(|_| close.after(draw.milliseconds(50..=450)))
            .collect(),
    }))
}

impl Part for Cut {
    fn configure(&self, configuration: &mut Configuration) {
        configuration.shutdown_timeout = SHUTDOWN_TIMEOUT;
        configuration.upstreams.push(self.upstream.clone());
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        let begin = |behaviours: &[Behaviour]| {
            InFlight::begin(stage, "shutdown_timeout", &self.backend, behaviours)
        };
        for response in begin(&self.short)?.finish() {
            ensure!(response?.status == 200, "a good request was not served");
        }
        let long = begin(&self.long)?;
        stage.nginx.reload()?;
        drop(long.finish());
        self.backend
            .wait_until("nginx to give up", PATIENCE, |records| {
                let cut = |record: &&Connection| was_cut(record);
                records.iter().filter(cut).count() == self.long.len()
            })?;
        drop(begin(&self.failing)?.finish());
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        Ok(carried(&self.backend.connections(), |connection| {
            if was_cut(connection) {
                return Some(Expected::new("nginx", "close", "nginx-shutdown"));
            }
            closed_without_answer(connection)
        }))
    }
}

/// nginx went while the backend worked on a request.
fn was_cut(connection: &Connection) -> bool {
    connection
        .end
        .is_some_and(|end| end.why == Why::PeerInFlight)
}
