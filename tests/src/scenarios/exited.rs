//! The backend's process exits by itself, with requests in flight and without; the last
//! time for good.

use anyhow::Result;

use crate::backend::{Habits, IPV4};
use crate::behaviour::{Death, Phase};
use crate::draw::Draw;
use crate::load::Method;
use crate::process_backend::{ProcessBackend, Spec, program};
use crate::scenario::{At, Demise, Dying, Part, Scenario, Step, flights};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "exited",
    description: "exit with 0 or 1: unread, waiting, in header, in body, idle; then gone",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let mut steps = Vec::new();
    for phase in [Phase::Unread, Phase::Waiting, Phase::Header, Phase::Body] {
        steps.push(At::Flights(flights(draw, phase)));
    }
    steps.push(At::Idle {
        requests: draw.count(1..=3),
        method: draw.one_of(&[Method::Get, Method::Post]),
    });
    steps.push(At::Flights(flights(draw, Phase::Waiting)));
    let last = steps.len() - 1;
    let step = |(number, at)| Step {
        demise: Demise::Told(Death::Exit(draw.one_of(&[0, 1]))),
        at,
        refused: draw.count(0..=1) + usize::from(number == last),
        restart: number < last,
    };
    let steps = steps.into_iter().enumerate().map(step).collect();
    let spec = Spec {
        address: IPV4,
        habits: Habits::default(),
        graceful: false,
    };
    let backend = ProcessBackend::start(&program()?, spec)?;
    Ok(Box::new(Dying::new("exited", backend, steps)))
}
