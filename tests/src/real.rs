//! Real servers behind nginx, in their own releases and configurations: what the tool
//! infers of them against what their configuration says and what clients of their own,
//! without an nginx, measure.
//!
//! A server is one small file that starts its processes and lists [`Check`]s. They run
//! all at once before one nginx, since most of them only wait for a server's timer.
//! `cargo xtask setup --lab` brings the servers.

mod apache;
mod direct;
mod experiment;
mod gunicorn;
mod idle;
mod java;
mod journal;
mod limit;
mod nginx_server;
mod node;
mod php;
mod places;
mod process;
mod race;
mod recycling;
pub mod section;
mod table;
mod timeout;
mod uvicorn;

use std::fmt;
use std::sync::Arc;

use anyhow::Result;
use serde_json::Value;

use crate::draw::Draw;
use crate::scenario::Part;

pub use experiment::{Outcome, run};
pub use places::Places;
pub use process::Process;
pub use table::{Accuracy, Inferred, Measured, Row, Table};

/// A server to run.
#[derive(Clone, Copy)]
pub struct Server {
    /// Its name: the file's.
    pub name: &'static str,
    /// What is looked at, in one line.
    pub description: &'static str,
    /// Starts it.
    pub prepare: fn(&Places, &mut Draw) -> Result<Checks>,
}

/// What is done to one server.
pub type Checks = Vec<Box<dyn Check>>;

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// In the order in which they are listed.
pub const REAL: &[Server] = &[
    node::SERVER,
    gunicorn::SERVER,
    uvicorn::SERVER,
    apache::SERVER,
    php::SERVER,
    java::SERVER,
    nginx_server::SERVER,
];

/// Something that is done to a server through nginx, and what a report should then say.
pub trait Check: Part {
    /// Its line of the table. `upstream` is the report's part about the server, null if
    /// it has none.
    fn row(&self, upstream: &Value) -> Row;

    /// It stops nginx's workers, and so comes after those that do not.
    fn stops_nginx(&self) -> bool {
        false
    }
}

/// One configured number of a running server.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Server and release.
    pub server: String,
    /// As its configuration has it.
    pub text: String,
    /// Its processes; they end with the last check that needs them.
    pub process: Arc<Process>,
    /// Prefix of the upstream blocks.
    pub block: &'static str,
}
