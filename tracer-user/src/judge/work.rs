//! A backend's own limit on a request's time, inferred from the connections that it
//! ended with a request in flight.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::case::ms;
use super::end::{in_flight_at_end_ns, peer_end_ns};
use super::moments::Moments;
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
/// Supervisors look after their workers once a second (gunicorn, uWSGI) or three times in
/// the limit (php-fpm): limits from this time on are not blurred out of recognition by it.
const SUPERVISOR_NS: u64 = 1_100_000_000;
const BLURRED_FROM_NS: u64 = 1_900_000_000;
/// Within which share of their time workers end, of shorter limits too; and of a
/// supervisor that is known to keep several at once, whose looks may be far apart.
const WORKERS_SHARE: f64 = 0.15;
const CREWS_SHARE: f64 = 0.8;
/// A connect refused this soon after an end tells that the listening socket ended too.
const LISTENER_NS: u64 = 1_000_000_000;
/// Times of one host taken on two processors.
const CLOCK_NS: u64 = 1_000_000;
/// Closes among which a refusal looks for the one before it, and processes remembered.
const LATELY: usize = 64;
const MOST_PROCESSES: usize = 1024;

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
    /// A connect was refused right after it.
    refused_ns: Option<u64>,
}

impl Close {
    fn owned(&mut self, peer: &PeerClose) {
        let Some(exit) = peer.exit else { return };
        self.worker = (peer.parent_pid > 1).then_some(WorkerEnd {
            pid: peer.pid,
            parent_pid: peer.parent_pid,
        });
        // Signals come from a supervisor, and init is none that knows of requests.
        let by_nobody = matches!(exit, Exit::Signal(_)) && self.worker.is_none();
        self.other_cause = by_nobody || !may_be_a_supervisors(exit) || !peer.accepted;
    }

    fn refused(&mut self, ns: u64) {
        let from = self.ended_ns.saturating_sub(CLOCK_NS);
        let until = self.ended_ns.saturating_add(LISTENER_NS);
        if (from..=until).contains(&ns) {
            self.refused_ns = Some(self.refused_ns.map_or(ns, |known| known.min(ns)));
        }
    }

    /// Nobody listened after it: what ended was the server, not a worker of one.
    fn took_the_listener(&self, established: &Moments) -> bool {
        self.refused_ns.is_some_and(|refused| {
            let served = established.first_after(self.ended_ns);
            served.is_none_or(|served| refused < served)
        })
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
    /// Processes that held the last descriptor of the listening socket when they ended.
    listeners: BTreeSet<u32>,
    /// Connections with the end of which nobody listened any more.
    servers: BTreeSet<u64>,
}

impl Work {
    pub(super) fn closed_in_flight(
        &mut self,
        connection: &Connection,
        peer: Option<&PeerClose>,
        refused: &Moments,
    ) {
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
            refused_ns: None,
        };
        if let Some(peer) = peer {
            close.owned(peer);
        }
        if let Some(ns) = refused.first_after(close.ended_ns.saturating_sub(CLOCK_NS)) {
            close.refused(ns);
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

    /// A connect was refused.
    pub(super) fn refused(&mut self, ns: u64) {
        for close in self.closes.iter_mut().rev().take(LATELY) {
            close.refused(ns);
        }
    }

    /// The end of any connection's other end. One that nobody had accepted ends with the
    /// listening socket: with its last descriptor, which no worker's is.
    pub(super) fn peer_close(&mut self, peer: &PeerClose) {
        if peer.exit.is_some() && !peer.accepted && self.listeners.len() < MOST_PROCESSES {
            self.listeners.insert(peer.pid);
        }
    }

    /// Infers the limit from what there is. `longest_ns` is at least as long as the
    /// longest request that succeeded.
    /// `several` are parents known to keep several processes at once.
    pub(super) fn settle(
        &mut self,
        longest_ns: u64,
        established: &Moments,
        mut several: BTreeSet<u32>,
    ) {
        several.extend(self.several());
        let servers = self.closes.iter();
        let servers = servers.filter(|close| close.took_the_listener(established));
        self.servers = servers.map(|close| close.cookie).collect();
        let apart = agreeing(&self.apart(), SHARE).filter(|mode| mode.ns >= longest_ns);
        // A worker is ended by the next look of its supervisor, so a request may have
        // succeeded after the limit.
        let of_workers = self
            .of_workers(&several)
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
        closes.retain(|close| self.may_be_the_limits(close));
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
    fn of_workers(&self, several: &BTreeSet<u32>) -> Option<Mode> {
        let mut longest: BTreeMap<u32, BTreeMap<u32, u64>> = BTreeMap::new();
        for close in &self.closes {
            if let Some(worker) = close.worker.filter(|_| self.may_be_the_limits(close)) {
                let workers = longest.entry(worker.parent_pid).or_default();
                let age = workers.entry(worker.pid).or_default();
                *age = (*age).max(close.in_flight_ns);
            }
        }
        longest
            .into_iter()
            .filter_map(|(parent, workers)| {
                let ages: Vec<u64> = workers.into_values().collect();
                of_one_supervisor(&ages, several.contains(&parent))
            })
            .max_by_key(|mode| mode.count)
    }

    /// Parents two of whose processes had requests at the same time.
    fn several(&self) -> BTreeSet<u32> {
        let mut requests: Vec<(u32, u64, u64, u32)> = self
            .closes
            .iter()
            .filter_map(|close| {
                let WorkerEnd { pid, parent_pid } = close.worker?;
                let began = close.ended_ns.saturating_sub(close.in_flight_ns);
                Some((parent_pid, began, close.ended_ns, pid))
            })
            .collect();
        requests.sort_unstable();
        let pairs = requests.iter().zip(requests.iter().skip(1));
        pairs
            .filter(|(one, next)| one.0 == next.0 && one.3 != next.3 && at_once(one.2, next.1))
            .map(|(one, _)| one.0)
            .collect()
    }

    fn may_be_the_limits(&self, close: &Close) -> bool {
        let listened = |worker: WorkerEnd| self.listeners.contains(&worker.pid);
        !close.other_cause
            && !self.servers.contains(&close.cookie)
            && !close.worker.is_some_and(listened)
    }

    /// Did the listening socket end with this process, or with this connection?
    pub(super) fn ended_the_server(&self, peer: &PeerClose) -> bool {
        !peer.accepted
            || self.listeners.contains(&peer.pid)
            || self.servers.contains(&peer.cookie)
            || self.closes.iter().any(|close| {
                let own = close.worker.is_some_and(|worker| worker.pid == peer.pid);
                own && self.servers.contains(&close.cookie)
            })
    }

    pub(super) const fn timeout(&self) -> Option<InferredTimeout> {
        self.timeout
    }

    /// Did the limit end this connection, whose other end `peer` tells? A process that a
    /// signal ended was killed, by whomever: that it was a supervisor for its limit takes
    /// others of its workers that ended so.
    pub(super) fn limited(
        &self,
        connection: &Connection,
        peer: Option<&PeerClose>,
    ) -> Option<InferredTimeout> {
        let timeout = self.timeout?;
        let age = ms(in_flight_at_end_ns(connection)?);
        if self.servers.contains(&connection.cookie)
            || peer.is_some_and(|peer| self.ended_the_server(peer))
        {
            return None;
        }
        let by_signal = peer.filter(|peer| matches!(peer.exit, Some(Exit::Signal(_))));
        let supervised = by_signal.is_some_and(|peer| self.supervised(&timeout, peer));
        let in_time = (age - timeout.ms).abs() <= band(&timeout);
        let limited = match by_signal {
            Some(_) if !supervised => false,
            Some(peer) if peer.exit == Some(Exit::Signal(SIGKILL)) => {
                in_time || in_time_for_a_kill(&timeout, age)
            }
            _ => in_time,
        };
        limited.then_some(timeout)
    }

    /// Did enough other workers of its supervisor end in time?
    fn supervised(&self, timeout: &InferredTimeout, peer: &PeerClose) -> bool {
        let in_time = self.closes.iter().filter(|close| {
            (ms(close.in_flight_ns) - timeout.ms).abs() <= band(timeout)
                && self.may_be_the_limits(close)
        });
        let workers: BTreeSet<u32> = in_time
            .filter_map(|close| close.worker)
            .filter(|worker| worker.parent_pid == peer.parent_pid)
            .map(|worker| worker.pid)
            .collect();
        workers.len() as u64 >= AGREEING
    }
}

/// A supervisor asks a worker to end first (gunicorn by SIGABRT) and kills one that has
/// not ended by its next look, which comes early when another worker ends: seen between
/// one and two seconds after the limit, and sooner. It counts from the worker's last sign
/// of life, and an idle worker gives one every half of the limit.
fn in_time_for_a_kill(timeout: &InferredTimeout, age: f64) -> bool {
    let least = timeout.ms - timeout.spread_ms;
    let most = band(timeout) + ms(SUPERVISOR_NS);
    age >= least / 2.0 && (age - timeout.ms).abs() <= most
}

/// How far from the limit a close may lie, in milliseconds.
fn band(timeout: &InferredTimeout) -> f64 {
    timeout.spread_ms.max(timeout.ms * SHARE)
}

/// The time at which most of these closes agree.
fn agreeing(ages: &[u64], share: f64) -> Option<Mode> {
    enough(sample(ages.iter()).mode(share, 0)?)
}

/// The same of a supervisor's workers, which end by its next look after the limit.
fn of_one_supervisor(ages: &[u64], several: bool) -> Option<Mode> {
    if several {
        let widest = sample(ages.iter()).mode(CREWS_SHARE, 0).and_then(enough);
        return widest
            .filter(|mode| mode.spread_ns <= SUPERVISOR_NS)
            .or_else(|| of_one_supervisor(ages, false));
    }
    let long = ages.iter().filter(|age| **age >= BLURRED_FROM_NS);
    let long = sample(long)
        .mode(WORKERS_SHARE, SUPERVISOR_NS)
        .map(|mode| Mode {
            of: ages.len() as u64,
            ..mode
        });
    long.and_then(enough)
        .or_else(|| agreeing(ages, WORKERS_SHARE))
}

/// Was the first at work still when the next began?
pub(super) const fn at_once(first_ended_ns: u64, next_began_ns: u64) -> bool {
    next_began_ns.saturating_add(CLOCK_NS) < first_ended_ns
}

fn sample<'a>(ages: impl Iterator<Item = &'a u64>) -> Samples {
    let mut samples = Samples::default();
    ages.for_each(|age| samples.add(*age));
    samples
}

fn enough(mode: Mode) -> Option<Mode> {
    (mode.count >= AGREEING && mode.count * 2 > mode.of).then_some(mode)
}
