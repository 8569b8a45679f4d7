//! A backend of this host does not accept, and its queue of new connections is full.

use anyhow::Result;

use crate::act::Expected;
use crate::backend::Overfull;
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Asked, Part, Scenario, Unconnected};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "backlog_full",
    description: "the backend's queue of new connections is full: its host drops SYNs",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let overfull = Overfull::start()?;
    // Queues are looked at once a second, and a busy machine is late.
    let patience = draw.number(2000..=3000);
    let upstream = Upstream::new("backlog_full", overfull.address())
        .with(&format!("proxy_connect_timeout {patience}ms;"));
    // nginx gives up, for the backend's reason.
    let expected = Expected::new("nginx", "timeout", "backlog-full").or_side("backend");
    let asked = Asked {
        upstream,
        requests: draw.count(2..=5),
        status: 504,
        what: "its queue of new connections is full",
        expected: Some(expected),
    };
    Ok(Box::new(Unconnected::new(vec![asked]).keeping(overfull)))
}
