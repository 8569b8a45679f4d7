//! The backend takes bodies up to a size; above it, it closes with the body unread, so
//! that its kernel resets the connection under nginx's hands.

use std::time::Duration;

use anyhow::Result;

use crate::act::{Expected, Value};
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
    // Sent as a whole before the end, so that its size can be seen. Sizes are counted in
    // classes a quarter apart: what lies nearer could not be told from an answered one.
    let smallest = limit + limit * 2 / 5;
    let refusing = |bytes, after| {
        let expected = Expected::new("backend", "rst", "request-too-large");
        let behaviour = Behaviour::of(Kind::RefuseBody).after(Duration::from_millis(after));
        Ask::failing(behaviour, expected).with_body(bytes)
    };
    let mut asks = vec![Ask::good().with_body(limit), refusing(smallest, 50)];
    for at in 0..draw.count(3..=5) {
        asks.push(Ask::good().with_body(draw.count(1_000..=limit)));
        // One of many times the size, which no socket's buffer takes as a whole.
        let most = if at == 0 { 8_000_000 } else { 2 * limit };
        // At once, under nginx's first write, or when it has sent what it could.
        let after = draw.one_of(&[0, 10, 30]);
        asks.push(refusing(draw.count(smallest..=most.max(smallest)), after));
    }
    let bytes = |count| u64::try_from(count).unwrap_or(u64::MAX);
    let told = Told::new(upstream, backend, asks).inferable(Value::SizeThreshold {
        answered: bytes(limit),
        failed: bytes(smallest),
    });
    Ok(Box::new(told))
}
