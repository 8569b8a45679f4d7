//! All scenarios, one file each. How to add one is told in [`crate::scenario`].

mod aborted;
mod closed;
mod fast_stop;
mod read_timeout;
mod refused;
mod rejected;
mod reload;
mod shutdown_timeout;
mod stale;
mod tls_aborted;
mod tls_client_certificate;
mod tls_closed;
mod tls_handshake_closed;
mod tls_stale;
mod tls_to_plain;
mod tls_version;
mod without_keepalive;
mod worker_killed;

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
    tls_aborted::SCENARIO,
    tls_client_certificate::SCENARIO,
    tls_closed::SCENARIO,
    tls_handshake_closed::SCENARIO,
    tls_version::SCENARIO,
    tls_stale::SCENARIO,
    tls_to_plain::SCENARIO,
    reload::SCENARIO,
    shutdown_timeout::SCENARIO,
    worker_killed::SCENARIO,
    fast_stop::SCENARIO,
];
