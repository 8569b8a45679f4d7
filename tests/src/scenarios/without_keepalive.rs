//! The control: a backend with a short idle timeout before which nginx keeps no
//! connection. No line may come of it.

use anyhow::Result;

use crate::backend::{Backend, Habits, IPV4, Idle};
use crate::behaviour::Means;
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Ask, Part, Scenario, Told};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "without_keepalive",
    description: "a short idle timeout and no kept connection: nothing fails (control)",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let idle = Some(Idle {
        after: draw.milliseconds(100..=400),
        means: draw.one_of(&[Means::Fin, Means::Rst]),
    });
    let habits = Habits {
        idle,
        ..Habits::default()
    };
    let backend = Backend::start(IPV4, habits)?;
    let upstream = Upstream::new("without_keepalive", backend.address());
    let asks = vec![Ask::good(); draw.count(5..=20)];
    Ok(Box::new(Told::new(upstream, backend, asks)))
}
