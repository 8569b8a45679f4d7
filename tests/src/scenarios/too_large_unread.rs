//! The backend takes bodies up to a size; above it, it closes with the body unread, so
//! that its kernel resets the connection under nginx's hands.

use std::time::Duration;

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4};
use crate::behaviour::{Behaviour, Kind};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Ask, Part, Scenario, Told};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "too_large_unread",
    description: "bodies above a size are left unread and the connection is reset",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let backend = Backend::start(IPV4, Habits::default())?;
    let upstream =
        Upstream::new("too_large_unread", backend.address()).with("client_max_body_size 0;");
    let limit = draw.count(20_000..=1_000_000);
    let mut asks = Vec::new();
    for at in 0..draw.count(4..=6) {
        asks.push(Ask::good().with_body(draw.count(1_000..=limit)));
        let expected = Expected::new("backend", "rst", "request-too-large");
        // At once, under nginx's first write, or when it has sent what it could.
        let after = draw.one_of(&[0, 10, 30]);
        let behaviour = Behaviour::of(Kind::RefuseBody).after(Duration::from_millis(after));
        let refusing = Ask::failing(behaviour, expected);
        // One of many times the size, which no socket's buffer takes as a whole.
        let most = if at == 0 { 8_000_000 } else { 2 * limit };
        asks.push(refusing.with_body(draw.count(limit + limit / 10..=most.max(2 * limit))));
    }
    asks.push(Ask::good().with_body(limit));
    Ok(Box::new(Told::new(upstream, backend, asks)))
}
