//! A backend's own limit on a request's time, inferred from the connections that it
//! ended with a request in flight.

use std::collections::{BTreeMap, VecDeque};

use super::case::ms;
use super::end::{in_flight_at_end_ns, peer_end_ns};
use super::samples::{Mode, Samples};
use crate::report::model::InferredTimeout;
use crate::trace::record::{Connection, Exit, PeerClose};

/// Closes remembered.
const MOST: usize = 1024;
/// Closes that must agree.
const AGREEING: u64 = 3;
/// Within which share of their time.
const SHARE: f64 = 0.05;
/// What is over sooner than this is no limit on time.
const LEAST_NS: u64 = 500_000_000;
/// Closes this close together may have one reason, such as the end of a process: they
/// count once, or requests that began together would agree by chance.
const TOGETHER_NS: u64 = 20_000_000;
/// Supervisors look after their workers once a second.
const SUPERVISOR_NS: u64 = 1_100_000_000;

const SIGKILL: u32 = 9;

/// A worker process whose end ended the connection.
#[derive(Clone, Copy, Debug)]
struct WorkerEnd {
    pid: u32,
    parent_pid: u32,
}

/// A connection that the backend ended with a request in flight.
#[derive(Clone, Copy, Debug)]
struct Close {
    cookie: u64,
    ended_ns: u64,
    in_flight_ns: u64,
    worker: Option<WorkerEnd>,
    /// The end of its process says itself what it was.
    other_cause: bool,
}

impl Close {
    fn owned(&mut self, peer: &PeerClose) {
        let Some(exit) = peer.exit else { return };
        self.worker = (peer.parent_pid > 1).then_some(WorkerEnd {
            pid: peer.pid,
            parent_pid: peer.parent_pid,
        });
        self.other_cause = !may_be_a_supervisors(exit);
    }
}

/// A supervisor kills, or aborts to get a core dump; it sends no other fault's signal.
pub(super) const fn may_be_a_supervisors(exit: Exit) -> bool {
    match exit {
        Exit::OutOfMemory => false,
        Exit::Signal(number) => !matches!(number, 4 | 5 | 7 | 8 | 11 | 31),
        Exit::Code(_) => true,
    }
}

/// One upstream's closes in flight.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    closes: VecDeque<Close>,
    timeout: Option<InferredTimeout>,
}

impl Work {
    pub(super) fn closed_in_flight(&mut self, connection: &Connection, peer: Option<&PeerClose>) {
        let Some(in_flight_ns) = in_flight_at_end_ns(connection).filter(|ns| *ns >= LEAST_NS)
        else {
            return;
        };
        let mut close = Close {
            cookie: connection.cookie,
            ended_ns: peer_end_ns(connection).unwrap_or(connection.ended_ns),
            in_flight_ns,
            worker: None,
            other_cause: false,
        };
        if let Some(peer) = peer {
            close.owned(peer);
        }
        self.closes.push_back(close);
        if self.closes.len() > MOST {
            self.closes.pop_front();
        }
    }

    /// The owner of a connection that has been counted already.
    pub(super) fn owned(&mut self, peer: &PeerClose) {
        if let Some(close) = self
            .closes
            .iter_mut()
            .rev()
            .find(|close| close.cookie == peer.cookie)
            .filter(|close| peer.ns <= close.ended_ns.saturating_add(TOGETHER_NS))
        {
            close.owned(peer);
        }
    }

    /// Infers the limit from what there is. `longest_ns` is at least as long as the
    /// longest request that succeeded.
    pub(super) fn settle(&mut self, longest_ns: u64) {
        let apart = agreeing(self.apart().into_iter(), 0).filter(|mode| mode.ns >= longest_ns);
        // A worker is ended by the next look of its supervisor, so a request may have
        // succeeded after the limit.
        let of_workers = self
            .of_workers()
            .filter(|mode| mode.ns.saturating_add(mode.spread_ns) >= longest_ns);
        // Some of the workers' ages may agree more closely by chance.
        let counted = |mode: &Option<Mode>| mode.map_or(0, |mode| mode.count);
        let mode = if counted(&of_workers) > counted(&apart) {
            of_workers
        } else {
            apart
        };
        self.timeout = mode.map(|mode| InferredTimeout {
            ms: ms(mode.ns),
            spread_ms: ms(mode.spread_ns),
            samples: mode.count,
        });
    }

    /// Times in flight of the closes that do not coincide.
    fn apart(&self) -> Vec<u64> {
        let mut closes: Vec<&Close> = self.closes.iter().collect();
        closes.retain(|close| !close.other_cause);
        closes.sort_by_key(|close| (close.ended_ns, close.cookie));
        let mut last = None;
        closes.retain(|close| {
            let kept = last.is_none_or(|last| close.ended_ns - last > TOGETHER_NS);
            if kept {
                last = Some(close.ended_ns);
            }
            kept
        });
        closes.iter().map(|close| close.in_flight_ns).collect()
    }

    /// Workers of one supervisor that ended with their longest request equally old.
    fn of_workers(&self) -> Option<Mode> {
        let mut longest: BTreeMap<u32, BTreeMap<u32, u64>> = BTreeMap::new();
        for close in &self.closes {
            if let Some(worker) = close.worker.filter(|_| !close.other_cause) {
                let workers = longest.entry(worker.parent_pid).or_default();
                let age = workers.entry(worker.pid).or_default();
                *age = (*age).max(close.in_flight_ns);
            }
        }
        longest
            .into_values()
            .filter_map(|workers| agreeing(workers.into_values(), SUPERVISOR_NS))
            .max_by_key(|mode| mode.count)
    }

    pub(super) const fn timeout(&self) -> Option<InferredTimeout> {
        self.timeout
    }

    /// Did the limit end this connection, whose other end `peer` tells?
    pub(super) fn limited(
        &self,
        connection: &Connection,
        peer: Option<&PeerClose>,
    ) -> Option<InferredTimeout> {
        let timeout = self.timeout?;
        let age = ms(in_flight_at_end_ns(connection)?);
        let killed = peer.is_some_and(|peer| self.killed_by_the_supervisor(&timeout, peer));
        let most = band(&timeout) + if killed { ms(SUPERVISOR_NS) } else { 0.0 };
        ((age - timeout.ms).abs() <= most).then_some(timeout)
    }

    /// A supervisor asks a worker to end first (gunicorn by SIGABRT) and kills one that
    /// has not ended by its next look, which comes early when another worker ends: seen
    /// between one and two seconds after the limit, and sooner.
    fn killed_by_the_supervisor(&self, timeout: &InferredTimeout, peer: &PeerClose) -> bool {
        let ended_in_time = |close: &Close| {
            (ms(close.in_flight_ns) - timeout.ms).abs() <= band(timeout)
                && close
                    .worker
                    .is_some_and(|worker| worker.parent_pid == peer.parent_pid)
        };
        peer.exit == Some(Exit::Signal(SIGKILL)) && self.closes.iter().any(ended_in_time)
    }
}

/// How far from the limit a close may lie, in milliseconds.
fn band(timeout: &InferredTimeout) -> f64 {
    timeout.spread_ms.max(timeout.ms * SHARE)
}

/// The time at which most of these closes agree.
fn agreeing(ages: impl Iterator<Item = u64>, least_ns: u64) -> Option<Mode> {
    let mut samples = Samples::default();
    for age in ages {
        samples.add(age);
    }
    samples
        .mode(SHARE, least_ns)
        .filter(|mode| mode.count >= AGREEING && mode.count * 2 > mode.of)
}
