//! nginx refuses the response: a header larger than its buffer, or one that is invalid.

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4};
use crate::behaviour::{Behaviour, Kind};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Ask, Part, Scenario, Told};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "rejected",
    description: "the response's header is too big for nginx's buffer, or invalid",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let backend = Backend::start(IPV4, Habits::default())?;
    let upstream = Upstream::new("rejected", backend.address())
        .with("proxy_buffer_size 4k; proxy_buffers 8 4k; proxy_busy_buffers_size 8k;");
    let too_big = Kind::BigHeader {
        bytes: draw.count(8_000..=30_000),
    };
    let failing = |kind| {
        let expected = Expected::new("nginx", "close", "response-rejected");
        Ask::failing(Behaviour::of(kind), expected)
    };
    let asks = vec![
        Ask::good(),
        failing(too_big),
        failing(Kind::InvalidHeader),
        failing(too_big).with_body(draw.count(1..=3000)),
    ];
    Ok(Box::new(Told::new(upstream, backend, asks)))
}
