//! The idle timeout: connections left alone in nginx's pools, until the server closes
//! them all.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use super::direct::{self, Use};
use super::table::{Accuracy, Inferred, Measured, Row};
use super::{Check, Setting};
use crate::act::Act;
use crate::clock::PATIENCE;
use crate::draw::Draw;
use crate::load::{Client, Request};
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Stage};
use crate::sockets;

/// How a server closes idle connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closes {
    /// After this silence at the earliest.
    pub(super) after: Duration,
    /// It looks for them only so often.
    pub(super) looks_every: Duration,
}

impl Closes {
    /// As soon as the silence is over.
    pub(super) const fn at_once(after: Duration) -> Self {
        Self {
            after,
            looks_every: Duration::ZERO,
        }
    }

    /// Connections through nginx, and as many without: more where their ages differ.
    const fn connections(self) -> usize {
        if self.looks_every.is_zero() { 16 } else { 64 }
    }
}

pub(super) struct Idle {
    setting: Setting,
    closes: Closes,
    uses: Vec<Use>,
    direct: Vec<Use>,
    measured: Vec<Duration>,
}

impl Idle {
    /// Uses begin spread over two seconds and two of the server's looks, so that it is met
    /// at any time between them.
    pub(super) fn new(setting: Setting, closes: Closes, draw: &mut Draw) -> Self {
        let over = Duration::from_secs(2) + closes.looks_every * 2;
        let most = u64::try_from(over.as_millis()).unwrap_or(u64::MAX);
        let mut uses = || {
            let one = |_| Use {
                after: draw.milliseconds(0..=most),
                requests: draw.count(1..=4),
            };
            (0..closes.connections()).map(one).collect()
        };
        Self {
            uses: uses(),
            direct: uses(),
            setting,
            closes,
            measured: Vec::new(),
        }
    }

    fn patience(&self) -> Duration {
        self.closes.after * 2 + self.closes.looks_every * 3 + PATIENCE
    }

    fn block(&self, at: usize) -> String {
        format!("{}_idle_{at}", self.setting.block)
    }
}

impl Part for Idle {
    /// Each connection has a pool of its own: none is taken for another's request.
    fn configure(&self, configuration: &mut Configuration) {
        let address = self.setting.process.address();
        for at in 0..self.uses.len() {
            let upstream = Upstream::new(self.block(at), address).keepalive(4);
            configuration.upstreams.push(upstream);
        }
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        let address = self.setting.process.address();
        let used = thread::scope(|scope| {
            let threads: Vec<_> = (self.uses.iter().enumerate())
                .map(|(at, used)| {
                    let block = self.block(at);
                    scope.spawn(move || use_once(stage, &block, *used))
                })
                .collect();
            self.measured = direct::idle_ages(address, &self.direct, self.patience())?;
            threads
                .into_iter()
                .try_for_each(|thread| match thread.join() {
                    Ok(used) => used,
                    Err(_) => bail!("a client panicked"),
                })
        });
        used?;
        let deadline = Instant::now() + self.patience();
        loop {
            if !sockets::is_used(address)? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("{} never closes its idle connections", self.setting.server);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// No request is under way when a connection ends: no line is right.
    fn truth(&self) -> Result<Vec<Act>> {
        Ok(Vec::new())
    }
}

fn use_once(stage: &Stage<'_>, block: &str, used: Use) -> Result<()> {
    thread::sleep(used.after);
    // One client connection: one worker, and so one pool.
    let mut client = Client::connect(stage.nginx.address())?;
    for _ in 0..used.requests {
        let response = client.ask(&Request::get(stage.target(block)))?;
        if response.status != 200 {
            bail!("{block} answered {response:?}");
        }
    }
    Ok(())
}

impl Check for Idle {
    fn row(&self, upstream: &Value) -> Row {
        Row {
            accuracy: Accuracy::Time {
                share: 0.02,
                least_ms: 20.0,
            },
            configured: self.closes.after.as_secs_f64() * 1000.0,
            measured: Some(Measured::of_times(&self.measured)),
            inferred: Inferred::time(&upstream["idle_timeout"]),
            ..Row::new(&self.setting, "idle timeout", upstream)
        }
    }
}
