//! The backend stops reading a body larger than the buffers between it and nginx, whose
//! send timer runs out.

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4};
use crate::behaviour::{Behaviour, Kind};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Ask, Part, Scenario, Told};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "send_timeout",
    description: "the backend stops reading a large body and nginx's send timer runs out",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let backend = Backend::start(IPV4, Habits::default())?;
    let patience = draw.number(500..=900);
    let mut upstream = Upstream::new("send_timeout", backend.address()).with(&format!(
        "proxy_send_timeout {patience}ms; client_max_body_size 0;"
    ));
    if draw.coin() {
        upstream = upstream.with("proxy_request_buffering off;");
    }
    let mut asks = vec![Ask::good().with_body(draw.count(1..=2_000_000))];
    for _ in 0..draw.count(2..=3) {
        let expected = Expected::new("nginx", "timeout", "send-timeout");
        let failing = Ask::failing(Behaviour::of(Kind::StopReading), expected);
        asks.push(failing.with_body(draw.count(12_000_000..=16_000_000)));
    }
    asks.push(Ask::good());
    Ok(Box::new(Told::new(upstream, backend, asks)))
}
