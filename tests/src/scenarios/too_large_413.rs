//! The backend takes bodies up to a size; above it, it answers 413 at once and closes
//! with the body unread. nginx hands the answer on if it reads before it writes; if its
//! next write meets the RST first, the answer is lost and there is a line.

use std::time::Duration;

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4};
use crate::behaviour::{Behaviour, Kind};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Ask, Part, Scenario, Told};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "too_large_413",
    description: "bodies above a size are answered 413 and left unread",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let backend = Backend::start(IPV4, Habits::default())?;
    let mut upstream =
        Upstream::new("too_large_413", backend.address()).with("client_max_body_size 0;");
    if draw.coin() {
        upstream = upstream.keepalive(8);
    }
    let limit = draw.count(20_000..=300_000);
    let mut asks = Vec::new();
    for at in 0..draw.count(4..=6) {
        asks.push(Ask::good().with_body(draw.count(1_000..=limit)));
        let expected = Expected::new("backend", "rst", "request-too-large");
        // At once, under nginx's first write, or when it has sent what it could.
        let after = draw.one_of(&[0, 10, 30]);
        let behaviour = Behaviour::of(Kind::LeaveBodyUnread).after(Duration::from_millis(after));
        let refusing = Ask::failing(behaviour, expected);
        let most = if at % 2 == 0 { 8_000_000 } else { 2 * limit };
        asks.push(refusing.with_body(draw.count(limit + limit * 2 / 5..=most)));
    }
    asks.push(Ask::good().with_body(limit));
    Ok(Box::new(Told::new(upstream, backend, asks)))
}
