//! SYNs get no answer: a packet filter before the backend drops them.

use std::sync::Arc;

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Habits, Refusing};
use crate::draw::Draw;
use crate::netns::Namespace;
use crate::nginx::Upstream;
use crate::scenario::{Asked, Part, Scenario, Unconnected};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "connect_timeout",
    description: "a packet filter drops every SYN to the backend",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let namespace = Arc::new(Namespace::create()?);
    let good = namespace.backend(namespace.ipv4(), Habits::default())?;
    let addresses = [namespace.ipv4(), namespace.ipv6()];
    let silent = addresses
        .iter()
        .map(|&address| namespace.enter(|| Refusing::start(address)))
        .collect::<Result<Vec<_>>>()?;
    let patience = draw.number(400..=1600);
    let upstream = |name: &str, address| {
        Upstream::new(name, address).with(&format!("proxy_connect_timeout {patience}ms;"))
    };
    let mut asked = vec![Asked {
        upstream: upstream("connect_timeout_not", good.address()),
        requests: draw.count(1..=5),
        status: 200,
        what: "answered",
        expected: None,
    }];
    for (name, port) in ["connect_timeout_four", "connect_timeout_six"]
        .into_iter()
        .zip(&silent)
    {
        namespace.filter(&format!(
            "table inet {name} {{
                chain arriving {{
                    type filter hook input priority filter
                    tcp dport {} drop
                }}
            }}",
            port.address().port()
        ))?;
        // It is nginx that gives up, for want of an answer from the network.
        let expected = Expected::new("nginx", "timeout", "connect-timeout").or_side("network");
        asked.push(Asked {
            upstream: upstream(name, port.address()),
            requests: draw.count(2..=3),
            status: 504,
            what: "SYNs are dropped",
            expected: Some(expected),
        });
    }
    let unconnected = Unconnected::new(asked).keeping((silent, good, namespace));
    Ok(Box::new(unconnected))
}
