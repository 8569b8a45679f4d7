//! How long a backend lets connections idle: its idle timeout, inferred from the silences
//! after which it closed and from those that it let pass.

use std::collections::BTreeSet;

use super::case::ms;
use super::end::{self, Ending, SOON_NS};
use super::samples::Samples;
use super::without_calls::is_uncounted;
use crate::report::model::InferredTimeout;
use crate::trace::record::Connection;

/// A backend's own timer is coarse by at most this share of its value, or
/// [`TIMER_NS`]: the width of a cluster of idle ages.
const TIMER_SHARE: f64 = 0.02;
const TIMER_NS: u64 = 20_000_000;
/// Closes that must agree before a constant of the backend is believed.
const AGREEING: u64 = 3;
/// Ages that are spread evenly are a timeout's only if the closes came at so many moments:
/// a process that stops closes all at once.
const LOOKS: usize = 3;
const LOOK_NS: u64 = 500_000_000;
/// A connection that was silent for longer than a timeout by a tenth and this much more
/// outlived it.
const OUTLIVED_NS: u64 = 100_000_000;

/// One upstream's silences.
#[derive(Clone, Debug, Default)]
pub(super) struct Silences {
    /// Ages of idle connections that the backend closed, of those with fewer requests than
    /// the most that any had, and of those with as many, or of which the number is not
    /// known: a limit on requests may have closed these.
    below: Samples,
    at_most: Samples,
    most: u32,
    /// Some of the times of these closes, in units of [`LOOK_NS`].
    moments: BTreeSet<u64>,
    /// Silences that ended otherwise: by an exchange that was answered, or by nginx.
    survived: Samples,
}

impl Silences {
    pub(super) fn connection(&mut self, connection: &Connection, ending: Ending) {
        let answered = end::answered_exchanges(connection);
        if answered > self.most {
            self.most = answered;
            self.below.append(std::mem::take(&mut self.at_most));
        }
        if let Some(silence) = end::survived_silence_ns(connection) {
            self.survived.add(silence);
        }
        let age = end::idle_age_ns(connection)
            .filter(|age| ending == Ending::BackendIdle && *age >= SOON_NS);
        let Some(age) = age else { return };
        if connection.exchanges_at_end >= self.most || is_uncounted(connection) {
            self.at_most.add(age);
        } else {
            self.below.add(age);
        }
        if self.moments.len() < LOOKS {
            let end = end::peer_end_ns(connection).unwrap_or(connection.ended_ns);
            self.moments.insert(end / LOOK_NS);
        }
    }

    /// Size of the sample.
    pub(super) fn seen(&self) -> u64 {
        self.below.seen() + self.at_most.seen()
    }

    /// The most requests answered on one connection.
    pub(super) const fn most(&self) -> u32 {
        self.most
    }

    /// Silences longer than this one, after which the backend had still not closed.
    pub(super) fn longer_than(&self, ns: u64) -> u64 {
        let longer = ns.saturating_add(ns / 10 + OUTLIVED_NS);
        self.survived.above(longer) + self.below.above(longer) + self.at_most.above(longer)
    }

    /// The backend's idle timeout. A timer is late, never early: of several ages at which
    /// it closes often the least is its own. Of a backend that looks at its connections
    /// now and then only, it is the least of ages that are spread evenly over the time
    /// between two looks. `limited`: connections with the most requests ended by a limit
    /// on them.
    pub(super) fn timeout(&self, limited: bool) -> Option<InferredTimeout> {
        let mut ages = self.below.clone();
        if !limited {
            ages.append(self.at_most.clone());
        }
        let mode = ages
            .least_mode(TIMER_SHARE, TIMER_NS, AGREEING)
            .or_else(|| {
                let mode = ages.even()?;
                (self.moments.len() >= LOOKS).then_some(mode)
            })?;
        // A timeout that many connections outlived is none.
        let longest = mode.ns.saturating_add(mode.spread_ns);
        let longer = longest.saturating_add(longest / 10 + OUTLIVED_NS);
        (self.survived.above(longer) * 5 <= mode.count).then(|| InferredTimeout {
            ms: ms(mode.ns),
            spread_ms: ms(mode.spread_ns),
            samples: mode.count,
        })
    }
}
