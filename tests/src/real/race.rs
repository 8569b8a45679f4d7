//! Requests that meet connections which the server has just closed because they were
//! idle: the failure that an idle timeout shorter than nginx's makes.
//!
//! As in [`crate::stale`], nginx's workers are stopped while the requests and the
//! server's closes arrive, the requests first. Here they are stopped for the whole idle
//! time, so that a busy machine is not too late. The server is not touched.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use super::idle::Closes;
use super::table::Row;
use super::{Check, Setting};
use crate::act::{Act, Expected};
use crate::clock::{PATIENCE, now_ns, wait_for};
use crate::draw::Draw;
use crate::load::{Client, Method, Request};
use crate::nginx::{Configuration, Upstream};
use crate::processes::Stopped;
use crate::scenario::{Part, Stage};
use crate::sockets::{self, Socket, State};

/// How often it is tried anew.
const ATTEMPTS: usize = 8;
/// nginx has one set of workers to stop: races that are under way at the same time share
/// the stop, and it ends with the last of them.
static STOPPED: Mutex<Weak<Stopped>> = Mutex::new(Weak::new());

fn stopped(stage: &Stage<'_>) -> Result<Arc<Stopped>> {
    let mut shared = STOPPED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(stopped) = shared.upgrade() {
        return Ok(stopped);
    }
    let stopped = Arc::new(stage.nginx.stop_workers()?);
    *shared = Arc::downgrade(&stopped);
    Ok(stopped)
}

pub(super) struct Race {
    setting: Setting,
    closes: Closes,
    /// One for each request; a connection to the server each.
    methods: Vec<Method>,
    raced: Vec<Raced>,
}

/// A request and the connection that it met.
struct Raced {
    target: String,
    nginx_end: SocketAddr,
    closed_ns: u64,
    served: bool,
}

/// A kept connection and the client that has used it.
struct Kept {
    client: Client,
    nginx_end: SocketAddr,
    request: Request,
}

impl Race {
    pub(super) fn new(setting: Setting, closes: Closes, draw: &mut Draw) -> Self {
        let mut methods = vec![Method::Get; draw.count(2..=4)];
        methods.resize(methods.len() + draw.count(2..=4), Method::Post);
        Self {
            setting,
            closes,
            methods,
            raced: Vec::new(),
        }
    }

    fn block(&self, at: usize) -> String {
        format!("{}_race_{at}", self.setting.block)
    }

    /// Makes one race; false if a connection ended before its request was sent, because
    /// the machine was busy or another race had stopped the workers.
    fn attempt(&mut self, stage: &Stage<'_>) -> Result<bool> {
        let address = self.setting.process.address();
        wait_for("the server to be left alone", PATIENCE * 2, || {
            thread::sleep(Duration::from_millis(20));
            Ok((!sockets::is_used(address)?).then_some(()))
        })?;
        let mut kept = Vec::new();
        for (at, method) in self.methods.iter().enumerate() {
            let Some(one) = self.keep(stage, at, *method)? else {
                return Ok(false);
            };
            kept.push(one);
        }
        let stopped = stopped(stage)?;
        let upstreams: Vec<_> = kept.iter().map(|one| (one.nginx_end, address)).collect();
        let closed =
            |socket: &Option<Socket>| socket.is_none_or(|socket| socket.state == State::CLOSE_WAIT);
        if sockets::find(&upstreams)?.iter().any(closed) {
            return Ok(false);
        }
        for one in &mut kept {
            one.client.send(&one.request)?;
        }
        let clients: Vec<_> = kept
            .iter()
            .map(|one| (one.client.remote(), one.client.local()))
            .collect();
        wait_for("the requests to arrive at nginx", PATIENCE, || {
            let unread = |socket: &Option<Socket>| socket.is_some_and(|socket| socket.unread > 0);
            Ok(sockets::find(&clients)?.iter().all(unread).then_some(()))
        })?;
        let patience = PATIENCE + self.closes.after + self.closes.looks_every;
        wait_for("the server to close", patience, || {
            thread::sleep(Duration::from_millis(5));
            Ok(sockets::find(&upstreams)?.iter().all(closed).then_some(()))
        })?;
        let closed_ns = now_ns();
        drop(stopped);
        for mut one in kept {
            let response = one.client.receive()?;
            self.raced.push(Raced {
                target: one.request.target,
                nginx_end: one.nginx_end,
                closed_ns,
                served: response.status == 200,
            });
        }
        Ok(true)
    }

    /// Uses one connection once, and finds nginx's end of it, unless it has ended already.
    fn keep(&self, stage: &Stage<'_>, at: usize, method: Method) -> Result<Option<Kept>> {
        let address = self.setting.process.address();
        let before = ends(address)?;
        let mut client = Client::connect(stage.nginx.address())?;
        let block = self.block(at);
        let response = client.ask(&Request::get(stage.target(&block)))?;
        if response.status != 200 {
            bail!("{block} answered {response:?}");
        }
        let Some(nginx_end) = ends(address)?.difference(&before).copied().next() else {
            return Ok(None);
        };
        let target = stage.target(&block);
        Ok(Some(Kept {
            client,
            nginx_end,
            request: match method {
                Method::Get => Request::get(target),
                Method::Post => Request::post(target, 16),
            },
        }))
    }
}

/// nginx's ends of the connections to a server that nobody else talks to.
fn ends(address: SocketAddr) -> Result<BTreeSet<SocketAddr>> {
    let sockets = sockets::towards(address)?.into_iter();
    let open = sockets.filter(|socket| socket.state == State::ESTABLISHED);
    Ok(open.map(|socket| socket.local).collect())
}

impl Part for Race {
    fn configure(&self, configuration: &mut Configuration) {
        let address = self.setting.process.address();
        for at in 0..self.methods.len() {
            let upstream = Upstream::new(self.block(at), address).keepalive(4);
            configuration.upstreams.push(upstream);
        }
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        for _ in 0..ATTEMPTS {
            if self.attempt(stage)? {
                return Ok(());
            }
        }
        bail!("the connections always ended before the requests were sent")
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let act = |raced: &Raced| Act {
            upstream: self.setting.process.address().to_string(),
            nginx_end: Some(raced.nginx_end),
            target: Some(raced.target.clone()),
            at_ns: raced.closed_ns,
            what: "closed when its idle time was over".to_owned(),
            expected: Some(Expected::new("backend", "fin", "stale-keepalive").or_means("rst")),
        };
        Ok(self.raced.iter().map(act).collect())
    }
}

impl Check for Race {
    fn row(&self, upstream: &Value) -> Row {
        Row {
            requests: Some(self.raced.len()),
            failed: Some(self.raced.iter().filter(|raced| !raced.served).count()),
            ..Row::new(&self.setting, "raced", upstream)
        }
    }

    fn stops_nginx(&self) -> bool {
        true
    }
}
