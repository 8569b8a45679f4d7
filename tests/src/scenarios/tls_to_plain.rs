//! nginx speaks TLS to ports that speak plain HTTP: the lab's own backend and a real
//! nginx. Both answer 400, in plain.

use anyhow::{Result, ensure};

use crate::act::{Act, Expected};
use crate::backend::{Backend, Habits, IPV4};
use crate::clock::now_ns;
use crate::draw::Draw;
use crate::load::{Client, Request};
use crate::nginx::{Configuration, Nginx, Upstream};
use crate::scenario::{Part, Scenario, Stage, Unserved, Unserving};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "tls_to_plain",
    description: "https:// to ports that speak plain HTTP",
    alone: false,
    prepare,
};

const TO_NGINX: &str = "tls_to_plain_nginx";

struct Mismatched {
    own: Unserved,
    real: Nginx,
    requests: usize,
    sent: Vec<(String, u64)>,
}

/// nginx found it; the means of the end are none of the mismatch.
fn expected() -> Expected {
    Expected::new("nginx", "close", "protocol-mismatch")
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let backend = Backend::start(IPV4, Habits::default())?;
    let own = Unserving {
        upstream: Upstream::new("tls_to_plain", backend.address()).over_tls(),
        backend,
        requests: draw.count(2..=4),
        expected: expected(),
    };
    Ok(Box::new(Mismatched {
        own: Unserved::new(vec![own], None),
        real: Nginx::start(&Configuration::new(Vec::new()))?,
        requests: draw.count(1..=3),
        sent: Vec::new(),
    }))
}

impl Part for Mismatched {
    fn configure(&self, configuration: &mut Configuration) {
        self.own.configure(configuration);
        let upstream = Upstream::new(TO_NGINX, self.real.address()).over_tls();
        configuration.upstreams.push(upstream);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        self.own.drive(stage)?;
        for _ in 0..self.requests {
            let target = stage.target(TO_NGINX);
            let at_ns = now_ns();
            let response = Client::connect(stage.nginx.address())?.ask(&Request::get(&target))?;
            ensure!(
                response.status == 502,
                "https to a plain port got {response:?}"
            );
            self.sent.push((target, at_ns));
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let act = |(target, at_ns): &(String, u64)| Act {
            upstream: self.real.address().to_string(),
            nginx_end: None,
            target: Some(target.clone()),
            at_ns: *at_ns,
            what: "TLS to a plain nginx".to_owned(),
            expected: Some(expected()),
        };
        let mut acts = self.own.truth()?;
        acts.extend(self.sent.iter().map(act));
        Ok(acts)
    }
}
