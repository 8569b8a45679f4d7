//! The backend closes or resets after it has worked on a request, without a byte of answer.

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4};
use crate::behaviour::{Behaviour, Kind, Means};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Ask, Part, Scenario, Told};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "closed",
    description: "closed or reset while the request is worked on, without an answer",
    alone: false,
    prepare: |draw| told("closed", draw, Backend::start(IPV4, Habits::default())?),
};

/// The part of this scenario, before this backend.
pub(super) fn told(name: &str, draw: &mut Draw, backend: Backend) -> Result<Box<dyn Part>> {
    let upstream = Upstream::new(name, backend.address());
    let mut asks = vec![Ask::good()];
    for _ in 0..draw.count(3..=6) {
        let (means, word) = draw.one_of(&[(Means::Fin, "fin"), (Means::Rst, "rst")]);
        // Different times, so that no constant time of work can be inferred.
        let behaviour =
            Behaviour::of(Kind::CloseWithoutAnswer(means)).after(draw.milliseconds(20..=300));
        let expected = Expected::new("backend", word, "closed-without-answer");
        let ask = Ask::failing(behaviour, expected);
        asks.push(if draw.coin() { ask } else { ask.with_body(100) });
    }
    Ok(Box::new(Told::new(upstream, backend, asks)))
}
