//! nginx is told to connect from an address that is not this host's, or from a port that
//! somebody has.

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4, Refusing};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Asked, Part, Scenario, Unconnected};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "bind_failed",
    description: "proxy_bind names an address that is not the host's, or a port in use",
    alone: false,
    prepare,
};

/// Of a network for documentation (RFC 5737): no host has it.
const FOREIGN: &str = "203.0.113.77";

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let backend = Backend::start(IPV4, Habits::default())?;
    let taken = Refusing::start(IPV4)?;
    let of = |name: &str, from: String, what, draw: &mut Draw| Asked {
        upstream: Upstream::new(name, backend.address()).with(&format!("proxy_bind {from};")),
        requests: draw.count(1..=3),
        status: 500,
        what,
        expected: Some(Expected::new("nginx", "none", "nginx-resources")),
    };
    let asked = vec![
        Asked {
            requests: draw.count(1..=4),
            status: 200,
            expected: None,
            ..of(
                "bind_failed_not",
                "127.0.0.2".to_owned(),
                "connected from an address of this host",
                draw,
            )
        },
        of(
            "bind_failed_foreign",
            FOREIGN.to_owned(),
            "the address to connect from is not this host's",
            draw,
        ),
        of(
            "bind_failed_taken",
            taken.address().to_string(),
            "the port to connect from is taken",
            draw,
        ),
    ];
    Ok(Box::new(Unconnected::new(asked).keeping((backend, taken))))
}
