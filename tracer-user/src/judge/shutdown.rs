//! Requests that ended because their worker did. nginx writes no line for them (seen on
//! 1.22.1: after a reload with `worker_shutdown_timeout`, after SIGTERM and SIGKILL), so
//! what the connections show goes into a note of the report.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;

use super::Judge;
use super::end::peer_end_ns;
use super::generations::in_force;
use crate::report::words::counted;
use crate::trace::record::{Connection, ConnectionEnd};

/// That a worker has gone is noticed this much later, at most.
const NOTICED_NS: u64 = 3_000_000_000;
/// A worker that ends closes all that it has within this time.
const TOGETHER_NS: u64 = 100_000_000;
/// Closes kept of a worker.
const MOST: usize = 4096;
/// Backends named.
const NAMED: usize = 4;

/// A connection that nginx closed with a request unanswered.
#[derive(Clone, Copy, Debug)]
struct Cut {
    cookie: u64,
    remote: SocketAddr,
    ns: u64,
}

/// A worker's last closes.
#[derive(Debug, Default)]
struct Closes {
    last_ns: u64,
    cuts: VecDeque<Cut>,
}

/// Workers that ended, and what they closed before.
#[derive(Debug, Default)]
pub(super) struct Shutdowns {
    closes: HashMap<u32, Closes>,
    gone: Vec<(u64, u32)>,
}

impl Shutdowns {
    pub(super) fn connection(&mut self, connection: &Connection) {
        if connection.end == ConnectionEnd::Open {
            return;
        }
        let ns = connection.ended_ns;
        let closes = self.closes.entry(connection.pid).or_default();
        closes.last_ns = closes.last_ns.max(ns);
        while closes.cuts.len() >= MOST
            || closes
                .cuts
                .front()
                .is_some_and(|cut| cut.ns.saturating_add(NOTICED_NS) < closes.last_ns)
        {
            closes.cuts.pop_front();
        }
        let unanswered = connection.established_ns.is_some()
            && connection.exchanges > 0
            && connection.first_byte_ns.is_none()
            && peer_end_ns(connection).is_none();
        if unanswered {
            closes.cuts.push_back(Cut {
                cookie: connection.cookie,
                remote: connection.remote,
                ns,
            });
        }
    }

    pub(super) fn gone(&mut self, ns: u64, pid: u32) {
        self.gone.push((ns, pid));
    }

    /// What workers that ended left unanswered, as far as no line tells of it.
    pub(super) fn note(&self, judge: &Judge) -> Option<String> {
        let mut workers = Vec::new();
        let mut backends: BTreeMap<SocketAddr, u64> = BTreeMap::new();
        for (gone_ns, pid) in &self.gone {
            let Some(closes) = self.closes.get(pid) else {
                continue;
            };
            if closes.last_ns > *gone_ns || gone_ns - closes.last_ns > NOTICED_NS {
                continue;
            }
            let cuts: Vec<&Cut> = closes
                .cuts
                .iter()
                .filter(|cut| cut.ns.saturating_add(TOGETHER_NS) >= closes.last_ns)
                .filter(|cut| !judge.entry_of.contains_key(&cut.cookie))
                .collect();
            for cut in &cuts {
                *backends.entry(cut.remote).or_default() += 1;
            }
            if !cuts.is_empty() {
                workers.push((*gone_ns, *pid));
            }
        }
        let requests: u64 = backends.values().sum();
        if requests == 0 {
            return None;
        }
        let mut named: Vec<String> = backends
            .iter()
            .take(NAMED)
            .map(|(backend, requests)| format!("{backend} {requests}"))
            .collect();
        if backends.len() > NAMED {
            named.push("others".to_owned());
        }
        let who = match workers.as_slice() {
            [(_, pid)] => format!("worker {pid}"),
            _ => format!("{} workers", workers.len()),
        };
        Some(format!(
            "{who} of nginx ended with {} unanswered ({}), of which nginx writes no line: a \
             reload{}, a fast stop or a crash of the worker cuts its requests so",
            counted(requests, "request", "requests"),
            named.join(", "),
            shutdown_timeout(judge, &workers),
        ))
    }
}

/// What the workers that ended were running with, which a reload may have changed.
fn shutdown_timeout(judge: &Judge, workers: &[(u64, u32)]) -> String {
    let set = workers
        .iter()
        .filter_map(|(ns, pid)| in_force(judge.generations.of_worker(*pid, *ns)?))
        .find_map(|configuration| configuration.main.get("worker_shutdown_timeout"));
    set.map_or_else(
        || " with worker_shutdown_timeout".to_owned(),
        |set| format!(" (worker_shutdown_timeout is {set})"),
    )
}
