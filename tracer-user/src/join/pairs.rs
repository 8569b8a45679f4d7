//! Which connection of nginx's is which that a backend's host accepted.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::offset::{Offset, Sample};
use super::traces::{Backend, Nginx, Ours, canonical};
use crate::trace::record::{Accepted, AcceptedEnd};

/// The backend's end may come about this much later than nginx's: by the network, losses,
/// or a listener that waits for the first bytes (TCP_DEFER_ACCEPT).
const LATE_NS: u64 = 5_000_000_000;
/// What clocks and stamps may be off beyond what is known of them.
const SLACK_NS: u64 = 100_000_000;

/// The kernel's clock for the times of bytes: no kernel is built with a longer tick.
const TICK_NS: u64 = 10_000_000;
/// The difference of two such times may be off by this.
const ROUNDED_NS: i64 = 20_000_000;

/// A connection as both ends name it. Loopback addresses mean another host in each
/// network namespace.
type Key = (SocketAddr, SocketAddr, u32);

/// Connections by the address pair that they have on both hosts.
#[derive(Debug, Default)]
struct Same<'a> {
    nginx: Vec<&'a Ours>,
    backend: Vec<&'a Accepted>,
}

/// What joins two traces.
#[derive(Debug, Default)]
pub(super) struct Pairs<'a> {
    pub(super) offset: Option<Offset>,
    pub(super) joined: Vec<(&'a Ours, &'a Accepted)>,
    /// Address pairs that both traces have.
    pub(super) shared: u64,
    /// Connections of nginx's that could be several of the other host's, or the other
    /// way round.
    pub(super) ambiguous: u64,
}

fn key(nginx: SocketAddr, backend: SocketAddr, netns: u32, one_host: bool) -> Option<Key> {
    let loopback = backend.ip().is_loopback();
    if loopback && !one_host {
        return None;
    }
    Some((nginx, backend, if loopback { netns } else { 0 }))
}

/// Were both traces made on one host, in one run of its kernel?
pub(super) fn one_host(nginx: &Nginx, backend: &Backend) -> bool {
    let boot_id = nginx.capture.boot_id.as_ref();
    boot_id.is_some() && boot_id == backend.capture.boot_id.as_ref()
}

/// Finds them.
pub(super) fn find<'a>(nginx: &'a Nginx, backend: &'a Backend) -> Pairs<'a> {
    let one_host = one_host(nginx, backend);
    let mut all: HashMap<Key, Same<'a>> = HashMap::new();
    for accepted in &backend.accepted {
        let (local, remote) = (canonical(accepted.local), canonical(accepted.remote));
        if let Some(key) = key(remote, local, accepted.netns, one_host) {
            all.entry(key).or_default().backend.push(accepted);
        }
    }
    for ours in &nginx.connections {
        if let Some(key) = key(ours.local, ours.remote, ours.netns, one_host)
            && let Some(same) = all.get_mut(&key)
        {
            same.nginx.push(ours);
        }
    }
    all.retain(|_, same| !same.nginx.is_empty());
    let offset = if one_host {
        Some(Offset::none())
    } else {
        let samples: Vec<Sample> = all.values().filter_map(Same::sample).collect();
        Offset::estimate(&samples)
    };
    let mut pairs = Pairs {
        shared: all.len() as u64,
        ..Pairs::default()
    };
    if let Some(offset) = &offset {
        for same in all.values() {
            same.join(offset, &mut pairs);
        }
    }
    pairs
        .joined
        .sort_by_key(|(ours, _)| (ours.opened_ns, ours.cookie));
    pairs.offset = offset;
    pairs
}

impl<'a> Same<'a> {
    /// What a connection says of the clocks, if its address pair was used once.
    fn sample(&self) -> Option<Sample> {
        let ([ours], [accepted]) = (self.nginx.as_slice(), self.backend.as_slice()) else {
            return None;
        };
        if let (Some(here), Some(there)) = (ours.established_ns, accepted.established_ns) {
            let most_ns = difference(there, here)?;
            return Some(Sample {
                at_ns: here,
                most_ns,
                least_ns: least_by_close(ours, accepted, most_ns),
                round_trip_ns: here.saturating_sub(ours.opened_ns),
            });
        }
        let (at_ns, most_ns) = most_by_bytes(ours, accepted)?;
        let least_ns = [
            least_by_close(ours, accepted, most_ns),
            least_by_bytes(ours, accepted),
        ];
        Some(Sample {
            at_ns,
            most_ns,
            least_ns: least_ns.into_iter().flatten().max(),
            round_trip_ns: 2 * TICK_NS,
        })
    }

    /// Joins those that can be each other and nothing else.
    fn join(&self, offset: &Offset, pairs: &mut Pairs<'a>) {
        let fits = |ours: &Ours, accepted: &Accepted| fits(ours, accepted, offset);
        for ours in &self.nginx {
            let mut candidates = self.backend.iter().filter(|one| fits(ours, one));
            let Some(accepted) = candidates.next() else {
                continue;
            };
            let others = self.nginx.iter().filter(|other| fits(other, accepted));
            if candidates.next().is_some() || others.count() > 1 {
                pairs.ambiguous += 1;
            } else {
                pairs.joined.push((ours, accepted));
            }
        }
    }
}

/// How far the other clock is ahead at least, by an end that was sent there. The close
/// counts, for the kernel notes an RST after it has sent it. A FIN comes from nobody else;
/// an RST may, and then the close contradicts what must have come before.
fn least_by_close(ours: &Ours, accepted: &Accepted, most_ns: i64) -> Option<i64> {
    let closed = sent_first(accepted);
    match (ours.fin_received_ns, ours.rst_received_ns) {
        (Some(fin), rst) if rst.is_none_or(|rst| fin < rst) => {
            closed.and_then(|closed| difference(closed, fin))
        }
        (None, Some(rst)) => closed
            .filter(|_| accepted.rst_sent_ns.is_some())
            .and_then(|closed| difference(closed, rst))
            .filter(|least| *least <= most_ns),
        _ => None,
    }
}

/// Where no handshake was seen at both ends: how far it is ahead at most, by the last bytes
/// that went there, and when they went. They were the last that nginx sent if as many came
/// as went; else they were of its last request if any of that came.
fn most_by_bytes(ours: &Ours, accepted: &Accepted) -> Option<(u64, i64)> {
    let came = accepted.received_bytes?;
    let sent_ns = if came == ours.sent_bytes {
        ours.last_sent_ns?
    } else if came < ours.sent_bytes && came + ours.request_bytes > ours.sent_bytes {
        ours.request_started_ns?
    } else {
        return None;
    };
    let most_ns = difference(accepted.last_received_ns?, sent_ns)?;
    Some((sent_ns, most_ns.saturating_add(ROUNDED_NS)))
}

/// The same in the other direction: the last bytes from there, if nginx has read them.
fn least_by_bytes(ours: &Ours, accepted: &Accepted) -> Option<i64> {
    if accepted.sent_bytes? != ours.received_bytes {
        return None;
    }
    let least_ns = difference(accepted.last_sent_ns?, ours.last_received_ns?)?;
    Some(least_ns.saturating_sub(ROUNDED_NS))
}

/// When the backend's process ended the connection, if it was the first to do so.
pub(super) fn sent_first(accepted: &Accepted) -> Option<u64> {
    let first = accepted.fin_received_ns.is_none() && accepted.rst_received_ns.is_none();
    accepted.closed_ns.filter(|_| first)
}

/// Can these be the two ends of one connection, as to their times?
fn fits(ours: &Ours, accepted: &Accepted, offset: &Offset) -> bool {
    let ended = match accepted.end {
        AcceptedEnd::Open => u64::MAX,
        _ => {
            let (ns, error) = offset.convert(accepted.ended_ns);
            ns.saturating_add(error + SLACK_NS)
        }
    };
    // Before its capture began, that is.
    let (began, error) = accepted
        .established_ns
        .map_or((0, 0), |ns| offset.convert(ns));
    let error = error + SLACK_NS;
    let from = ours.established_ns.unwrap_or(0);
    if accepted.established_ns.is_some() && ours.established_ns.is_some() {
        let late = began.saturating_sub(from);
        return began.saturating_add(error) >= from && late <= LATE_NS + error;
    }
    // Of one, or both, the beginning is not known: was there a time at which both were?
    let until = ours.ended_ns.saturating_add(error);
    began <= until && from <= ended
}

fn difference(backend_ns: u64, nginx_ns: u64) -> Option<i64> {
    i64::try_from(i128::from(backend_ns) - i128::from(nginx_ns)).ok()
}
