//! Scenarios: failures made on purpose, each with its truth.
//!
//! # How to add one
//!
//! 1. A file `scenarios/NAME.rs` with `pub(super) const SCENARIO: Scenario`, whose
//!    `prepare` starts backends with parameters drawn from the [`Draw`] and returns a
//!    [`Part`]. Where one backend is told by each request what to do, [`Told`] is that
//!    part already; where no connection comes about, [`Unconnected`]; where each request
//!    fails with a connection of its own, [`Unserved`].
//! 2. One line in `scenarios.rs`: the module, and its `SCENARIO` in `ALL`.
//!
//! A part names its upstream blocks after the scenario or with it as a prefix
//! (`NAME`, `NAME_two`): [`crate::nginx::Upstream`] makes the location `/BLOCK/` of each.
//! [`Part::drive`] causes the failures through the real nginx, bounded, waiting for facts and never
//! for times; every target comes from [`Stage::target`], which makes it unique. Then
//! [`Part::truth`] tells what the backends and drivers recorded: acts with what a
//! report must say of them, and acts that are no fault (normal closes, good answers).
//! What the tool says has no part in it.
//!
//! Unless `alone`, a part shares nginx and time with others: it must not signal
//! nginx, and races go through [`Stage::race`]. An `alone` part has an nginx of its own,
//! whose configuration it may change as it likes ([`Part::configure`]).
//!
//! # What a part may not rely on
//!
//! In the mixed run all parts drive at once on one nginx, 500 good requests a second
//! beside them, and a run may be repeated with the same seed ([`Draw::for_round`]). So:
//!
//! * nginx's workers stop for some ten milliseconds, again and again: other parts race.
//!   What has to happen within a time of nginx's own (a timer, a request that is to meet
//!   a moment) may come later, and truth comes from what was recorded, not from the plan.
//! * Which worker has a client's connection, and with it which pool, is nginx's choice.
//!   Requests over one client connection stay with one worker.
//! * nginx's log, its connection numbers, its worker's open connections and the
//!   processes below the master are everybody's. A part knows its own lines by its blocks
//!   and targets, and waits for its own records.
//! * Load, ports, descriptors and the machine's connection tables are shared: a part
//!   that exhausts one, or changes the network of the host, is `alone`.
//! * A port that a part has given back may be somebody else's at once. A backend that
//!   comes back keeps its port bound meanwhile, or tolerates that it cannot have it.

mod crew;
mod demise;
mod dying;
mod forgetful;
mod in_flight;
mod meet;
mod told;
mod unconnected;
mod unserved;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;

pub use crew::Crew;
pub use demise::{Ended, acts, is_crash};
pub use dying::{At, Demise, Dying, Flight, Step, flights};
pub use forgetful::Forgetful;
pub use in_flight::{InFlight, carried, closed_without_answer};
pub use told::{Ask, Told};
pub use unconnected::{Asked, Unconnected, without_resources};
pub use unserved::{Unserved, Unserving};

use crate::act::{Act, Constant};
use crate::backend::Backend;
use crate::draw::Draw;
use crate::netns::Namespace;
use crate::nginx::{Configuration, Nginx};
use crate::processes::Stopped;
use crate::stale::{Race, Raced, race};

/// A failure that the lab can make.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name: the file's.
    pub name: &'static str,
    /// In one line.
    pub description: &'static str,
    /// It needs an nginx of its own and runs in no mixed run.
    pub alone: bool,
    /// Starts its backends.
    pub prepare: fn(&mut Draw) -> Result<Box<dyn Part>>,
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A scenario that has begun.
pub trait Part: Send {
    /// Adds its upstreams and locations, and nothing else unless it is `alone`.
    fn configure(&self, configuration: &mut Configuration);

    /// Where its nginx has to run, if it is `alone`.
    fn namespace(&self) -> Option<&Namespace> {
        None
    }

    /// Causes the failures.
    ///
    /// # Errors
    /// If a fact that it waits for does not come about.
    fn drive(&mut self, stage: &Stage<'_>) -> Result<()>;

    /// What happened, asked once after [`Part::drive`].
    ///
    /// # Errors
    /// If the records cannot be had.
    fn truth(&self) -> Result<Vec<Act>>;

    /// What its backends were configured with and a capture can infer.
    fn constants(&self) -> Vec<Constant> {
        Vec::new()
    }
}

/// What parts share while they drive.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The nginx.
    pub nginx: &'a Nginx,
    targets: AtomicUsize,
    racing: Mutex<()>,
}

impl<'a> Stage<'a> {
    /// Before this nginx.
    #[must_use]
    pub fn new(nginx: &'a Nginx) -> Self {
        Self {
            nginx,
            targets: AtomicUsize::new(0),
            racing: Mutex::new(()),
        }
    }

    /// A target below `/block/` that no other request of the run has.
    #[must_use]
    pub fn target(&self, block: &str) -> String {
        let number = self.targets.fetch_add(1, Ordering::Relaxed);
        format!("/{block}/{number}")
    }

    /// [`race`], one at a time: each stops nginx's workers for a moment.
    ///
    /// # Errors
    /// As [`race`].
    pub fn race(&self, backend: &Backend, plan: &Race) -> Result<Raced> {
        let _racing = self.racing.lock().unwrap_or_else(PoisonError::into_inner);
        race(self.nginx, backend, plan)
    }

    /// Stops nginx's workers until the guard is dropped, while nobody else races: what
    /// arrives meanwhile they find at once, in the order of its arrival (see
    /// [`crate::stale`]).
    ///
    /// # Errors
    /// If one does not stop.
    pub fn stop_workers(&self) -> Result<WorkersStopped<'_>> {
        let racing = self.racing.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(WorkersStopped {
            _stopped: self.nginx.stop_workers()?,
            _racing: racing,
        })
    }
}

/// See [`Stage::stop_workers`].
#[derive(Debug)]
pub struct WorkersStopped<'a> {
    // Dropped in this order.
    _stopped: Stopped,
    _racing: MutexGuard<'a, ()>,
}
