//! As `stale`, over TLS: a FIN, a close_notify and a FIN, or an RST.

use anyhow::Result;

use crate::act::{Act, Constant, Value};
use crate::backend::{Backend, Habits, IPV4, Idle, Why};
use crate::behaviour::Means;
use crate::draw::Draw;
use crate::load::Method;
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Scenario, Stage};
use crate::stale::{Race, Stale, closed_across, pooled_by};
use crate::tls_backend::{Authority, Tls, Validity, Version};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "tls_stale",
    description: "idle timeout raced over TLS 1.2 and 1.3; FIN, close_notify or RST",
    alone: false,
    prepare,
};

struct Kept {
    sides: Vec<Side>,
}

struct Side {
    upstream: Upstream,
    backend: Backend,
    idle: Idle,
    /// Connections that nobody races: by them the idle time can be seen even where a
    /// busy machine delays the raced ones.
    unraced: Race,
    races: Vec<Race>,
    met: Vec<Stale>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let identity = Authority::new("lab authority")?.issue("lab.test", Validity::Now)?;
    let mut sides = Vec::new();
    for version in Version::ALL {
        let idle = Idle {
            after: draw.milliseconds(150..=350),
            means: draw.one_of(&[Means::Fin, Means::Fin, Means::HalfClose, Means::Rst]),
        };
        let habits = Habits {
            idle: Some(idle),
            ..Habits::default()
        };
        let tls = Tls::new(&identity, &[version])?.farewell(draw.coin());
        let backend = Backend::start_tls(IPV4, habits, tls)?;
        let name = format!("tls_stale_{version:?}");
        let race = |draw: &mut Draw, method| Race {
            location: format!("/{name}/"),
            requests: draw.count(2..=4),
            method,
            served_before: draw.count(1..=3),
        };
        let unraced = Race {
            requests: draw.count(7..=10),
            served_before: 1,
            ..race(draw, Method::Get)
        };
        let races = vec![race(draw, Method::Get), race(draw, Method::Post)];
        let upstream = Upstream::new(name, backend.address())
            .keepalive(16)
            .over_tls()
            .with(&format!("proxy_ssl_protocols {};", version.name()));
        sides.push(Side {
            upstream,
            backend,
            idle,
            unraced,
            races,
            met: Vec::new(),
        });
    }
    Ok(Box::new(Kept { sides }))
}

impl Part for Kept {
    fn configure(&self, configuration: &mut Configuration) {
        let upstreams = self.sides.iter().map(|side| side.upstream.clone());
        configuration.upstreams.extend(upstreams);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        for side in &self.sides {
            pooled_by(stage.nginx, &side.unraced)?;
        }
        for side in &mut self.sides {
            for plan in &side.races {
                side.met.extend(stage.race(&side.backend, plan)?.stale);
            }
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        Ok(self.sides.iter().flat_map(Side::acts).collect())
    }

    fn constants(&self) -> Vec<Constant> {
        let constant = |side: &Side| Constant {
            upstream: side.backend.address().to_string(),
            value: Value::IdleTimeoutMs(side.idle.after.as_secs_f64() * 1000.0),
        };
        self.sides.iter().map(constant).collect()
    }
}

impl Side {
    fn acts(&self) -> Vec<Act> {
        let mut acts = Vec::new();
        for connection in self.backend.connections() {
            let Some(end) = connection.end else { continue };
            let farewell = connection.tls.as_ref().is_some_and(|tls| tls.farewell);
            // By design, or by chance: a retry may meet one whose idle time ran out too.
            let expected = (end.why == Why::Idle)
                .then(|| closed_across(&self.met, &connection, "stale-keepalive"));
            acts.push(Act {
                upstream: connection.local.to_string(),
                nginx_end: Some(connection.remote),
                target: None,
                at_ns: end.at_ns,
                what: format!("closed: {:?}, close_notify: {farewell}", end.why),
                expected,
            });
        }
        acts
    }
}
