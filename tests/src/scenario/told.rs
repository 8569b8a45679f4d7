//! A part whose one backend does with each request what the request tells it to.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{Part, Stage};
use crate::act::{Act, Constant, Expected, Value};
use crate::backend::{Backend, Connection, Ended, Why};
use crate::behaviour::Behaviour;
use crate::clock::{PATIENCE, now_ns};
use crate::idle::{Asked, Silence};
use crate::load::{Client, Request};
use crate::nginx::{Configuration, Upstream};

/// What to ask the backend, and what the outcome deserves.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What the backend is to do.
    pub behaviour: Behaviour,
    /// Bytes of body: none makes it a GET.
    pub body: usize,
    /// None: nothing may go wrong.
    pub expected: Option<Expected>,
}

impl Ask {
    /// A GET that fails like this.
    #[must_use]
    pub fn failing(behaviour: Behaviour, expected: Expected) -> Self {
        Self {
            behaviour,
            body: 0,
            expected: Some(expected),
        }
    }

    /// A GET that is answered.
    #[must_use]
    pub fn good() -> Self {
        Self {
            behaviour: Behaviour::ANSWER,
            body: 0,
            expected: None,
        }
    }

    /// The same with a POST and so many bytes of body.
    #[must_use]
    pub fn with_body(mut self, bytes: usize) -> Self {
        self.body = bytes;
        self
    }
}

/// One backend behind one upstream block.
#[derive(Debug)]
pub struct Told {
    upstream: Upstream,
    backend: Backend,
    asks: Vec<Ask>,
    sent: BTreeMap<String, Ask>,
    asked: Vec<Asked>,
    constants: Vec<Constant>,
}

impl Told {
    /// A part that sends these, one after the other, each on a client connection of
    /// its own. `upstream` has the backend as its only server.
    #[must_use]
    pub fn new(upstream: Upstream, backend: Backend, asks: Vec<Ask>) -> Self {
        Self {
            upstream,
            backend,
            asks,
            sent: BTreeMap::new(),
            asked: Vec::new(),
            constants: Vec::new(),
        }
    }

    /// The same with something that can be inferred of the backend.
    #[must_use]
    pub fn inferable(mut self, value: Value) -> Self {
        self.constants.push(Constant {
            upstream: self.backend.address().to_string(),
            value,
        });
        self
    }
}

impl Part for Told {
    fn configure(&self, configuration: &mut Configuration) {
        configuration.upstreams.push(self.upstream.clone());
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        for ask in &self.asks {
            let target = stage.target(&self.upstream.name);
            let request = if ask.body == 0 {
                Request::get(&target)
            } else {
                Request::post(&target, ask.body)
            };
            let mut client = Client::connect(stage.nginx.address())?;
            self.sent.insert(target.clone(), ask.clone());
            let asked_ns = now_ns();
            // nginx may answer and close before it has read a large body; what the
            // client gets, if anything, is not the point: that it is over is.
            let _ = client.send(&request.asking(ask.behaviour));
            let whole = client.receive().is_ok_and(|response| response.complete);
            self.asked.push(Asked {
                target,
                asked_ns,
                told_ns: whole.then(now_ns),
            });
        }
        // A kept connection stays open, but nothing is under way on it.
        let settled = |record: &Connection| {
            let answered = record
                .requests
                .last()
                .is_none_or(|last| last.answered_ns().is_some());
            !record.is_open() || answered
        };
        let what = "the last acts to be recorded";
        self.backend
            .wait_until(what, PATIENCE, |records| records.iter().all(settled))?;
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let mut acts = Vec::new();
        for connection in self.backend.connections() {
            for (at, request) in connection.requests.iter().enumerate() {
                let is_last = at + 1 == connection.requests.len();
                let expected = self.sent.get(&request.target).and_then(|ask| {
                    // Only the last request on a connection can have failed with it.
                    let expected = ask.expected.clone().filter(|_| is_last)?;
                    let idle = Silence::before_last_request(&connection, &self.asked);
                    Some(expected.after(idle))
                });
                acts.push(Act {
                    upstream: connection.local.to_string(),
                    nginx_end: Some(connection.remote),
                    target: Some(request.target.clone()),
                    at_ns: connection.end.map_or(request.read_ns, |end| end.at_ns),
                    what: request.behaviour.to_string(),
                    expected,
                });
            }
            if let Some(end) = connection.end
                && matches!(end.how, Ended::Closed(_))
                && matches!(
                    end.why,
                    Why::Idle | Why::RequestLimit | Why::Asked | Why::AfterAnswer | Why::Announced
                )
            {
                acts.push(Act {
                    upstream: connection.local.to_string(),
                    nginx_end: Some(connection.remote),
                    target: None,
                    at_ns: end.at_ns.min(now_ns()),
                    what: format!("normal close: {:?}", end.why),
                    expected: None,
                });
            }
        }
        Ok(acts)
    }

    fn constants(&self) -> Vec<Constant> {
        self.constants.clone()
    }
}
