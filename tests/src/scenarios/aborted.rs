//! The backend closes or resets in its response: in the header, in a body of known
//! length, in a chunked body.

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
    let upstream = Upstream::new(name, backend.address());
    let mut asks = vec![Ask::good()];
    for (means, word) in [(Means::Fin, "fin"), (Means::Rst, "rst")] {
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
            let expected = Expected::new("backend", word, "response-aborted");
            asks.push(Ask::failing(behaviour, expected));
        }
    }
    Ok(Box::new(Told::new(upstream, backend, asks)))
}
