//! The request limit: one connection after the other used up to its last request. A
//! server that speaks HTTP announces the end in its last answer; one that speaks FastCGI
//! cannot.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use super::table::{Accuracy, Inferred, Measured, Row};
use super::{Check, Process, Setting, direct};
use crate::act::Act;
use crate::clock::{PATIENCE, wait_for};
use crate::load::{Client, Request};
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Stage};
use crate::sockets;

/// Connections that are used up.
const CONNECTIONS: usize = 5;

/// How a server takes requests whose end it does not announce.
#[derive(Clone, Copy)]
pub(super) struct Unannounced {
    /// Adds the location `/BLOCK/`.
    pub(super) configure: fn(&Setting, &str, &mut Configuration),
    /// Requests that each connection served, by the application's records.
    pub(super) measured: fn(&Process) -> Vec<usize>,
}

pub(super) struct Limit {
    setting: Setting,
    requests: usize,
    unannounced: Option<Unannounced>,
    measured: Vec<usize>,
}

impl Limit {
    pub(super) fn new(setting: Setting, requests: usize) -> Self {
        Self {
            setting,
            requests,
            unannounced: None,
            measured: Vec::new(),
        }
    }

    pub(super) fn unannounced(setting: Setting, requests: usize, how: Unannounced) -> Self {
        Self {
            unannounced: Some(how),
            ..Self::new(setting, requests)
        }
    }

    /// Uses connections up without nginx.
    fn measure(&mut self) -> Result<()> {
        let address = self.setting.process.address();
        for _ in 0..CONNECTIONS {
            let answers = direct::answers_until_close(address, self.requests * 4)?;
            self.measured.push(answers);
        }
        Ok(())
    }

    /// Nothing is sent on a connection whose end is under way, or it might be lost.
    fn await_end(&self) -> Result<()> {
        let address = self.setting.process.address();
        wait_for("the used connection to end", PATIENCE, || {
            thread::sleep(Duration::from_millis(5));
            Ok((!sockets::is_used(address)?).then_some(()))
        })
    }

    fn block(&self) -> String {
        format!("{}_limit", self.setting.block)
    }
}

impl Part for Limit {
    fn configure(&self, configuration: &mut Configuration) {
        if let Some(how) = self.unannounced {
            return (how.configure)(&self.setting, &self.block(), configuration);
        }
        let address = self.setting.process.address();
        let upstream = Upstream::new(self.block(), address).keepalive(4);
        configuration.upstreams.push(upstream);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        if self.unannounced.is_none() {
            self.measure()?;
        }
        // One client connection: one worker, and so one pool with one connection.
        let mut client = Client::connect(stage.nginx.address())?;
        for sent in 1..=self.requests * CONNECTIONS + self.requests / 2 {
            let response = client.ask(&Request::get(stage.target(&self.block())))?;
            if response.status != 200 {
                bail!("{} answered {response:?}", self.block());
            }
            if self.unannounced.is_some() && sent % self.requests == 0 {
                self.await_end()?;
            }
        }
        if let Some(how) = self.unannounced {
            self.measured = (how.measured)(&self.setting.process);
        }
        Ok(())
    }

    /// Nothing is sent on a connection that ends: nothing fails.
    fn truth(&self) -> Result<Vec<Act>> {
        Ok(Vec::new())
    }
}

impl Check for Limit {
    fn row(&self, upstream: &Value) -> Row {
        // Far below 2³².
        let number = |count: &usize| f64::from(u32::try_from(*count).unwrap_or(u32::MAX));
        Row {
            accuracy: match self.unannounced {
                Some(_) => Accuracy::Exact,
                None => Accuracy::Announced,
            },
            configured: number(&self.requests),
            measured: Some(Measured::of(self.measured.iter().map(number).collect())),
            inferred: Inferred::requests(&upstream["request_limit"]),
            ..Row::new(&self.setting, "request limit", upstream)
        }
    }
}
