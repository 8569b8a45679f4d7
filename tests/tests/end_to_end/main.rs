//! The command against a real nginx, from outside, as root.
//!
//! Each test has its own nginx, backends and capture; the truth is what the backends
//! recorded. The tests run one at a time: stopped workers and a capture's probes are
//! the whole machine's.

#![expect(
    clippy::unwrap_used,
    reason = "a test panics where something is not as it must be"
)]

mod attached;
mod bad_input;
mod bench;
mod causes;
mod client_uploads;
mod configurations;
mod connections;
mod containers;
mod doctor;
mod findings;
mod floods;
mod forged;
mod grpc;
mod instances;
mod interrupted;
mod ipv6;
mod laboratory;
mod limits;
mod listeners;
mod local_backends;
mod logs;
mod logs_without_files;
mod lost;
mod mid_life;
mod missed_calls;
mod modules;
mod modules_over_tls;
mod no_io;
mod older_kernels;
mod other_layouts;
mod privileges;
mod reloads;
mod repeated_hour;
mod retries;
mod rotation;
mod several_logs;
mod tls;
mod tls_counts;
mod trace_files;
mod two_hosts;
mod unprivileged;
mod unusual_nginx;
mod upgrades;
