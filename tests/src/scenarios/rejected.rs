//! nginx refuses the response: a header larger than its buffer, a header field that is
//! none, a chunk that is none.

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4};
use crate::behaviour::{Behaviour, Kind};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Ask, Part, Scenario, Told};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "rejected",
    description: "the response's header is too big for nginx's buffer, or it is invalid",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let backend = Backend::start(IPV4, Habits::default())?;
    let buffer = draw.number(2..=8);
    let mut upstream = Upstream::new("rejected", backend.address()).with(&format!(
        "proxy_buffer_size {buffer}k; proxy_buffers 8 {buffer}k; proxy_busy_buffers_size {}k;",
        2 * buffer
    ));
    if draw.coin() {
        upstream = upstream.keepalive(8);
    }
    let mut asks = vec![Ask::good()];
    for kind in [
        // In one segment nginx has read it all; in several it leaves bytes unread.
        Kind::BigHeader {
            bytes: draw.count(8_300..=15_000),
        },
        Kind::InvalidHeader,
        Kind::BigHeader {
            bytes: draw.count(70_000..=200_000),
        },
        Kind::InvalidChunk,
    ] {
        let expected = Expected::new("nginx", "close", "response-rejected");
        let ask = Ask::failing(
            Behaviour::of(kind).after(draw.milliseconds(0..=40)),
            expected,
        );
        asks.push(if draw.coin() {
            ask
        } else {
            ask.with_body(draw.count(1..=3000))
        });
        asks.push(Ask::good());
    }
    Ok(Box::new(Told::new(upstream, backend, asks)))
}
