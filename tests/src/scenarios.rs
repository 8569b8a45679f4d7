//! All scenarios, one file each. How to add one is told in [`crate::scenario`].

mod aborted;
mod backlog_full;
mod bind_failed;
mod client_abort;
mod client_abort_h2;
mod closed;
mod connect_timeout;
mod connection_close;
mod connections_exhausted;
mod descriptors_exhausted;
mod exited;
mod fast_stop;
mod fastcgi;
mod grpc;
mod ipv6;
mod killed;
mod middlebox_dropped;
mod middlebox_reset;
mod oom;
mod path_lost;
mod plain_to_tls;
mod ports_exhausted;
mod prefork_lost;
mod prefork_recycled;
mod prefork_timeout;
mod read_timeout;
mod refused;
mod rejected;
mod reload;
mod remote_aborted;
mod remote_closed;
mod remote_restart;
mod remote_stale;
mod request_limit;
mod restart;
mod restart_rolling;
mod send_timeout;
mod shutdown_timeout;
mod slow_client;
mod stale;
mod stale_three;
mod streaming;
mod tls_aborted;
mod tls_certificate;
mod tls_client_certificate;
mod tls_closed;
mod tls_handshake_closed;
mod tls_stale;
mod tls_to_plain;
mod tls_version;
mod too_large_413;
mod too_large_unread;
mod unix_backlog_full;
mod unreachable;
mod upload;
mod websocket;
mod without_keepalive;
mod worker_killed;

use crate::scenario::Scenario;

/// In the order in which they are listed and run.
pub const ALL: &[Scenario] = &[
    stale::SCENARIO,
    stale_three::SCENARIO,
    without_keepalive::SCENARIO,
    request_limit::SCENARIO,
    connection_close::SCENARIO,
    closed::SCENARIO,
    ipv6::SCENARIO,
    aborted::SCENARIO,
    streaming::SCENARIO,
    slow_client::SCENARIO,
    websocket::SCENARIO,
    fastcgi::SCENARIO,
    grpc::SCENARIO,
    read_timeout::SCENARIO,
    send_timeout::SCENARIO,
    refused::SCENARIO,
    rejected::SCENARIO,
    client_abort::SCENARIO,
    client_abort_h2::SCENARIO,
    killed::SCENARIO,
    exited::SCENARIO,
    oom::SCENARIO,
    prefork_lost::SCENARIO,
    prefork_recycled::SCENARIO,
    prefork_timeout::SCENARIO,
    restart::SCENARIO,
    restart_rolling::SCENARIO,
    too_large_unread::SCENARIO,
    too_large_413::SCENARIO,
    upload::SCENARIO,
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
    bind_failed::SCENARIO,
    path_lost::SCENARIO,
    ports_exhausted::SCENARIO,
    descriptors_exhausted::SCENARIO,
    connections_exhausted::SCENARIO,
    tls_stale::SCENARIO,
    tls_closed::SCENARIO,
    tls_aborted::SCENARIO,
    tls_handshake_closed::SCENARIO,
    tls_version::SCENARIO,
    tls_certificate::SCENARIO,
    tls_client_certificate::SCENARIO,
    tls_to_plain::SCENARIO,
    plain_to_tls::SCENARIO,
    reload::SCENARIO,
    shutdown_timeout::SCENARIO,
    worker_killed::SCENARIO,
    fast_stop::SCENARIO,
];
