//! Backends with an IPv6 address: idle timeouts that are met by requests, and requests
//! that stay without an answer.

use anyhow::Result;

use super::{closed, stale};
use crate::act::{Act, Constant};
use crate::backend::{Backend, Habits, IPV6};
use crate::draw::Draw;
use crate::nginx::Configuration;
use crate::scenario::{Part, Scenario, Stage};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "ipv6",
    description: "backends at ::1: stale connections, closed without an answer",
    alone: false,
    prepare,
};

/// One after the other.
struct All(Vec<Box<dyn Part>>);

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let kept = |habits| Backend::start(IPV6, habits);
    let raced = stale::raced("ipv6_stale", draw, kept)?;
    let backend = Backend::start(IPV6, Habits::default())?;
    let told = closed::told("ipv6_closed", draw, backend)?;
    Ok(Box::new(All(vec![raced, told])))
}

impl Part for All {
    fn configure(&self, configuration: &mut Configuration) {
        for part in &self.0 {
            part.configure(configuration);
        }
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        self.0.iter_mut().try_for_each(|part| part.drive(stage))
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let acts: Result<Vec<Vec<Act>>> = self.0.iter().map(|part| part.truth()).collect();
        Ok(acts?.concat())
    }

    fn constants(&self) -> Vec<Constant> {
        self.0.iter().flat_map(|part| part.constants()).collect()
    }
}
