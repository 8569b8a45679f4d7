//! All scenarios, one file each. How to add one is told in [`crate::scenario`].

mod aborted;
mod closed;
mod exited;
mod killed;
mod oom;
mod prefork_lost;
mod prefork_recycled;
mod prefork_timeout;
mod read_timeout;
mod refused;
mod rejected;
mod restart;
mod stale;
mod without_keepalive;

use crate::scenario::Scenario;

/// In the order in which they are listed and run.
pub const ALL: &[Scenario] = &[
    stale::SCENARIO,
    without_keepalive::SCENARIO,
    closed::SCENARIO,
    aborted::SCENARIO,
    read_timeout::SCENARIO,
    refused::SCENARIO,
    rejected::SCENARIO,
    killed::SCENARIO,
    exited::SCENARIO,
    oom::SCENARIO,
    prefork_lost::SCENARIO,
    prefork_recycled::SCENARIO,
    prefork_timeout::SCENARIO,
    restart::SCENARIO,
];
