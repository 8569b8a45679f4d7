//! The control: a backend that says `Connection: close`, or ends its body by closing,
//! before an nginx that would keep its connections. No line may come of it.

use anyhow::Result;

use crate::backend::{Backend, Habits, IPV4};
use crate::behaviour::{Behaviour, Framing, Kind};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Ask, Part, Scenario, Told};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "connection_close",
    description: "the backend announces each close: nothing fails (control)",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let backend = Backend::start(IPV4, Habits::default())?;
    let upstream = Upstream::new("connection_close", backend.address()).keepalive(8);
    let mut asks = Vec::new();
    for _ in 0..draw.count(6..=20) {
        let kind = if draw.coin() {
            Kind::AnswerClosing
        } else {
            Kind::Answer {
                body: draw.count(1..=50_000),
                framing: Framing::UntilClose,
            }
        };
        let ask = Ask {
            behaviour: Behaviour::of(kind).after(draw.milliseconds(0..=10)),
            ..Ask::good()
        };
        asks.push(ask.with_body(draw.one_of(&[0, 0, 100])));
    }
    Ok(Box::new(Told::new(upstream, backend, asks)))
}
