//! The kernel kills the backend's process, whose memory cgroup is full.

use anyhow::Result;

use crate::backend::{Habits, IPV4};
use crate::behaviour::{Death, Phase};
use crate::draw::Draw;
use crate::load::Method;
use crate::process_backend::{MemoryGroup, ProcessBackend, Spec, program};
use crate::scenario::{At, Demise, Dying, Part, Scenario, Step, flights};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "oom",
    description: "the kernel kills the backend for want of memory (needs a memory cgroup)",
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
    let step = |at| Step {
        demise: Demise::Told(Death::OutOfMemory),
        at,
        refused: draw.count(0..=1),
        restart: true,
    };
    let steps = steps.into_iter().map(step).collect();
    let group = MemoryGroup::create(draw.number(24..=96) << 20)?;
    let spec = Spec {
        address: IPV4,
        habits: Habits::default(),
        graceful: false,
    };
    let backend = ProcessBackend::start_confined(&program()?, spec, group)?;
    Ok(Box::new(Dying::new("oom", backend, steps)))
}
