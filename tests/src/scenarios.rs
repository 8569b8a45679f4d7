//! All scenarios, one file each. How to add one is told in [`crate::scenario`].

mod aborted;
mod backlog_full;
mod closed;
mod connect_timeout;
mod connection_close;
mod connections_exhausted;
mod descriptors_exhausted;
mod exited;
mod killed;
mod middlebox_dropped;
mod middlebox_reset;
mod oom;
mod path_lost;
mod ports_exhausted;
mod read_timeout;
mod refused;
mod rejected;
mod remote_aborted;
mod remote_closed;
mod remote_restart;
mod remote_stale;
mod restart;
mod send_timeout;
mod stale;
mod too_large_413;
mod too_large_unread;
mod unix_backlog_full;
mod unreachable;
mod without_keepalive;

use crate::scenario::Scenario;

/// In the order in which they are listed and run.
pub const ALL: &[Scenario] = &[
    stale::SCENARIO,
    without_keepalive::SCENARIO,
    connection_close::SCENARIO,
    closed::SCENARIO,
    aborted::SCENARIO,
    read_timeout::SCENARIO,
    send_timeout::SCENARIO,
    refused::SCENARIO,
    rejected::SCENARIO,
    killed::SCENARIO,
    exited::SCENARIO,
    oom::SCENARIO,
    restart::SCENARIO,
    too_large_unread::SCENARIO,
    too_large_413::SCENARIO,
    remote_stale::SCENARIO,
    remote_closed::SCENARIO,
    remote_aborted::SCENARIO,
    remote_restart::SCENARIO,
    middlebox_dropped::SCENARIO,
    middlebox_reset::SCENARIO,
    unreachable::SCENARIO,
    connect_timeout::SCENARIO,
    backlog_full::SCENARIO,
    unix_backlog_full::SCENARIO,
    path_lost::SCENARIO,
    ports_exhausted::SCENARIO,
    descriptors_exhausted::SCENARIO,
    connections_exhausted::SCENARIO,
];
