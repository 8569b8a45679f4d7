//! What one upstream's connections say over the whole capture: when it was served, which
//! processes ended its connections, when it stopped and began again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::bursts::{self, Burst, Sudden};
use super::end::{Ending, ending, idle_age_ns, peer_end_ns};
use super::mid_life;
use super::moments::{Moments, Reach};
use super::work::{Work, at_once};
use crate::report::model::InferredTimeout;
use crate::trace::record::{
    BackendExit, BackendProcess, Connection, ConnectionEnd, Exit, PeerClose,
};

/// Processes and sudden ends remembered.
const MOST_PROCESSES: usize = 1024;
const MOST_SUDDEN: usize = 4096;

/// A process that held the backend's side of connections.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) parent_pid: u32,
    pub(super) comm: String,
    /// The first of the connections that it ended began.
    held_ns: u64,
    /// It first and last ended one of the upstream's connections.
    first_ns: u64,
    last_ns: u64,
    pub(super) exit: Option<(u64, Exit)>,
}

/// For how long at most nobody listened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// A connection was established, or the backend ended one.
    pub(super) from_ns: u64,
    /// A connection was established again.
    pub(super) to_ns: u64,
}

/// One upstream.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    established: Moments,
    refused: Moments,
    /// The backend's FINs and RSTs on established connections.
    ends: Moments,
    /// Connections from their beginning to the last time at which they were answered.
    answered: Reach,
    /// And to their end.
    alive: Reach,
    sudden: VecDeque<Sudden>,
    bursts: Vec<Burst>,
    processes: BTreeMap<u32, Process>,
    longest_ns: u64,
    work: Work,
}

impl History {
    pub(super) fn connection(&mut self, connection: &Connection, peer: Option<&PeerClose>) {
        if let Some(peer) = peer {
            self.peer_close(peer);
        }
        let ending = ending(connection);
        let Some(established) = connection.established_ns else {
            if ending == Ending::Refused {
                let ns = connection.rst_received_ns.unwrap_or(connection.opened_ns);
                self.refused.add(ns);
                self.work.refused(ns);
            }
            return;
        };
        self.established.add(established);
        if let Some(process) = peer.and_then(|peer| self.processes.get_mut(&peer.pid)) {
            process.held_ns = process.held_ns.min(established);
        }
        let ended = peer_end_ns(connection);
        if let Some(end) = ended {
            self.ends.add(end);
        }
        let open = connection.end == ConnectionEnd::Open && ended.is_none();
        let until = if open { u64::MAX } else { connection.ended_ns };
        self.alive.add(established, ended.unwrap_or(until));
        let started = connection.request_started_ns;
        if let Some(until) = answered_until(connection, peer) {
            self.answered.add(established, until);
        }
        match ending {
            Ending::BackendInFlight => {
                self.sudden(connection, None);
                if !mid_life::request_began_before(connection) {
                    self.work.closed_in_flight(connection, peer, &self.refused);
                }
            }
            // Kept alive and silent, if only for a moment: a busy backend's are.
            Ending::BackendIdle | Ending::BackendAfterResponse => {
                if let Some(age) = idle_age_ns(connection) {
                    self.sudden(connection, Some(age));
                }
            }
            _ => {}
        }
        let whole = matches!(
            ending,
            Ending::Open | Ending::BackendIdle | Ending::NginxIdle | Ending::NginxAfterResponse
        );
        if let (true, Some(started), Some(_), Some(last)) = (
            whole,
            started,
            connection.first_byte_ns,
            connection.last_received_ns,
        ) {
            self.longest_ns = self.longest_ns.max(last.saturating_sub(started));
        }
    }

    /// A line says that the backend ended this connection in the middle of a response.
    pub(super) fn aborted(&mut self, connection: &Connection, peer: Option<&PeerClose>) {
        if ending(connection) == Ending::BackendAfterResponse {
            self.sudden(connection, None);
            if !mid_life::request_began_before(connection) {
                self.work.closed_in_flight(connection, peer, &self.refused);
            }
        }
    }

    fn sudden(&mut self, connection: &Connection, idle_age_ns: Option<u64>) {
        let (Some(established_ns), Some(ns)) = (connection.established_ns, peer_end_ns(connection))
        else {
            return;
        };
        self.sudden.push_back(Sudden {
            ns,
            established_ns,
            idle_age_ns,
        });
        if self.sudden.len() > MOST_SUDDEN {
            self.sudden.pop_front();
        }
    }

    /// The other end of a connection of this upstream.
    pub(super) fn peer_close(&mut self, close: &PeerClose) {
        self.work.peer_close(close);
        let exit = close.exit.map(|exit| (close.ns, exit));
        self.process(Process {
            pid: close.pid,
            parent_pid: close.parent_pid,
            comm: close.comm.clone(),
            held_ns: close.ns,
            first_ns: close.ns,
            last_ns: close.ns,
            exit,
        });
    }

    /// The other end of a connection that has been taken already.
    pub(super) fn late_peer_close(&mut self, close: &PeerClose) {
        self.peer_close(close);
        self.work.owned(close);
    }

    pub(super) fn seen(&mut self, seen: &BackendProcess) {
        self.process(Process {
            pid: seen.pid,
            parent_pid: seen.parent_pid,
            comm: seen.comm.clone(),
            held_ns: seen.first_ns,
            first_ns: seen.first_ns,
            last_ns: seen.last_ns,
            exit: None,
        });
    }

    fn process(&mut self, seen: Process) {
        if let Some(known) = self.processes.get_mut(&seen.pid) {
            known.held_ns = known.held_ns.min(seen.held_ns);
            known.first_ns = known.first_ns.min(seen.first_ns);
            known.last_ns = known.last_ns.max(seen.last_ns);
            known.exit = known.exit.or(seen.exit);
            return;
        }
        self.processes.insert(seen.pid, seen);
        if self.processes.len() > MOST_PROCESSES
            && let Some(oldest) = self
                .processes
                .values()
                .min_by_key(|process| process.last_ns)
                .map(|process| process.pid)
        {
            self.processes.remove(&oldest);
        }
    }

    pub(super) fn exit(&mut self, exit: &BackendExit) {
        if let Some(process) = self.processes.get_mut(&exit.pid) {
            process.exit = Some((exit.ns, exit.exit));
        }
    }

    /// Infers what takes all connections: `first_byte_ns` is at least the longest time
    /// that a response took to begin.
    pub(super) fn settle(&mut self, idle_timeout: Option<InferredTimeout>, first_byte_ns: u64) {
        let longest_ns = self.longest_ns.max(first_byte_ns);
        let several = self.keeps_several();
        self.work.settle(longest_ns, &self.established, several);
        self.bursts = bursts::of(&self.sudden, idle_timeout);
    }

    /// Parents two of whose processes held connections at the same time.
    fn keeps_several(&self) -> BTreeSet<u32> {
        let mut held: Vec<&Process> = self.processes.values().collect();
        held.retain(|process| process.parent_pid > 1);
        held.sort_by_key(|process| (process.parent_pid, process.held_ns));
        let pairs = held.iter().zip(held.iter().skip(1));
        pairs
            .filter(|(one, next)| {
                one.parent_pid == next.parent_pid && at_once(one.last_ns, next.held_ns)
            })
            .map(|(one, _)| one.parent_pid)
            .collect()
    }

    pub(super) const fn work(&self) -> &Work {
        &self.work
    }

    /// The time around a refused connect in which nobody listened, if the address was
    /// served before and after.
    pub(super) fn gap(&self, refused_ns: u64) -> Option<Gap> {
        let before = self.established.last_before(refused_ns)?;
        let to_ns = self.established.first_after(refused_ns)?;
        let ended = self.ends.last_before(refused_ns).unwrap_or(0);
        Some(Gap {
            from_ns: before.max(ended),
            to_ns,
        })
    }

    /// Was a process on this host seen to hold the backend's side of a connection?
    pub(super) fn is_local(&self) -> bool {
        !self.processes.is_empty()
    }

    /// Has this process ended connections of the upstream?
    pub(super) fn serves(&self, pid: u32) -> bool {
        self.processes.contains_key(&pid)
    }

    /// Had this process ended another of the upstream's connections before?
    pub(super) fn served_before(&self, pid: u32, ns: u64) -> bool {
        let process = self.processes.get(&pid);
        process.is_some_and(|process| process.first_ns < ns)
    }

    /// When this process last ended one of the upstream's connections.
    pub(super) fn last_end_of(&self, pid: u32) -> Option<u64> {
        self.processes.get(&pid).map(|process| process.last_ns)
    }

    /// Is the end of this process known?
    pub(super) fn has_exited(&self, pid: u32) -> bool {
        let process = self.processes.get(&pid);
        process.is_some_and(|process| process.exit.is_some())
    }

    /// The last process of this upstream that ended in this time.
    pub(super) fn exit_between(&self, from_ns: u64, to_ns: u64) -> Option<(&Process, u64, Exit)> {
        self.processes
            .values()
            .filter_map(|process| process.exit.map(|(ns, exit)| (process, ns, exit)))
            .filter(|(_, ns, _)| (from_ns..=to_ns).contains(ns))
            .max_by_key(|(_, ns, _)| *ns)
    }

    /// The last time before `ns` at which a connection was established.
    pub(super) fn established_before(&self, ns: u64) -> Option<u64> {
        self.established.last_before(ns)
    }

    /// Another process that ended connections of this upstream before and after.
    pub(super) fn sibling(&self, pid: u32, ns: u64) -> Option<&Process> {
        self.processes
            .values()
            .find(|other| other.pid != pid && other.first_ns < ns && other.last_ns > ns)
    }

    /// Another process of the same parent that held connections while this one did, if a
    /// process of that parent, if any, came after it: the parent keeps several and lives.
    pub(super) fn colleague(&self, pid: u32, ended_ns: u64) -> Option<&Process> {
        let own = self.processes.get(&pid)?;
        let parent = own.parent_pid;
        let successor = self.successor(pid, ended_ns)?;
        let same = |other: &&Process| {
            other.pid != pid
                && other.parent_pid == parent
                && other.held_ns < own.last_ns
                && other.last_ns > own.held_ns
        };
        (parent > 1 && successor.parent_pid == parent)
            .then(|| self.processes.values().find(same))
            .flatten()
    }

    /// Did a connection that was open at this time exchange anything after it?
    pub(super) fn exchanged_on(&self, ns: u64) -> bool {
        self.answered.crosses(ns, ns)
    }

    /// The first process that was not seen before this time.
    pub(super) fn successor(&self, pid: u32, ns: u64) -> Option<&Process> {
        self.processes
            .values()
            .filter(|other| other.pid != pid && other.first_ns > ns)
            .min_by_key(|other| other.first_ns)
    }

    /// When a connection was established after this time, if one was and was answered.
    pub(super) fn served_again(&self, ns: u64) -> Option<u64> {
        let established = self.established.first_after(ns)?;
        self.answered.begins_after(ns).then_some(established)
    }

    /// The burst of ends that this end was part of, if the backend was gone after it:
    /// connects were refused, or of its old connections none was left and new ones were
    /// served.
    pub(super) fn stopped(&self, end_ns: u64) -> Option<Stop> {
        const ALIVE_NS: u64 = 1_000_000_000;
        let burst = *self
            .bursts
            .iter()
            .find(|burst| (burst.first_ns..=burst.last_ns).contains(&end_ns))?;
        let again_ns = self.established.first_after(burst.last_ns);
        let refused = self
            .refused
            .first_after(burst.first_ns)
            .is_some_and(|refused| again_ns.is_none_or(|again| refused < again));
        let all_gone = !self
            .alive
            .crosses(burst.first_ns, burst.last_ns.saturating_add(ALIVE_NS));
        let replaced = all_gone && self.answered.begins_after(burst.last_ns);
        (refused || replaced).then_some(Stop {
            burst,
            refused,
            again_ns,
        })
    }
}

/// The last time at which the backend is known to have answered on this connection: a
/// request that was answered began then; or nginx read an answer while the other end, of
/// which the close is known, was open. (nginx may read an answer long after it was sent.)
fn answered_until(connection: &Connection, peer: Option<&PeerClose>) -> Option<u64> {
    let by_call = peer.filter(|peer| peer.exit.is_none());
    let started = connection
        .request_started_ns
        .filter(|_| connection.first_byte_ns.is_some())
        .filter(|_| !mid_life::request_began_before(connection));
    let received = connection
        .last_received_ns
        .filter(|_| connection.received_bytes > 0)
        .zip(by_call)
        .map(|(received, peer)| received.min(peer.ns));
    started.max(received)
}

/// A backend that ended all its connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    pub(super) burst: Burst,
    /// Connects were refused after it.
    pub(super) refused: bool,
    /// A connection was established again.
    pub(super) again_ns: Option<u64>,
}
