//! What the judge gives out: incidents on the way, the report at the end.

use std::collections::BTreeSet;

use super::remote::Remote;
use super::spoken::Spoken;
use super::{Judge, Judged, settings, summary};
use crate::report::model::Incident;

impl Judge {
    /// Incidents whose line and connection have come since the last call, with what
    /// can be said by now. Their numbers are provisional.
    pub fn fresh(&mut self) -> Vec<Incident> {
        let fresh = self.entries.get(self.told..).unwrap_or_default();
        let peers: BTreeSet<Remote> = fresh
            .iter()
            .filter_map(|entry| self.remote_of(entry))
            .collect();
        for peer in peers {
            if let Some(figures) = self.upstreams.get_mut(&peer) {
                if let Some(capture) = &self.capture {
                    figures.heard(Spoken::to(capture, peer.address));
                }
                figures.look_again();
            }
            self.settle_history(peer);
        }
        let fresh = self.entries.get(self.told..).unwrap_or_default();
        let incidents = fresh
            .iter()
            .zip(self.told..)
            .filter(|(entry, _)| !self.is_foreign(entry))
            .map(|(entry, index)| self.incident(entry, index as u64 + 1).0)
            .collect();
        self.told = self.entries.len();
        incidents
    }

    /// The trace is over: the report. `notes` are what its reader has to say of the file.
    #[must_use]
    pub fn finish(mut self, notes: Vec<String>) -> Judged {
        let mut pids: Vec<u32> = self.workers.keys().copied().collect();
        pids.sort_unstable();
        // Whose close is taken by then no other line is given.
        self.settle_doubtful(u64::MAX);
        for pid in pids {
            self.forget(pid);
        }
        self.settle_doubtful(u64::MAX);
        self.leave_foreign_out();
        self.doubt_exchanged_sightings();
        let end_ns = self.end.as_ref().map(|end| end.ns);
        self.entries.retain(|entry| {
            // What was logged after the bell belongs to no capture.
            end_ns.is_none_or(|end| entry.sighting.is_none_or(|seen| seen.ns <= end))
        });
        self.entries.sort_by_key(|entry| (entry.ns(), entry.order));
        self.note_sizes();
        for (remote, figures) in &mut self.upstreams {
            if let Some(capture) = &self.capture {
                figures.heard(Spoken::to(capture, remote.address));
            }
            figures.settle();
        }
        let addresses: Vec<Remote> = self.histories.keys().copied().collect();
        for address in addresses {
            self.settle_history(address);
        }
        self.name_upstreams();
        summary::report(&self, notes)
    }

    fn name_upstreams(&mut self) {
        let Some(capture) = &self.capture else { return };
        for (remote, figures) in &mut self.upstreams {
            figures.name = capture
                .nginx
                .iter()
                .filter(|nginx| nginx.netns.is_none_or(|netns| netns == remote.netns))
                .filter_map(|nginx| nginx.configuration.as_ref())
                .find_map(|configuration| {
                    settings::block_of(configuration, Some(remote.address), "")
                })
                .map(|block| block.name.clone());
        }
    }
}
