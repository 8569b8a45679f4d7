//! All scenarios, one file each. How to add one is told in [`crate::scenario`].

mod aborted;
mod client_abort;
mod client_abort_h2;
mod closed;
mod connection_close;
mod read_timeout;
mod refused;
mod rejected;
mod request_limit;
mod send_timeout;
mod slow_client;
mod stale;
mod streaming;
mod too_large_413;
mod too_large_unread;
mod websocket;
mod without_keepalive;

use crate::scenario::Scenario;

/// In the order in which they are listed and run.
pub const ALL: &[Scenario] = &[
    stale::SCENARIO,
    without_keepalive::SCENARIO,
    request_limit::SCENARIO,
    connection_close::SCENARIO,
    closed::SCENARIO,
    aborted::SCENARIO,
    streaming::SCENARIO,
    slow_client::SCENARIO,
    websocket::SCENARIO,
    read_timeout::SCENARIO,
    send_timeout::SCENARIO,
    refused::SCENARIO,
    rejected::SCENARIO,
    client_abort::SCENARIO,
    client_abort_h2::SCENARIO,
    too_large_unread::SCENARIO,
    too_large_413::SCENARIO,
];
