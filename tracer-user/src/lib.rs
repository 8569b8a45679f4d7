//! whoclosed's user half: captures what the kernel and nginx's error log say of
//! upstream connections, writes a trace, judges it and reports.

pub mod capture;
pub mod judge;
pub mod nginx;
pub mod report;
pub mod trace;
