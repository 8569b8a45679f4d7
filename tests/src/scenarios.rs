//! All scenarios, one file each. How to add one is told in [`crate::scenario`].

mod aborted;
mod backlog_full;
mod client_abort;
mod client_abort_h2;
mod closed;
mod connect_timeout;
mod connection_close;
mod exited;
mod fastcgi;
mod killed;
mod middlebox_dropped;
mod middlebox_reset;
mod oom;
mod read_timeout;
mod refused;
mod rejected;
mod remote_aborted;
mod remote_closed;
mod remote_stale;
mod request_limit;
mod restart;
mod send_timeout;
mod slow_client;
mod stale;
mod streaming;
mod too_large_413;
mod too_large_unread;
mod unix_backlog_full;
mod unreachable;
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
    fastcgi::SCENARIO,
    read_timeout::SCENARIO,
    send_timeout::SCENARIO,
    refused::SCENARIO,
    rejected::SCENARIO,
    client_abort::SCENARIO,
    client_abort_h2::SCENARIO,
    killed::SCENARIO,
    exited::SCENARIO,
    oom::SCENARIO,
    restart::SCENARIO,
    too_large_unread::SCENARIO,
    too_large_413::SCENARIO,
    remote_stale::SCENARIO,
    remote_closed::SCENARIO,
    remote_aborted::SCENARIO,
    middlebox_dropped::SCENARIO,
    middlebox_reset::SCENARIO,
    unreachable::SCENARIO,
    connect_timeout::SCENARIO,
    backlog_full::SCENARIO,
    unix_backlog_full::SCENARIO,
];
