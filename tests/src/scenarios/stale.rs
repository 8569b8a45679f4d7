//! The backend's idle timeout is shorter than nginx's: requests meet connections that
//! it has just closed, or reset.

use anyhow::Result;

use crate::act::{Act, Constant, Expected, Value};
use crate::backend::{Backend, Habits, IPV4, Idle, Why};
use crate::behaviour::Means;
use crate::draw::Draw;
use crate::load::Method;
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Scenario, Stage};
use crate::stale::{Race, Stale};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "stale",
    description: "idle timeout shorter than nginx's, raced by GET and POST; FIN or RST",
    alone: false,
    prepare: |draw| raced("stale", draw, |habits| Backend::start(IPV4, habits)),
};

struct Kept {
    name: &'static str,
    backend: Backend,
    idle: Idle,
    races: Vec<Race>,
    met: Vec<Stale>,
}

/// The part of this scenario, before a backend that `start` starts.
pub(super) fn raced(
    name: &'static str,
    draw: &mut Draw,
    start: impl FnOnce(Habits) -> Result<Backend>,
) -> Result<Box<dyn Part>> {
    let idle = Idle {
        after: draw.milliseconds(250..=800),
        means: draw.one_of(&[Means::Fin, Means::Rst]),
    };
    let habits = Habits {
        idle: Some(idle),
        ..Habits::default()
    };
    let races = [Method::Get, Method::Post].map(|method| Race {
        location: format!("/{name}/"),
        requests: draw.count(2..=5),
        method,
        served_before: draw.count(1..=3),
    });
    Ok(Box::new(Kept {
        name,
        backend: start(habits)?,
        idle,
        races: races.to_vec(),
        met: Vec::new(),
    }))
}

impl Part for Kept {
    fn configure(&self, configuration: &mut Configuration) {
        let upstream = Upstream::new(self.name, self.backend.address()).keepalive(16);
        configuration.upstreams.push(upstream);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        for plan in &self.races {
            self.met.extend(stage.race(&self.backend, plan)?.stale);
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let mut acts = Vec::new();
        for connection in self.backend.connections() {
            let Some(end) = connection.end else { continue };
            let (upstream, nginx_end) = (connection.local.to_string(), Some(connection.remote));
            let raced = self.met.iter().any(|stale| {
                (stale.connection.local, stale.connection.remote)
                    == (connection.local, connection.remote)
            });
            // A retry may also meet a connection whose idle time ran out by itself.
            let expected = (raced || end.why == Why::Idle).then(|| {
                let means = match self.idle.means {
                    Means::Fin => "fin",
                    Means::Rst => "rst",
                };
                Expected::new("backend", means, "stale-keepalive")
            });
            acts.push(Act {
                upstream,
                nginx_end,
                target: None,
                at_ns: end.at_ns,
                what: format!("closed: {:?}", end.why),
                expected,
            });
        }
        Ok(acts)
    }

    fn constants(&self) -> Vec<Constant> {
        vec![Constant {
            upstream: self.backend.address().to_string(),
            value: Value::IdleTimeoutMs(self.idle.after.as_secs_f64() * 1000.0),
        }]
    }
}
