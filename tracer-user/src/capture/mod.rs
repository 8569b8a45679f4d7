//! Capture.
pub mod btf;
pub mod convert;
pub mod counters;
pub mod open_connections;
pub mod programs;
