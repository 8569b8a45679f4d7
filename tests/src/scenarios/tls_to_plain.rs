//! nginx speaks TLS to ports that speak plain HTTP: the lab's own backend and a real
//! nginx. Both answer 400, in plain.

use anyhow::Result;

use crate::act::{Act, Expected};
use crate::backend::{Backend, Habits, IPV4};
use crate::draw::Draw;
use crate::nginx::{Configuration, Nginx, Upstream};
use crate::scenario::{Asked, Part, Scenario, Stage, Unconnected, Unserved, Unserving};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "tls_to_plain",
    description: "https:// to ports that speak plain HTTP",
    alone: false,
    prepare,
};

struct Mismatched {
    own: Unserved,
    real: Unconnected,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    // nginx finds it, and closes.
    let expected = Expected::new("nginx", "close", "protocol-mismatch");
    let backend = Backend::start(IPV4, Habits::default())?;
    let own = Unserving {
        upstream: Upstream::new("tls_to_plain", backend.address()).over_tls(),
        backend,
        requests: draw.count(2..=4),
        expected: expected.clone(),
    };
    let nginx = Nginx::start(&Configuration::new(Vec::new()))?;
    let real = Asked {
        upstream: Upstream::new("tls_to_plain_nginx", nginx.address()).over_tls(),
        requests: draw.count(1..=3),
        status: 502,
        what: "TLS to a plain nginx",
        expected: Some(expected),
    };
    Ok(Box::new(Mismatched {
        own: Unserved::new(vec![own], None),
        real: Unconnected::new(vec![real]).keeping(nginx),
    }))
}

impl Part for Mismatched {
    fn configure(&self, configuration: &mut Configuration) {
        self.own.configure(configuration);
        self.real.configure(configuration);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        self.own.drive(stage)?;
        self.real.drive(stage)
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let mut acts = self.own.truth()?;
        acts.extend(self.real.truth()?);
        Ok(acts)
    }
}
