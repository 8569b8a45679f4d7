//! FastCGI backends: one that is told by each request to close or reset, before its
//! answer or in its stdout stream, or to say nothing at all; one that keeps its connections for a shorter time than
//! nginx, raced by requests.

use std::time::Duration;

use anyhow::Result;

use crate::act::{Act, Constant, Expected, Value};
use crate::backend::{Backend, Habits, IPV4, Idle, Why};
use crate::behaviour::{Behaviour, Framing, Kind, Means};
use crate::draw::Draw;
use crate::load::Method;
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Ask, Part, Scenario, Stage, Told};
use crate::stale::{Race, Stale, closed_across, pooled_by};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "fastcgi",
    description: "FastCGI: closed, reset, aborted in stdout, too slow, stale with keep_conn",
    alone: false,
    prepare,
};

const KEPT: &str = "fastcgi_kept";

struct FastCgi {
    told: Told,
    kept: Backend,
    after: Duration,
    unraced: usize,
    races: Vec<Race>,
    met: Vec<Stale>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let backend = Backend::start(IPV4, Habits::default())?.over_fastcgi();
    let patience = draw.number(400..=700);
    let mut upstream = Upstream::new("fastcgi", backend.address())
        .over_fastcgi()
        .with(&format!("fastcgi_read_timeout {patience}ms;"));
    let keeps = draw.coin();
    if keeps {
        upstream = upstream.keepalive(8);
    }
    let after = draw.milliseconds(150..=350);
    let habits = Habits {
        idle: Some(Idle {
            after,
            means: draw.one_of(&[Means::Fin, Means::HalfClose, Means::FinThenRst, Means::Rst]),
        }),
        ..Habits::default()
    };
    let races = [Method::Get, Method::Post].map(|method| Race {
        location: format!("/{KEPT}/"),
        requests: draw.count(2..=4),
        method,
        served_before: draw.count(1..=3),
    });
    Ok(Box::new(FastCgi {
        told: Told::new(upstream, backend, asks(draw, keeps)),
        kept: Backend::start(IPV4, habits)?.over_fastcgi(),
        after,
        unraced: draw.count(7..=10),
        races: races.to_vec(),
        met: Vec::new(),
    }))
}

fn asks(draw: &mut Draw, keeps: bool) -> Vec<Ask> {
    let mut asks = vec![Ask::good(), Ask::good().with_body(draw.count(1..=100_000))];
    for means in [Means::Fin, Means::Rst] {
        let body = draw.count(2_000..=100_000);
        let in_body = Kind::CloseInBody {
            body,
            framing: Framing::Length,
            means,
        };
        for (kind, cause) in [
            (Kind::CloseWithoutAnswer(means), "closed-without-answer"),
            (Kind::CloseInHeader(means), "response-aborted"),
            (in_body, "response-aborted"),
        ] {
            // Without keep_conn nginx takes a FIN for the response's end, whatever its
            // length should have been: no line, and its client waits for the rest.
            if kind == in_body && means == Means::Fin && !keeps {
                continue;
            }
            let behaviour = Behaviour::of(kind).after(draw.milliseconds(10..=90));
            let expected = Expected::new("backend", means.word(), cause);
            let ask = Ask::failing(behaviour, expected);
            asks.push(ask.with_body(draw.count(1..=2000)));
            asks.push(Ask::good());
        }
    }
    // A script that says nothing: stdout ends before there is a header.
    let expected = Expected::new("nginx", "close", "response-rejected");
    asks.push(Ask::failing(Behaviour::of(Kind::AnswerNothing), expected));
    let slow = Behaviour::ANSWER.after(Duration::from_secs(600));
    let expected = Expected::new("nginx", "timeout", "read-timeout");
    asks.push(Ask::failing(slow, expected));
    asks
}

impl Part for FastCgi {
    fn configure(&self, configuration: &mut Configuration) {
        self.told.configure(configuration);
        let upstream = Upstream::new(KEPT, self.kept.address())
            .over_fastcgi()
            .keepalive(16);
        configuration.upstreams.push(upstream);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        let unraced = Race {
            location: format!("/{KEPT}/"),
            requests: self.unraced,
            method: Method::Get,
            served_before: 1,
        };
        pooled_by(stage.nginx, &unraced)?;
        self.told.drive(stage)?;
        for plan in &self.races {
            self.met.extend(stage.race(&self.kept, plan)?.stale);
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let mut acts = self.told.truth()?;
        for connection in self.kept.connections() {
            let Some(end) = connection.end else { continue };
            acts.push(Act {
                upstream: connection.local.to_string(),
                nginx_end: Some(connection.remote),
                target: None,
                at_ns: end.at_ns,
                what: format!("{:?}: {:?}", end.why, end.how),
                expected: (end.why == Why::Idle)
                    .then(|| closed_across(&self.met, &connection, "stale-keepalive")),
            });
        }
        Ok(acts)
    }

    fn constants(&self) -> Vec<Constant> {
        vec![Constant {
            upstream: self.kept.address().to_string(),
            value: Value::IdleTimeoutMs(self.after.as_secs_f64() * 1000.0),
        }]
    }
}
