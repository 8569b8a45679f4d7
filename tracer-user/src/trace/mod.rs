//! The trace file: its records, how they are written and how they are read.

mod backend_record;
mod connection_record;
mod nginx_record;
pub mod reader;
pub mod record;
pub mod writer;
