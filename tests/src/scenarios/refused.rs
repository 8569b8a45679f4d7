//! Nobody listens.

use anyhow::{Result, ensure};

use crate::act::{Act, Expected};
use crate::backend::{IPV4, Refusing};
use crate::clock::now_ns;
use crate::draw::Draw;
use crate::load::{Client, Request};
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Scenario, Stage};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "refused",
    description: "nobody listens on the backend's port",
    alone: false,
    prepare,
};

struct Refused {
    port: Refusing,
    requests: usize,
    sent: Vec<(String, u64)>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    Ok(Box::new(Refused {
        port: Refusing::start(IPV4)?,
        requests: draw.count(2..=5),
        sent: Vec::new(),
    }))
}

impl Part for Refused {
    fn configure(&self, configuration: &mut Configuration) {
        let upstream = Upstream::new("refused", self.port.address());
        configuration.upstreams.push(upstream);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        for _ in 0..self.requests {
            let target = stage.target("refused");
            let at_ns = now_ns();
            let response = Client::connect(stage.nginx.address())?.ask(&Request::get(&target))?;
            ensure!(response.status == 502, "a refused request got {response:?}");
            self.sent.push((target, at_ns));
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let act = |(target, at_ns): &(String, u64)| Act {
            upstream: self.port.address().to_string(),
            nginx_end: None,
            target: Some(target.clone()),
            at_ns: *at_ns,
            what: "nobody listens".to_owned(),
            expected: Some(Expected::new("backend", "refused", "connect-refused")),
        };
        Ok(self.sent.iter().map(act).collect())
    }
}
