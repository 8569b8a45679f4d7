//! A part whose backends serve nobody: each request is the only one on a connection of
//! its own, and fails with it.

use anyhow::{Result, bail};
use tempfile::TempDir;

use super::{Part, Stage};
use crate::act::{Act, Expected};
use crate::backend::{Backend, Connection};
use crate::clock::PATIENCE;
use crate::load::{Client, Request};
use crate::nginx::{Configuration, Upstream};

/// One backend behind one upstream block.
#[derive(Debug)]
pub struct Unserving {
    /// The block, with the backend as its only server.
    pub upstream: Upstream,
    /// It.
    pub backend: Backend,
    /// How often it is asked.
    pub requests: usize,
    /// What each of these requests deserves.
    pub expected: Expected,
}

/// All of them, asked one after the other.
#[derive(Debug)]
pub struct Unserved {
    all: Vec<Unserving>,
    met: Vec<Met>,
    /// Files that nginx's configuration names.
    _files: Option<TempDir>,
}

/// A request and the connection that was made for it.
#[derive(Debug)]
struct Met {
    target: String,
    connection: Connection,
    expected: Expected,
}

impl Unserved {
    /// A part of these; `files` are kept for as long as it lives.
    #[must_use]
    pub fn new(all: Vec<Unserving>, files: Option<TempDir>) -> Self {
        Self {
            all,
            met: Vec::new(),
            _files: files,
        }
    }
}

impl Part for Unserved {
    fn configure(&self, configuration: &mut Configuration) {
        let upstreams = self.all.iter().map(|one| one.upstream.clone());
        configuration.upstreams.extend(upstreams);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        for one in &self.all {
            for number in 0..one.requests {
                let target = stage.target(&one.upstream.name);
                // What the client gets is not the point: that it is over is.
                let mut client = Client::connect(stage.nginx.address())?;
                client.send(&Request::get(&target))?;
                client.receive_anything()?;
                let what = "the end of the connection that was made for a request";
                let records = one.backend.wait_until(what, PATIENCE, |records| {
                    records.len() > number && records.iter().all(|record| !record.is_open())
                })?;
                let [.., connection] = records.as_slice() else {
                    bail!("no connection was made for {target}");
                };
                if records.len() != number + 1 {
                    bail!("more than one connection for each request: {records:?}");
                }
                self.met.push(Met {
                    target,
                    connection: connection.clone(),
                    expected: one.expected.clone(),
                });
            }
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let act = |met: &Met| {
            let connection = &met.connection;
            let failed = connection
                .tls
                .as_ref()
                .and_then(|tls| tls.failed.as_deref());
            Act {
                upstream: connection.local.to_string(),
                nginx_end: Some(connection.remote),
                target: Some(met.target.clone()),
                at_ns: connection
                    .end
                    .map_or(connection.accepted_ns, |end| end.at_ns),
                what: format!("{:?} {}", connection.end, failed.unwrap_or_default()),
                expected: Some(met.expected.clone()),
            }
        };
        Ok(self.met.iter().map(act).collect())
    }
}
