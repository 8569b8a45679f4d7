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

/// What a loss takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bearing {
    /// Evidence or totals, but no verdict is wrong for it.
    None,
    /// Lines whose sightings are lost are found by their order, or not at all.
    Sightings,
    /// Calls of nginx's that no program saw. Those that moved bytes are noticed, and noted on
    /// their connections; those that failed, and what was sent on other sockets, are not.
    Sends,
    Receives,
    /// Anything else may change any verdict of its time.
    Verdicts,
}

/// A connection that ends unseen, or an RST sent or a retransmission unseen, leaves less
/// evidence, never a wrong verdict; the counter slots bear on totals alone.
fn bearing(what: &str) -> Bearing {
    match what {
        "upstream_slots"
        | "missed_runs:whoclosed_gone"
        | "missed_runs:whoclosed_rst_o"
        | "missed_runs:whoclosed_rst_r"
        | "missed_runs:whoclosed_again" => Bearing::None,
        "logged_records" | "missed_runs:whoclosed_line" => Bearing::Sightings,
        "missed_runs:whoclosed_send"
        | "missed_runs:whoclosed_f_s"
        | "missed_runs:whoclosed_f_p"
        | "missed_runs:sends_on_request" => Bearing::Sends,
        "missed_runs:whoclosed_recv"
        | "missed_runs:whoclosed_f_r4"
        | "missed_runs:whoclosed_f_r5"
        | "missed_runs:whoclosed_f_r6"
        | "missed_runs:receives_on_request" => Bearing::Receives,
        _ => Bearing::Verdicts,
    }
}

/// All that was lost, by what it bears on.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// What may change any verdict of its time.
    pub(super) verdicts: Losses,
    /// Sightings of lines: they bear on workers of which one is missing.
    pub(super) sightings: Losses,
    /// Runs of the programs on nginx's sends and receives.
    sends: Losses,
    receives: Losses,
}

impl Lost {
    /// `gaps_noticed`: the programs notice what they missed of nginx's calls.
    pub(super) fn add(&mut self, loss: &Loss, gaps_noticed: bool) {
        match bearing(&loss.what) {
            Bearing::None => {}
            Bearing::Sightings => self.sightings.add(loss),
            Bearing::Sends if gaps_noticed => self.sends.add(loss),
            Bearing::Receives if gaps_noticed => self.receives.add(loss),
            Bearing::Sends | Bearing::Receives | Bearing::Verdicts => self.verdicts.add(loss),
        }
    }

    /// May a call of nginx's be missing that failed, or read the end of a stream?
    pub(super) fn calls_missed(&self, time: RangeInclusive<u64>) -> bool {
        self.calls_missed_around(time) > 0
    }

    /// How many.
    pub(super) fn calls_missed_around(&self, time: RangeInclusive<u64>) -> u64 {
        self.sends.around(time.clone()) + self.receives.around(time)
    }

    /// May something be missing that nginx sent, to a backend or to a client?
    pub(super) fn sends_missed(&self, time: RangeInclusive<u64>) -> bool {
        self.sends.around(time) > 0
    }
}

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

    #[test]
    fn missed_sends_and_receives_bear_on_verdicts_only_where_gaps_are_not_noticed() {
        for (what, of_sends) in [
            ("whoclosed_send", true),
            ("whoclosed_f_s", true),
            ("whoclosed_f_p", true),
            ("whoclosed_recv", false),
            ("whoclosed_f_r4", false),
            ("whoclosed_f_r5", false),
            ("whoclosed_f_r6", false),
        ] {
            let mut loss = lost(None, 10 * S);
            loss.what = format!("missed_runs:{what}");
            let mut noticed = Lost::default();
            noticed.add(&loss, true);
            let now = || 10 * S..=10 * S;
            assert_eq!(noticed.verdicts.around(now()), 0, "{what}");
            assert!(noticed.calls_missed(now()), "{what}");
            assert_eq!(noticed.sends_missed(now()), of_sends, "{what}");
            let mut older = Lost::default();
            older.add(&loss, false);
            assert_eq!(older.verdicts.around(now()), 3, "{what}");
            assert!(!older.calls_missed(now()), "{what}");
        }
    }

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
