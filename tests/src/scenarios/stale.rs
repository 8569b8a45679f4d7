//! The backend's idle timeout is shorter than nginx's: requests meet connections that it
//! has just ended. Four backends, each with its own way: a close, whose FIN the host
//! follows up with an RST once the request has crossed it; a lingering close, which
//! takes the request and stays silent; a FIN and an RST; an RST alone.

use std::time::Duration;

use anyhow::Result;

use crate::act::{Act, Constant, Value};
use crate::backend::{Backend, Habits, IPV4, Idle, Why};
use crate::behaviour::Means;
use crate::draw::Draw;
use crate::load::Method;
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Scenario, Stage};
use crate::stale::{Race, Stale, closed_across, pooled_by};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "stale",
    description: "idle timeout shorter than nginx's, raced by GET and POST; FIN, RST, both",
    alone: false,
    prepare,
};

/// One backend behind its own upstream block.
struct Kept {
    block: &'static str,
    backend: Backend,
    after: Duration,
    /// Connections that nobody races: by them the idle time can be seen even where a
    /// busy machine delays the raced ones.
    unraced: usize,
    races: Vec<Race>,
    met: Vec<Stale>,
}

/// All of a scenario's.
struct All(Vec<Kept>);

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let mut all = Vec::new();
    for (block, means) in [
        ("stale_closed", Means::Fin),
        ("stale_half_closed", Means::HalfClose),
        ("stale_closed_reset", Means::FinThenRst),
        ("stale_reset", Means::Rst),
    ] {
        all.push(Kept::start(block, means, draw, |habits| {
            Backend::start(IPV4, habits)
        })?);
    }
    Ok(Box::new(All(all)))
}

/// The part of one block, before a backend that `start` starts.
pub(super) fn raced(
    block: &'static str,
    draw: &mut Draw,
    start: impl FnOnce(Habits) -> Result<Backend>,
) -> Result<Box<dyn Part>> {
    let means = draw.one_of(&[Means::Fin, Means::HalfClose, Means::FinThenRst, Means::Rst]);
    Ok(Box::new(All(vec![Kept::start(block, means, draw, start)?])))
}

impl Kept {
    fn start(
        block: &'static str,
        means: Means,
        draw: &mut Draw,
        start: impl FnOnce(Habits) -> Result<Backend>,
    ) -> Result<Self> {
        let after = draw.milliseconds(150..=350);
        let habits = Habits {
            idle: Some(Idle { after, means }),
            ..Habits::default()
        };
        let races = [Method::Get, Method::Post].map(|method| Race {
            location: format!("/{block}/"),
            requests: draw.count(2..=4),
            method,
            served_before: draw.count(1..=3),
        });
        Ok(Self {
            block,
            backend: start(habits)?,
            after,
            unraced: draw.count(7..=10),
            races: races.to_vec(),
            met: Vec::new(),
        })
    }
}

impl Part for All {
    fn configure(&self, configuration: &mut Configuration) {
        for kept in &self.0 {
            let upstream = Upstream::new(kept.block, kept.backend.address()).keepalive(16);
            configuration.upstreams.push(upstream);
        }
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        for kept in &self.0 {
            let unraced = Race {
                location: format!("/{}/", kept.block),
                requests: kept.unraced,
                method: Method::Get,
                served_before: 1,
            };
            pooled_by(stage.nginx, &unraced)?;
        }
        for kept in &mut self.0 {
            for plan in &kept.races {
                kept.met.extend(stage.race(&kept.backend, plan)?.stale);
            }
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        Ok(self.0.iter().flat_map(Kept::acts).collect())
    }

    fn constants(&self) -> Vec<Constant> {
        let constant = |kept: &Kept| Constant {
            upstream: kept.backend.address().to_string(),
            value: kept.idle_timeout(),
        };
        self.0.iter().map(constant).collect()
    }
}

impl Kept {
    /// As configured, and as it turned out.
    fn idle_timeout(&self) -> Value {
        let timeout = self.after.as_secs_f64() * 1000.0;
        let (mut least, mut most) = (timeout, timeout);
        for connection in self.backend.connections() {
            let idle = connection.end.filter(|end| end.why == Why::Idle);
            let answered = connection.last_answered_ns();
            if let (Some(end), Some(answered_ns)) = (idle, answered) {
                let after = Duration::from_nanos(end.at_ns.saturating_sub(answered_ns));
                let after = after.as_secs_f64() * 1000.0;
                (least, most) = (least.min(after), most.max(after));
            }
        }
        Value::KeptMs {
            timeout,
            least,
            most,
        }
    }

    fn acts(&self) -> Vec<Act> {
        let mut acts = Vec::new();
        for connection in self.backend.connections() {
            let Some(end) = connection.end else { continue };
            // By design, or by chance: a retry may meet one whose idle time ran out too.
            let expected = (end.why == Why::Idle)
                .then(|| closed_across(&self.met, &connection, "stale-keepalive"));
            acts.push(Act {
                upstream: connection.local.to_string(),
                nginx_end: Some(connection.remote),
                target: None,
                at_ns: end.at_ns,
                what: format!("{:?}: {:?}", end.why, end.how),
                expected,
            });
        }
        acts
    }
}
