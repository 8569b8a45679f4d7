//! The lab: a real nginx before backends that misbehave on purpose and write down
//! what they did, so that a verdict can be held against the truth.
//!
//! Data flows one way. [`load`] sends requests to [`nginx`], nginx asks the
//! [`backend`]s, each backend records every act before it commits it. [`truth`]
//! turns those records into the faults that a capture has to explain, [`tool`]
//! runs the command under test from outside, and [`verdicts`] compares both. No
//! part of the tool is linked in: what it says is read from its output alone.
//!
//! [`scenarios`] makes failures of every kind with parameters from a seed,
//! [`experiment`] runs them, and [`score`] counts what the report got right.
#![forbid(unsafe_code)]

pub mod abrupt;
pub mod act;
pub mod attached;
pub mod backend;
pub mod behaviour;
pub mod clock;
pub mod container;
pub mod crowd;
pub mod draw;
pub mod experiment;
pub mod fastcgi;
pub mod fixture;
pub mod grpc_backend;
pub mod http;
mod http2;
pub mod idle;
pub mod load;
pub mod memory_cgroup;
pub mod netns;
pub mod nginx;
pub mod process_backend;
pub mod processes;
pub mod real;
pub mod scenario;
pub mod scenarios;
pub mod score;
pub mod sockets;
pub mod stale;
pub mod tls_backend;
pub mod tool;
pub mod truth;
pub mod verdicts;
