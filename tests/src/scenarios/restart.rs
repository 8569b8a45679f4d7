//! A single backend is restarted: on SIGTERM it closes every connection and exits with
//! 0, connects are refused for a while, then it serves again.

use anyhow::Result;
use rustix::process::Signal;

use crate::backend::{Habits, IPV4};
use crate::behaviour::Phase;
use crate::draw::Draw;
use crate::load::Method;
use crate::process_backend::{ProcessBackend, Spec, program};
use crate::scenario::{At, Demise, Dying, Part, Scenario, Step, flights};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "restart",
    description: "SIGTERM: a backend closes all, exits with 0, is refused, serves again",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let phase = draw.one_of(&[Phase::Unread, Phase::Waiting, Phase::Body]);
    let idle = At::Idle {
        requests: draw.count(1..=3),
        method: draw.one_of(&[Method::Get, Method::Post]),
    };
    let steps = [At::Flights(flights(draw, phase)), idle].map(|at| Step {
        demise: Demise::Signal(Signal::TERM),
        at,
        refused: draw.count(1..=3),
        restart: true,
    });
    let spec = Spec {
        address: IPV4,
        habits: Habits::default(),
        graceful: true,
    };
    let backend = ProcessBackend::start(&program()?, spec)?;
    Ok(Box::new(Dying::new("restart", backend, steps.to_vec())))
}
