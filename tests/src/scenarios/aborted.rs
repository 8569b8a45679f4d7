//! The backend ends the connection in its response: in the header, in a body of known
//! length, in a chunked body. On kept connections and new ones, buffered by nginx or not.

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4};
use crate::behaviour::{Behaviour, Framing, Kind, Means};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Ask, Part, Scenario, Told};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "aborted",
    description: "closed or reset in the header, in a known-length body, in a chunked body",
    alone: false,
    prepare: |draw| told("aborted", draw, Backend::start(IPV4, Habits::default())?),
};

/// The part of this scenario, before this backend.
pub(super) fn told(name: &str, draw: &mut Draw, backend: Backend) -> Result<Box<dyn Part>> {
    let mut upstream = Upstream::new(name, backend.address());
    if draw.coin() {
        upstream = upstream.keepalive(8);
    }
    if draw.coin() {
        upstream = upstream.with("proxy_buffering off;");
    }
    let mut asks = vec![Ask::good(); draw.count(1..=3)];
    let closes = [Means::Fin, Means::HalfClose, Means::FinThenRst];
    for means in [draw.one_of(&closes), Means::Rst] {
        let in_body = |framing, body| Kind::CloseInBody {
            body,
            framing,
            means,
        };
        for kind in [
            Kind::CloseInHeader(means),
            in_body(Framing::Length, draw.count(2_000..=40_000)),
            in_body(Framing::Chunked, draw.count(2_000..=40_000)),
        ] {
            let behaviour = Behaviour::of(kind).after(draw.milliseconds(0..=60));
            let expected = Expected::new("backend", means.word(), "response-aborted");
            let ask = Ask::failing(behaviour, expected);
            // A kept connection's GET would be sent again.
            asks.push(ask.with_body(draw.count(1..=2000)));
            asks.push(Ask::good());
        }
    }
    Ok(Box::new(Told::new(upstream, backend, asks)))
}
