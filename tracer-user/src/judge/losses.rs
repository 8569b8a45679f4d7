//! What was lost, and in which spans of time: a loss is noticed when the counters are
//! read, and happened since they were read before.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::trace::record::Loss;

/// Counters are read about once a second; older traces do not say when they were.
const BETWEEN_LOOKS_NS: u64 = 1_000_000_000;
/// What is lost so soon before or after a line may have been about it.
const BEFORE_NS: u64 = 100_000_000;
const AFTER_NS: u64 = 1_100_000_000;

/// Losses of a kind that has the same consequences.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// By the end of its span: the beginning, and how much.
    spans: BTreeMap<u64, (u64, u64)>,
}

impl Losses {
    pub(super) fn add(&mut self, loss: &Loss) {
        let since = loss
            .since_ns
            .unwrap_or(loss.ns.saturating_sub(BETWEEN_LOOKS_NS));
        let span = self.spans.entry(loss.ns).or_insert((since, 0));
        span.0 = span.0.min(since);
        span.1 += loss.count;
    }

    /// How much was lost in spans that come near this time. Spans follow each other.
    pub(super) fn around(&self, time: RangeInclusive<u64>) -> u64 {
        self.spans
            .range(time.start().saturating_sub(BEFORE_NS)..)
            .take_while(|(_, (since, _))| *since <= time.end().saturating_add(AFTER_NS))
            .map(|(_, (_, count))| count)
            .sum()
    }

    /// Was anything lost then or later?
    pub(super) fn any_since(&self, ns: u64) -> bool {
        self.spans.range(ns..).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn lost(since_ns: Option<u64>, ns: u64) -> Loss {
        Loss {
            ns,
            since_ns,
            what: "connection_records".to_owned(),
            count: 3,
        }
    }

    #[test]
    fn a_loss_touches_its_whole_span_and_what_is_next_to_it() {
        let mut losses = Losses::default();
        losses.add(&lost(Some(20 * S), 26 * S));
        losses.add(&lost(Some(26 * S), 27 * S));
        losses.add(&lost(Some(40 * S), 41 * S));
        for (ns, expected) in [
            (18 * S, 0),
            (19 * S, 3),
            (23 * S, 3),
            (26 * S, 6),
            (27 * S + BEFORE_NS, 3),
            (27 * S + 2 * BEFORE_NS, 0),
            (38 * S, 0),
            (39 * S, 3),
        ] {
            assert_eq!(losses.around(ns..=ns), expected, "{ns}");
        }
    }

    #[test]
    fn a_time_that_is_not_known_exactly_is_touched_anywhere_in_it() {
        let mut losses = Losses::default();
        losses.add(&lost(Some(20 * S), 21 * S));
        assert_eq!(losses.around(22 * S..=23 * S), 0);
        assert_eq!(losses.around(21 * S..=23 * S), 3);
        assert_eq!(losses.around(10 * S..=18 * S), 0);
        assert_eq!(losses.around(10 * S..=19 * S), 3);
    }

    #[test]
    fn a_loss_of_an_older_trace_happened_within_the_second_before() {
        let mut losses = Losses::default();
        losses.add(&lost(None, 10 * S));
        assert_eq!(losses.around(7 * S..=7 * S), 0);
        assert_eq!(losses.around(8 * S..=8 * S), 3);
        assert_eq!(losses.around(11 * S..=11 * S), 0);
    }
}
