//! Lines in a log of nginx's that nginx did not write. A line feed in what a backend sends
//! (FastCGI's stderr) or in a subrequest's path begins what looks like a line, and other
//! programs may write to the same file. nginx's own lines all come from one function, whose
//! calls are seen: so a line without one, where none was lost, is nobody's that is watched.
//! It is counted and makes no incident.
//!
//! A line is called so only if everything speaks for it; what is left in doubt stays an
//! incident.

use std::collections::HashSet;

use super::socket::Socket;
use super::{Entry, Judge, line};

/// Sightings lost so long before the line was read, or ever after, may have been its own.
const LOSSES_NS: u64 = 60_000_000_000;
/// A line that was read so long after its stamp may have outlived its sighting.
const FRESH_S: i64 = 30;

impl Judge {
    /// Takes the lines out that nginx did not write. Everything has come.
    pub(super) fn leave_foreign_out(&mut self) {
        // A sighting that no line claimed may be that of a line whose text says otherwise.
        if self.sightings_dropped > 0 || self.sightings_forgotten {
            return;
        }
        // A forged line that is like one of nginx's may have taken that one's sighting.
        let seen: HashSet<(u32, line::Key)> = self
            .entries
            .iter()
            .filter(|entry| entry.sighting.is_some())
            .map(|entry| (entry.pid, entry.line.key))
            .collect();
        let before = self.entries.len();
        let mut entries = std::mem::take(&mut self.entries);
        entries
            .retain(|entry| seen.contains(&(entry.pid, entry.line.key)) || !self.is_foreign(entry));
        self.foreign = (before - entries.len()) as u64;
        self.entries = entries;
    }

    /// Does all that is known of a line by now say that no call of nginx's wrote it?
    pub(super) fn is_foreign(&self, entry: &Entry) -> bool {
        let line = &entry.line;
        let nobodys = matches!(entry.socket, Socket::Missing(_) | Socket::NoneByNature(_));
        entry.sighting.is_none() && nobodys && self.calls_are_seen(line) && !self.lost_near(line)
    }

    /// Were the calls of this line's nginx seen when it was written, and has one been?
    fn calls_are_seen(&self, line: &line::UpstreamLine) -> bool {
        let master = line.master_pid;
        // One that came during the capture may have written before its calls were seen.
        let since = self.appeared.get(&master);
        let in_time = since.is_none_or(|since| line.since_ns.is_some_and(|read| read >= *since));
        let read_ns = self.clock.realtime_ns(line.read_ns);
        let age_s = read_ns
            .zip(line.stamp_s)
            .map(|(read, stamp)| read.div_euclid(1_000_000_000) - stamp);
        self.log_calls_seen(master)
            && self.proven.contains(&master)
            && in_time
            && age_s.is_some_and(|age| age.abs() <= FRESH_S)
    }

    fn lost_near(&self, line: &line::UpstreamLine) -> bool {
        let from = line.read_ns.saturating_sub(LOSSES_NS);
        self.losses.sightings.any_since(from)
    }
}
