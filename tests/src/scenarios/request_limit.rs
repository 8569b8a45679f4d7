//! The backend closes each connection, unannounced, after a number of requests; some
//! closes are raced by the next request.

use anyhow::Result;

use crate::act::{Act, Constant, Value};
use crate::backend::{Backend, Connection, Habits, IPV4, Idle, Why};
use crate::behaviour::Means;
use crate::draw::Draw;
use crate::load::{Method, Request, run};
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Scenario, Stage};
use crate::stale::{Race, Stale, closed_across};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "request_limit",
    description: "the backend closes after a number of requests, raced by GET and POST",
    alone: false,
    prepare,
};

const BLOCK: &str = "request_limit";

struct Limited {
    backend: Backend,
    limit: usize,
    unraced: usize,
    races: Vec<Race>,
    met: Vec<Stale>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let limit = draw.count(3..=12);
    let habits = Habits {
        request_limit: Some(limit),
        // For the last connection of the unraced ones, which may not reach the limit.
        idle: Some(Idle {
            after: draw.milliseconds(600..=900),
            means: Means::Fin,
        }),
        ..Habits::default()
    };
    let races = [Method::Get, Method::Post].map(|method| Race {
        location: format!("/{BLOCK}/"),
        requests: draw.count(2..=4),
        method,
        served_before: limit,
    });
    Ok(Box::new(Limited {
        backend: Backend::start(IPV4, habits)?,
        limit,
        unraced: limit * draw.count(4..=8),
        races: races.to_vec(),
        met: Vec::new(),
    }))
}

impl Part for Limited {
    fn configure(&self, configuration: &mut Configuration) {
        let upstream = Upstream::new(BLOCK, self.backend.address()).keepalive(16);
        configuration.upstreams.push(upstream);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        let requests: Vec<_> = (0..self.unraced)
            .map(|_| Request::get(stage.target(BLOCK)))
            .collect();
        // One after the other on one client connection: one upstream connection at a time.
        let _ = run(stage.nginx.address(), &requests, 1, true);
        for plan in &self.races {
            self.met.extend(stage.race(&self.backend, plan)?.stale);
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let act = |connection: &Connection| {
            let end = connection.end?;
            let cause = match end.why {
                Why::RequestLimit => Some("request-limit"),
                Why::Idle => Some("stale-keepalive"),
                _ => None,
            };
            Some(Act {
                upstream: connection.local.to_string(),
                nginx_end: Some(connection.remote),
                target: None,
                at_ns: end.at_ns,
                what: format!("{:?} after {} answers", end.why, connection.answered()),
                // Whichever request meets it, by design or by chance.
                expected: cause.map(|cause| closed_across(&self.met, connection, cause)),
            })
        };
        Ok(self.backend.connections().iter().filter_map(act).collect())
    }

    fn constants(&self) -> Vec<Constant> {
        vec![Constant {
            upstream: self.backend.address().to_string(),
            value: Value::RequestLimit(u32::try_from(self.limit).unwrap_or(u32::MAX)),
        }]
    }
}
