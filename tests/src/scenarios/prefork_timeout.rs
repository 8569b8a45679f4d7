//! A supervisor that kills workers which work on one request for too long, as
//! gunicorn's `timeout` has it.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::act::{Act, Constant, Value};
use crate::clock::{PATIENCE, wait_for};
use crate::draw::Draw;
use crate::nginx::Configuration;
use crate::process_backend::{Event, Supervision};
use crate::scenario::{Crew, Part, Scenario, Stage};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "prefork_timeout",
    description: "a supervisor kills workers that work on a request for too long",
    alone: false,
    prepare,
};

struct Overdue {
    crew: Crew,
    limit: Duration,
    /// One after the other in another worker; each over the block that keeps connections
    /// or not.
    slow: Vec<bool>,
    apart: Duration,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let limit = draw.milliseconds(600..=1100);
    let look_every = draw.milliseconds(20..=400);
    let supervision = Supervision {
        workers: draw.count(4..=5),
        recycle_after: None,
        work_limit: Some(limit),
        look_every,
        abort_first: draw.coin(),
    };
    let slow = (0..draw.count(3..=4)).map(|_| draw.coin()).collect();
    Ok(Box::new(Overdue {
        crew: Crew::start("prefork_timeout", supervision)?,
        limit,
        slow,
        apart: look_every + draw.milliseconds(50..=150),
    }))
}

impl Overdue {
    /// Workers killed so far.
    fn kills(&self) -> Result<usize> {
        let events = self.crew.backend().events()?;
        let kills = events
            .iter()
            .filter(|event| matches!(event, Event::Killed { .. }));
        Ok(kills.count())
    }
}

impl Part for Overdue {
    fn configure(&self, configuration: &mut Configuration) {
        self.crew.configure(configuration);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        const FOREVER: Duration = Duration::from_secs(600);
        /// Two may come to one worker, and go with it at once.
        const MORE: usize = 4;
        let wanted = self.slow.len();
        let more = self.slow.iter().cycle().take(MORE);
        let mut clients = Vec::new();
        for &kept in self.slow.iter().chain(more) {
            let under_way = clients.len();
            if under_way >= wanted {
                // Each that is over the limit by now goes at the next look.
                wait_for("the workers to be killed", PATIENCE, || {
                    Ok(self.crew.working()?.is_empty().then_some(()))
                })?;
                if self.kills()? >= wanted {
                    break;
                }
            }
            self.crew.serve(stage)?;
            clients.push(self.crew.begin(stage, kept, FOREVER)?.0);
            thread::sleep(self.apart);
        }
        for mut client in clients {
            // It gets a 502, or nothing: that it is over is the point.
            let _ = client.receive();
        }
        if self.kills()? < 3 {
            bail!("the supervisor killed {} workers only", self.kills()?);
        }
        self.crew.serve(stage)
    }

    fn truth(&self) -> Result<Vec<Act>> {
        self.crew.truth()
    }

    fn constants(&self) -> Vec<Constant> {
        vec![Constant {
            upstream: self.crew.backend().address().to_string(),
            value: Value::SupervisedTimeoutMs(self.limit.as_secs_f64() * 1000.0),
        }]
    }
}
