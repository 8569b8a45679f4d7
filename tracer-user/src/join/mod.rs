//! Joins the trace of nginx's host with those of backends' hosts: by address pair and
//! time, with the offset of their clocks estimated from the connections themselves. What
//! a backend's host saw becomes the records that a capture writes for a backend on
//! nginx's own host, so that the judge takes both alike. A pure function of the traces.

mod lost;
mod offset;
mod overlap;
mod pairs;
mod traces;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

pub use self::traces::{Backend, Nginx};

use self::lost::Losses;
use self::offset::Offset;
use self::pairs::{Pairs, sent_first};
use self::traces::{Ours, canonical, counts};
use crate::report::model::Joined;
use crate::report::words::counted;
use crate::trace::record::{
    Accepted, AcceptedEnd, BackendExit, BackendProcess, Listener, PeerClose, Record,
};

/// Two events on different hosts this far apart may have come in either order, beyond
/// what is known of the clocks.
const ORDER_NS: u64 = 1_000_000;

/// What is to be put into the stream of nginx's records.
#[derive(Debug, Default)]
pub struct Join {
    /// Ends of backends' sides, by the cookie of nginx's.
    closes: HashMap<u64, PeerClose>,
    /// Other records, by time, latest first.
    timed: Vec<(u64, Record)>,
    /// Connections to backends whose host was watched that are in none of its traces:
    /// that they were not seen to close says nothing.
    pub unwatched: HashSet<u64>,
    /// Of these, those whose backend's side may be missing because its capture lost
    /// something at about that time, and that host.
    pub sides_lost: HashMap<u64, String>,
    /// What the report says of each backend's trace.
    pub summaries: Vec<Joined>,
    /// What limits the report.
    pub notes: Vec<String>,
}

/// Joins.
#[must_use]
pub fn join(nginx: &Nginx, backends: &[Backend]) -> Join {
    let mut join = Join::default();
    let mut watched: HashSet<u64> = HashSet::new();
    let mut served: BTreeSet<SocketAddr> = BTreeSet::new();
    let mut losses: Vec<(&Backend, BTreeSet<SocketAddr>, Losses)> = Vec::new();
    let once = overlap::without_repeats(backends, &mut join.notes);
    let found: Vec<Pairs<'_>> = once
        .iter()
        .map(|backend| pairs::find(nginx, backend))
        .collect();
    // A connection that two traces claim is of neither.
    let claims = counts(
        found
            .iter()
            .flat_map(|pairs| pairs.joined.iter().map(|(ours, _)| ours.cookie)),
    );
    // Two hosts number their processes alike; the judge knows processes by number.
    let mut numbers = counts(overlap::hosts(&once).into_iter());
    for pid in &nginx.pids {
        *numbers.entry(*pid).or_default() += 1;
    }
    for (backend, mut pairs) in once.iter().zip(found) {
        let before = pairs.joined.len();
        pairs
            .joined
            .retain(|(ours, _)| claims.get(&ours.cookie) == Some(&1));
        pairs.ambiguous += (before - pairs.joined.len()) as u64;
        watched.extend(pairs.joined.iter().map(|(ours, _)| ours.cookie));
        let here: BTreeSet<SocketAddr> = pairs.joined.iter().map(|(ours, _)| ours.remote).collect();
        served.extend(&here);
        if let Some(offset) = &pairs.offset {
            join.take(nginx, backend, &pairs, offset, &numbers);
            losses.push((backend, here, Losses::of(backend, offset)));
        }
        join.report(nginx, backend, &pairs);
    }
    let not_joined = nginx
        .connections
        .iter()
        .filter(|ours| served.contains(&ours.remote) && !watched.contains(&ours.cookie));
    for ours in not_joined {
        join.unwatched.insert(ours.cookie);
        let hidden = losses.iter().find(|(_, served, losses)| {
            served.contains(&ours.remote)
                && !nginx.followed.contains(&ours.cookie)
                && losses.may_hide(ours)
        });
        if let Some((backend, ..)) = hidden {
            join.sides_lost.insert(ours.cookie, host(backend));
        }
    }
    join.timed.sort_by_key(|(ns, _)| std::cmp::Reverse(*ns));
    join
}

impl Join {
    /// Gives the records to take in the place of this one of nginx's: itself, and before
    /// it those of the other hosts that came by then.
    pub fn around(&mut self, record: Record, mut take: impl FnMut(&Record)) {
        match &record {
            Record::Connection(connection) => {
                if let Some(close) = self.closes.remove(&connection.cookie) {
                    take(&Record::PeerClose(Box::new(close)));
                }
            }
            Record::Anchor(anchor) => self.until(anchor.monotonic_ns, &mut take),
            Record::End(_) => self.until(u64::MAX, &mut take),
            _ => {}
        }
        take(&record);
    }

    /// Those that are left, if the trace had no end.
    pub fn rest(&mut self, mut take: impl FnMut(&Record)) {
        self.until(u64::MAX, &mut take);
    }

    fn until(&mut self, ns: u64, take: &mut impl FnMut(&Record)) {
        while let Some((_, record)) = self.timed.pop_if(|(at, _)| *at <= ns) {
            take(&record);
        }
    }

    fn take(
        &mut self,
        nginx: &Nginx,
        backend: &Backend,
        pairs: &Pairs<'_>,
        offset: &Offset,
        numbers: &HashMap<u32, u64>,
    ) {
        let mut processes: BTreeMap<(SocketAddr, u32), BackendProcess> = BTreeMap::new();
        let alike = |pid: u32| numbers.get(&pid).is_some_and(|hosts| *hosts > 1);
        let losses = Losses::of(backend, offset);
        let mut left_out = 0;
        for (ours, accepted) in &pairs.joined {
            // This host's own capture saw the other end.
            if nginx.followed.contains(&ours.cookie) {
                continue;
            }
            let close = close(ours, accepted, backend, offset);
            // Whether that process lived on could not be told from what became of the
            // other one.
            if accepted.exit.is_none() && accepted.pid.is_some_and(alike) {
                left_out += u64::from(close.is_some());
                self.unwatched.insert(ours.cookie);
                continue;
            }
            if let Some(close) = close {
                self.closes.insert(ours.cookie, close);
            } else if losses.may_hide_the_close(ours, accepted) {
                // Nor was it open still, for all that is known.
                self.unwatched.insert(ours.cookie);
                self.sides_lost.insert(ours.cookie, host(backend));
            }
            if let Some(process) = process(ours, accepted, offset) {
                add(&mut processes, ours.remote, process);
            }
        }
        let held: BTreeSet<u32> = processes.keys().map(|(_, pid)| *pid).collect();
        for exit in backend.exits.iter().filter(|exit| held.contains(&exit.pid)) {
            if !alike(exit.pid) {
                let (ns, _) = offset.convert(exit.ns);
                let exit = BackendExit { ns, ..exit.clone() };
                self.timed.push((ns, Record::BackendExit(exit)));
            }
        }
        if left_out > 0 {
            self.notes.push(format!(
                "{} by processes on {} whose numbers processes of another host have too: left out, \
                 for the two cannot be told apart",
                counted(left_out, "connection was closed", "connections were closed"),
                host(backend)
            ));
        }
        for process in processes.into_values() {
            self.timed
                .push((process.last_ns, Record::BackendProcess(process)));
        }
        self.queues(backend, pairs, offset);
    }

    /// A full queue, as one of the address that nginx connects to.
    fn queues(&mut self, backend: &Backend, pairs: &Pairs<'_>, offset: &Offset) {
        let addresses: BTreeSet<(SocketAddr, u32, u32)> = pairs
            .joined
            .iter()
            .map(|(ours, accepted)| (ours.remote, ours.netns, accepted.netns))
            .collect();
        for full in &backend.listeners {
            for (address, netns, there) in &addresses {
                let listening = full.address.to_canonical();
                let here = listening.is_unspecified() || listening == address.ip();
                if full.port == address.port() && full.netns == *there && here {
                    let (ns, _) = offset.convert(full.ns);
                    let listener = Listener {
                        ns,
                        address: address.ip(),
                        netns: *netns,
                        ..full.clone()
                    };
                    self.timed.push((ns, Record::Listener(listener)));
                }
            }
        }
    }

    fn report(&mut self, nginx: &Nginx, backend: &Backend, pairs: &Pairs<'_>) {
        let host = host(backend);
        if pairs.joined.is_empty() {
            self.notes.push(not_joined(nginx, backend, pairs));
        }
        if let Some(missed) = overlap::missed(nginx, backend)
            && !pairs.joined.is_empty()
            && missed.is_much()
        {
            self.notes.push(missed.said(&host));
        }
        if pairs.ambiguous > 0 {
            self.notes.push(format!(
                "{} could be more than one that {host} accepted (addresses and ports were used \
                 again) and were not joined with any",
                counted(pairs.ambiguous, "connection", "connections")
            ));
        }
        let lost: u64 = backend.lost.values().sum();
        if lost > 0 {
            self.notes.push(format!(
                "the capture on {host} lost {}",
                counted(lost, "record", "records")
            ));
        }
        if !backend.complete {
            self.notes.push(format!(
                "the trace of {host} has no end record: its capture was killed or is still running"
            ));
        }
        let one_clock = pairs
            .offset
            .as_ref()
            .is_some_and(|offset| offset.samples == 0);
        let offset = pairs.offset.as_ref().filter(|_| !pairs.joined.is_empty());
        self.summaries.push(Joined {
            trace: backend.name.clone(),
            host,
            ports: backend.capture.ports.clone(),
            accepted: backend.accepted.len() as u64,
            connections: pairs.joined.len() as u64,
            ambiguous: pairs.ambiguous,
            one_clock: one_clock && offset.is_some(),
            clock_offset_ms: offset.map(|offset| signed_ms(middle(offset, pairs))),
            clock_error_ms: offset.map(|offset| ms(offset.error_ns())),
            clock_median_ms: offset.map(|offset| signed_ms(offset.median_ns)),
            clock_spread_ms: offset.map(|offset| ms(offset.spread_ns)),
            clock_drift_ms: offset.map(|offset| signed_ms(offset.drift_ns())),
            clock_samples: offset.map_or(0, |offset| offset.samples),
        });
    }
}

/// The offset in the middle of the connections.
fn middle(offset: &Offset, pairs: &Pairs<'_>) -> i64 {
    let middle = pairs.joined.get(pairs.joined.len() / 2);
    middle.map_or(0, |(ours, _)| offset.at(ours.opened_ns).offset_ns)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds shown as milliseconds"
)]
fn signed_ms(ns: i64) -> f64 {
    ns as f64 / 1e6
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds shown as milliseconds"
)]
fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

fn host(backend: &Backend) -> String {
    if backend.capture.host.is_empty() {
        backend.name.clone()
    } else {
        backend.capture.host.clone()
    }
}

/// The end of the backend's side as the judge takes it, if it was the first to end.
fn close(
    ours: &Ours,
    accepted: &Accepted,
    backend: &Backend,
    offset: &Offset,
) -> Option<PeerClose> {
    let (mut ns, error) = offset.convert(sent_first(accepted)?);
    // Only this close can have sent the FIN. An RST may be another's; that both came
    // within what is known of the clocks, and had nothing to do with each other, is not
    // to be believed.
    let fin = ours.fin_received_ns;
    let rst = ours
        .rst_received_ns
        .filter(|rst| ns <= rst.saturating_add(error + ORDER_NS));
    for came in [fin, rst].into_iter().flatten() {
        ns = ns.min(came);
    }
    Some(PeerClose {
        cookie: ours.cookie,
        netns: accepted.netns,
        ns,
        pid: accepted.pid?,
        parent_pid: accepted.parent_pid,
        comm: accepted.comm.clone(),
        exit: accepted.exit,
        unread_bytes: accepted.unread_bytes,
        received_bytes: accepted.received_bytes.unwrap_or(0),
        accepted: accepted.accepted,
        may_be_copy: accepted.may_be_copy,
        host: Some(host(backend)),
    })
}

/// The process that ended its side, whichever side began.
fn process(ours: &Ours, accepted: &Accepted, offset: &Offset) -> Option<BackendProcess> {
    if accepted.end != AcceptedEnd::Closed {
        return None;
    }
    let (ns, _) = offset.convert(accepted.closed_ns?);
    Some(BackendProcess {
        address: ours.remote.ip(),
        port: ours.remote.port(),
        netns: ours.netns,
        pid: accepted.pid?,
        parent_pid: accepted.parent_pid,
        comm: accepted.comm.clone(),
        first_ns: ns,
        last_ns: ns,
        connections: 1,
    })
}

fn add(
    processes: &mut BTreeMap<(SocketAddr, u32), BackendProcess>,
    remote: SocketAddr,
    process: BackendProcess,
) {
    processes
        .entry((remote, process.pid))
        .and_modify(|known| {
            known.first_ns = known.first_ns.min(process.first_ns);
            known.last_ns = known.last_ns.max(process.last_ns);
            known.connections += 1;
        })
        .or_insert(process);
}

/// Why nothing was joined.
fn not_joined(nginx: &Nginx, backend: &Backend, pairs: &Pairs<'_>) -> String {
    let host = host(backend);
    let none = |why: &str| format!("the trace of {host} was not joined: {why}");
    if nginx.connections.is_empty() {
        return none("nginx had no upstream connections");
    }
    if backend.accepted.is_empty() {
        return none("no connection was accepted there at the ports that were asked for");
    }
    if overlap::missed(nginx, backend).is_some_and(|missed| missed.share >= 1.0) {
        return none("by the hosts' wall clocks, the two captures ran at different times");
    }
    if pairs.shared > 0 {
        return none(
            "connections with the same addresses and ports are in both traces, but their times \
             contradict each other",
        );
    }
    let loopback = nginx
        .connections
        .iter()
        .all(|ours| ours.remote.ip().is_loopback());
    if loopback && !pairs::one_host(nginx, backend) {
        return none("nginx connected to loopback addresses only, which are each host's own");
    }
    let most = |addresses: &mut dyn Iterator<Item = SocketAddr>| {
        let counts = counts(addresses);
        let most = counts
            .into_iter()
            .max_by_key(|(address, count)| (*count, *address));
        most.map_or_else(String::new, |(address, _)| address.to_string())
    };
    let to = most(&mut nginx.connections.iter().map(|ours| ours.remote));
    let at = most(&mut backend.accepted.iter().map(|one| canonical(one.local)));
    if to == at {
        let host_of = |address: SocketAddr| SocketAddr::new(address.ip(), 0);
        let from = most(&mut nginx.connections.iter().map(|ours| host_of(ours.local)));
        let came = most(
            &mut backend
                .accepted
                .iter()
                .map(|one| host_of(canonical(one.remote))),
        );
        let without_port = |address: &str| address.trim_end_matches(":0").to_owned();
        return none(&format!(
            "the two traces share no address pair (nginx connected to {to} from {}, what came \
             there was from {} or from other ports): network address translation or a proxy lies \
             between them, or they are no peers",
            without_port(&from),
            without_port(&came)
        ));
    }
    none(&format!(
        "the two traces share no address pair (nginx connected to {to}, {host} accepted at {at}): \
         network address translation or a proxy lies between them, or they are no peers"
    ))
}
