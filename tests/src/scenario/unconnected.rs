//! A part whose requests reach no backend, since no connection to one comes about, or
//! one that keeps no records.

use std::any::Any;
use std::fmt;

use anyhow::{Result, ensure};

use super::{Part, Stage};
use crate::act::{Act, Expected};
use crate::backend::Backend;
use crate::clock::now_ns;
use crate::load::{Client, Request};
use crate::nginx::{Configuration, Upstream};

/// Requests to one upstream and what each deserves.
#[derive(Clone, Debug)]
pub struct Asked {
    /// It, with one server.
    pub upstream: Upstream,
    /// How many.
    pub requests: usize,
    /// Status that nginx has to answer with: that it does is the fact that the scenario
    /// rests on.
    pub status: u16,
    /// What happens, in words.
    pub what: &'static str,
    /// None: nothing may go wrong.
    pub expected: Option<Expected>,
}

/// One request that was sent.
struct Sent {
    to: usize,
    target: String,
    at_ns: u64,
}

/// Sends all requests at once, each on a client connection of its own.
pub struct Unconnected {
    asked: Vec<Asked>,
    sent: Vec<Sent>,
    _kept: Vec<Box<dyn Any + Send>>,
}

impl Unconnected {
    /// A part that sends these; none of them is a POST, and nothing is tried twice.
    #[must_use]
    pub fn new(asked: Vec<Asked>) -> Self {
        Self {
            asked,
            sent: Vec::new(),
            _kept: Vec::new(),
        }
    }

    /// The same, and `what` lives as long.
    #[must_use]
    pub fn keeping(mut self, what: impl Any + Send) -> Self {
        self._kept.push(Box::new(what));
        self
    }
}

impl fmt::Debug for Unconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unconnected")
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

impl Part for Unconnected {
    fn configure(&self, configuration: &mut Configuration) {
        let upstreams = self.asked.iter().map(|asked| asked.upstream.clone());
        configuration.upstreams.extend(upstreams);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        let mut clients = Vec::new();
        for (to, asked) in self.asked.iter().enumerate() {
            for _ in 0..asked.requests {
                let target = stage.target(&asked.upstream.name);
                let mut client = Client::connect(stage.nginx.address())?;
                self.sent.push(Sent {
                    to,
                    target: target.clone(),
                    at_ns: now_ns(),
                });
                client.send(&Request::get(&target))?;
                clients.push((asked, target, client));
            }
        }
        for (asked, target, mut client) in clients {
            let response = client.receive()?;
            ensure!(
                response.status == asked.status,
                "{target} got {response:?}, not status {}",
                asked.status
            );
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let act = |sent: &Sent| {
            let asked = &self.asked[sent.to];
            Act {
                upstream: asked.upstream.servers.concat(),
                nginx_end: None,
                target: Some(sent.target.clone()),
                at_ns: sent.at_ns,
                what: asked.what.to_owned(),
                expected: asked.expected.clone(),
            }
        };
        Ok(self.sent.iter().map(act).collect())
    }
}

/// The truth about requests, with the times when they were sent, for which nginx had not
/// what it takes to open a connection to this backend.
#[must_use]
pub fn without_resources(backend: &Backend, failed: &[(String, u64)], what: &str) -> Vec<Act> {
    let act = |(target, at_ns): &(String, u64)| Act {
        upstream: backend.address().to_string(),
        nginx_end: None,
        target: Some(target.clone()),
        at_ns: *at_ns,
        what: what.to_owned(),
        expected: Some(Expected::new("nginx", "none", "nginx-resources")),
    };
    failed.iter().map(act).collect()
}
