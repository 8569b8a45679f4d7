//! Lines whose connections may have been exchanged, because a sighting is missing.

use std::collections::HashMap;

use super::socket::Socket;
use super::{Judge, line};

/// Lines this close together may have changed sightings if one of theirs is missing.
const SAME_TIME_NS: u64 = 3_000_000_000;

impl Judge {
    /// Where one of several equal lines was not seen being written, the others may have
    /// taken each other's sightings: whose connection is whose is then not known.
    pub(super) fn doubt_exchanged_sightings(&mut self) {
        let unseen: HashMap<_, Vec<u64>> = self
            .entries
            .iter()
            .filter(|entry| matches!(entry.socket, Socket::Missing(_)) && entry.sighting.is_none())
            .fold(HashMap::new(), |mut unseen, entry| {
                let key: (u32, line::Key) = (entry.pid, entry.line.key);
                unseen
                    .entry(key)
                    .or_insert_with(Vec::new)
                    .push(entry.line.read_ns);
                unseen
            });
        if unseen.is_empty() {
            return;
        }
        for entry in &mut self.entries {
            let near = |read: &u64| read.abs_diff(entry.line.read_ns) <= SAME_TIME_NS;
            if entry.sighting.is_some()
                && unseen
                    .get(&(entry.pid, entry.line.key))
                    .is_some_and(|read| read.iter().any(near))
            {
                entry.sighting = None;
                if matches!(entry.socket, Socket::Found(_)) {
                    entry.socket = Socket::Missing(
                        "of several lines alike not all were seen being written, so which of \
                         their connections is its own is not known",
                    );
                }
            }
        }
    }
}
