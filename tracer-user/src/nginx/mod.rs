//! What whoclosed knows of nginx: its processes, its configuration, its error log's
//! grammar, and how a log file is followed.

pub mod binary;
pub mod configuration;
pub mod follow;
pub mod line;
pub mod message;
pub mod processes;
pub mod time_zone;
