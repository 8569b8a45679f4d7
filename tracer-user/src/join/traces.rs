//! What of either trace a join needs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;

use super::lost;
use crate::trace::record::{
    Accepted, Anchor, BackendExit, Capture, Connection, ConnectionEnd, Listener, Record,
};

/// A trace made on a backend's host.
#[derive(Clone, Debug, Default)]
pub struct Backend {
    /// Its file.
    pub name: String,
    /// Where and how it was made.
    pub capture: Capture,
    pub(super) anchors: Anchors,
    pub(super) accepted: Vec<Accepted>,
    pub(super) exits: Vec<BackendExit>,
    pub(super) listeners: Vec<Listener>,
    pub(super) lost: BTreeMap<String, u64>,
    /// When something was lost that may be a side of a connection.
    pub(super) losses: Vec<lost::Span>,
    pub(super) complete: bool,
}

/// The first and last readings of a host's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Anchors {
    first: Option<Anchor>,
    last: Option<Anchor>,
}

impl Anchors {
    fn add(&mut self, anchor: Anchor) {
        self.first.get_or_insert(anchor);
        self.last = Some(anchor);
    }

    /// From when to when, wall time.
    pub(super) fn span(&self) -> Option<(i64, i64)> {
        Some((self.first?.realtime_ns, self.last?.realtime_ns))
    }
}

impl Backend {
    /// Keeps what is needed of these records.
    pub fn new(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    /// Takes a record, in the trace's order.
    pub fn push(&mut self, record: Record) {
        match record {
            Record::Capture(capture) => self.capture = *capture,
            Record::Anchor(anchor) => self.anchors.add(anchor),
            Record::Accepted(accepted) => self.accepted.push(*accepted),
            Record::BackendExit(exit) => self.exits.push(exit),
            Record::Listener(listener) => self.listeners.push(listener),
            Record::Loss(loss) => {
                self.losses.extend(lost::span(&loss));
                *self.lost.entry(loss.what).or_default() += loss.count;
            }
            Record::End(_) => self.complete = true,
            _ => {}
        }
    }
}

/// A connection of nginx's, as far as a join looks at it.
#[derive(Clone, Debug)]
pub(super) struct Ours {
    pub(super) cookie: u64,
    pub(super) netns: u32,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) opened_ns: u64,
    pub(super) established_ns: Option<u64>,
    pub(super) fin_received_ns: Option<u64>,
    pub(super) rst_received_ns: Option<u64>,
    pub(super) ended_ns: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    /// Bytes of the last request.
    pub(super) request_bytes: u64,
    /// Its first byte was sent.
    pub(super) request_started_ns: Option<u64>,
    pub(super) last_sent_ns: Option<u64>,
    pub(super) last_received_ns: Option<u64>,
}

/// A trace made on nginx's host.
#[derive(Clone, Debug, Default)]
pub struct Nginx {
    pub(super) capture: Capture,
    pub(super) anchors: Anchors,
    pub(super) connections: Vec<Ours>,
    /// Cookies of connections whose other end this host saw itself.
    pub(super) followed: HashSet<u64>,
    /// Processes of this host that the trace tells of, by pid.
    pub(super) pids: HashSet<u32>,
}

impl Nginx {
    /// Takes a record, in the trace's order.
    pub fn push(&mut self, record: &Record) {
        match record {
            Record::Capture(capture) => self.capture = (**capture).clone(),
            Record::Anchor(anchor) => self.anchors.add(*anchor),
            Record::Connection(connection) => self.connections.extend(ours(connection)),
            Record::PeerClose(close) => {
                self.followed.insert(close.cookie);
                self.pids.insert(close.pid);
            }
            Record::BackendExit(exit) => {
                self.pids.insert(exit.pid);
            }
            Record::BackendProcess(process) => {
                self.pids.insert(process.pid);
            }
            _ => {}
        }
    }
}

/// One that came about.
fn ours(connection: &Connection) -> Option<Ours> {
    if connection.established_ns.is_none() && !connection.first_seen_mid_life {
        return None;
    }
    let open = connection.end == ConnectionEnd::Open;
    Some(Ours {
        cookie: connection.cookie,
        netns: connection.netns,
        local: canonical(connection.local),
        remote: canonical(connection.remote),
        opened_ns: connection.opened_ns,
        established_ns: connection
            .established_ns
            .filter(|_| !connection.first_seen_mid_life),
        fin_received_ns: connection.fin_received_ns,
        rst_received_ns: connection.rst_received_ns,
        ended_ns: if open { u64::MAX } else { connection.ended_ns },
        sent_bytes: connection.sent_bytes,
        received_bytes: connection.received_bytes,
        request_bytes: connection.request_bytes,
        request_started_ns: connection.request_started_ns,
        last_sent_ns: connection.last_sent_ns,
        last_received_ns: connection.last_received_ns,
    })
}

/// IPv4 in its own form, and no scope of an interface, which is each host's own.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// How many by key.
pub(super) fn counts<K: std::hash::Hash + Eq>(keys: impl Iterator<Item = K>) -> HashMap<K, u64> {
    let mut counts = HashMap::new();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    counts
}
