//! whoclosed's user half: captures what the kernel and nginx's error log say of
//! upstream connections, writes a trace, judges it and reports. The command is the
//! interface; this library is its parts, for its tests.

pub mod capture;
pub mod cli;
pub mod commands;
pub mod doctor;
pub mod join;
pub mod judge;
pub mod nginx;
mod private_file;
pub mod report;
pub mod stderr;
pub mod trace;
