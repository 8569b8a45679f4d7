//! There is no way to the backend: a router says so, or nobody answers for its address.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Habits, Refusing};
use crate::draw::Draw;
use crate::netns::Namespace;
use crate::nginx::Upstream;
use crate::scenario::{Asked, Part, Scenario, Unconnected};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "unreachable",
    description: "ICMP says that host or network is unreachable, or no neighbour answers",
    alone: false,
    prepare,
};

/// What a packet filter answers in a router's place, and whether it is over IPv6.
const ANSWERS: [(&str, &str, bool); 5] = [
    ("host", "icmp type host-unreachable", false),
    ("net", "icmp type net-unreachable", false),
    ("filtered", "icmp type admin-prohibited", false),
    ("host6", "icmpv6 type addr-unreachable", true),
    ("net6", "icmpv6 type no-route", true),
];

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let namespace = Arc::new(Namespace::create()?);
    let good = namespace.backend(namespace.ipv4(), Habits::default())?;
    let expected = || Some(Expected::new("network", "unreachable", "unreachable"));
    let mut asked = vec![Asked {
        upstream: Upstream::new("unreachable_not", good.address()),
        requests: draw.count(1..=5),
        status: 200,
        what: "answered",
        expected: None,
    }];
    let mut rules = String::new();
    let mut ports = Vec::new();
    for (name, answer, ipv6) in ANSWERS {
        let address = if ipv6 {
            namespace.ipv6()
        } else {
            namespace.ipv4()
        };
        let port = namespace.enter(|| Refusing::start(address))?;
        let address = port.address();
        let _ = writeln!(rules, "tcp dport {} reject with {answer}", address.port());
        ports.push(port);
        asked.push(Asked {
            upstream: Upstream::new(format!("unreachable_{name}"), address),
            requests: draw.count(1..=2),
            status: 502,
            what: answer,
            expected: expected(),
        });
    }
    asked.push(Asked {
        upstream: Upstream::new("unreachable_nobody", namespace.nobody()?),
        requests: draw.count(1..=2),
        status: 502,
        what: "no neighbour has the address",
        expected: expected(),
    });
    namespace.filter(&format!(
        "table inet unreachable {{
            chain arriving {{
                type filter hook input priority filter
                {rules}
            }}
        }}"
    ))?;
    let unconnected = Unconnected::new(asked).keeping((ports, good, namespace));
    Ok(Box::new(unconnected))
}
