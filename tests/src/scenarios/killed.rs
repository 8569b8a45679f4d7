//! The backend's process is killed or crashes, with requests in flight and without.

use anyhow::Result;
use rustix::process::Signal;

use crate::backend::{Habits, IPV4};
use crate::behaviour::{Death, Phase};
use crate::draw::Draw;
use crate::load::Method;
use crate::process_backend::{ProcessBackend, Spec, program};
use crate::scenario::{At, Demise, Dying, Part, Scenario, Step, flights};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "killed",
    description: "SIGKILL, SIGTERM, SIGSEGV, abort: unread, waiting, in header, in body, idle",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let mut steps = Vec::new();
    let signals = [Signal::KILL, Signal::TERM].map(Demise::Signal);
    let crashes = [Death::Abort, Death::Segfault].map(Demise::Told);
    let all = [signals, crashes].concat();
    for phase in [Phase::Unread, Phase::Waiting, Phase::Body] {
        steps.push((draw.one_of(&all), At::Flights(flights(draw, phase))));
    }
    // What comes from outside cannot wait for the middle of a header.
    let signal = draw.one_of(&[Signal::KILL, Signal::TERM]).as_raw();
    let own = Death::Signal(u8::try_from(signal)?);
    let within = draw.one_of(&[own, Death::Abort, Death::Segfault]);
    steps.push((
        Demise::Told(within),
        At::Flights(flights(draw, Phase::Header)),
    ));
    for demise in [draw.one_of(&signals), draw.one_of(&crashes)] {
        steps.push((
            demise,
            At::Idle {
                requests: draw.count(1..=3),
                method: draw.one_of(&[Method::Get, Method::Post]),
            },
        ));
    }
    let step = |(demise, at)| Step {
        demise,
        at,
        refused: draw.count(0..=1),
        restart: true,
    };
    let steps = steps.into_iter().map(step).collect();
    let spec = Spec {
        address: IPV4,
        habits: Habits::default(),
        graceful: false,
    };
    let backend = ProcessBackend::start(&program()?, spec)?;
    Ok(Box::new(Dying::new("killed", backend, steps)))
}
