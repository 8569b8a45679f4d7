//! nginx's read timer runs out: before any answer, and in the body.

use std::time::Duration;

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4};
use crate::behaviour::{Behaviour, Kind};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Ask, Part, Scenario, Told};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "read_timeout",
    description: "the backend is slower than nginx's read timer, or stalls in the body",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let backend = Backend::start(IPV4, Habits::default())?;
    let patience = draw.number(700..=1500);
    let upstream = Upstream::new("read_timeout", backend.address())
        .with(&format!("proxy_read_timeout {patience}ms;"));
    let slow = Behaviour::ANSWER.after(Duration::from_secs(600));
    let stalling = Behaviour::of(Kind::StallInBody {
        body: draw.count(5_000..=30_000),
    });
    let expected = || Expected::new("nginx", "timeout", "read-timeout");
    let asks = vec![
        Ask::good(),
        Ask::failing(slow, expected()),
        Ask::failing(slow, expected()).with_body(draw.count(1..=3000)),
        Ask::failing(stalling, expected()),
    ];
    Ok(Box::new(Told::new(upstream, backend, asks)))
}
