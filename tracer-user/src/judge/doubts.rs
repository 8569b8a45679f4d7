//! Lines whose connections may have been exchanged, because a sighting is missing.

use std::collections::{HashMap, HashSet};

use super::socket::Socket;
use super::{Entry, Judge, line};

/// Lines this close together may have changed sightings if one of theirs is missing; a
/// line that took the next one's leaves that one to take the one after, and so on.
const SAME_TIME_NS: u64 = 3_000_000_000;

impl Judge {
    /// Where one of several equal lines was not seen being written, the others may have
    /// taken each other's sightings: whose connection is whose is then not known.
    pub(super) fn doubt_exchanged_sightings(&mut self) {
        if !self.entries.iter().any(is_unseen) {
            return;
        }
        let mut doubted = HashSet::new();
        let mut alike: HashMap<(u32, line::Key), Vec<usize>> = HashMap::new();
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.sighting.is_some() || is_unseen(entry) {
                alike
                    .entry((entry.pid, entry.line.key))
                    .or_default()
                    .push(index);
            }
        }
        for mut group in alike.into_values() {
            let read_ns = |index: &usize| self.entries.get(*index).map(|entry| entry.line.read_ns);
            group.sort_by_key(read_ns);
            let chains: Vec<Vec<usize>> = group
                .chunk_by(|before, after| {
                    read_ns(before)
                        .zip(read_ns(after))
                        .is_some_and(|(before, after)| after - before <= SAME_TIME_NS)
                })
                .map(<[usize]>::to_vec)
                .collect();
            for chain in chains {
                let unseen = |index: &usize| self.entries.get(*index).is_some_and(is_unseen);
                if chain.iter().any(unseen) && !chain.iter().all(unseen) {
                    doubted.extend(&chain);
                    chain.into_iter().for_each(|index| self.doubt(index));
                }
            }
        }
        self.doubt_their_neighbours(&doubted);
    }

    /// Such an exchange takes a close from the lines that were put in order without a
    /// sighting, and leaves them another: each of them may have its neighbour's.
    fn doubt_their_neighbours(&mut self, doubted: &HashSet<usize>) {
        let mut by_worker: HashMap<u32, Vec<(u64, usize)>> = HashMap::new();
        for (index, entry) in self.entries.iter().enumerate() {
            if doubted.contains(&index) || matches!(entry.socket, Socket::Aligned(_)) {
                let lines = by_worker.entry(entry.pid).or_default();
                lines.push((entry.line.read_ns, index));
            }
        }
        for mut lines in by_worker.into_values() {
            lines.sort_unstable();
            for chain in lines.chunk_by(|before, after| after.0 - before.0 <= SAME_TIME_NS) {
                if !chain.iter().any(|(_, index)| doubted.contains(index)) {
                    continue;
                }
                for (_, index) in chain {
                    if let Some(entry) = self.entries.get_mut(*index)
                        && let Socket::Aligned(aligned) = &mut entry.socket
                    {
                        aligned.ordered = false;
                        aligned.forced = false;
                    }
                }
            }
        }
    }

    fn doubt(&mut self, index: usize) {
        if let Some(entry) = self.entries.get_mut(index)
            && (entry.sighting.take().is_some() || is_unseen(entry))
            && entry.connection().is_some()
        {
            entry.socket = Socket::Missing(
                "of several lines alike not all were seen being written, so which of their \
                 connections is its own is not known",
            );
            entry.peer_close = None;
            entry.continuation = None;
        }
    }
}

fn is_unseen(entry: &Entry) -> bool {
    entry.sighting.is_none() && matches!(entry.socket, Socket::Missing(_) | Socket::Aligned(_))
}
