//! Connections of one upstream that the backend ended all at once: what a process leaves
//! that stops, seen from afar.

use std::collections::VecDeque;

use super::case::ms;
use crate::report::model::InferredTimeout;

/// A burst is over within this time, and as long before and after it there is no such end.
const WITHIN_NS: u64 = 1_000_000_000;
/// Connections that must end in it, all older than it.
const LEAST: usize = 3;
/// Single ends before a burst that are looked at.
const BEFORE: usize = 16;
/// An idle age this close to the backend's idle timeout, or to another in the same burst,
/// is the timeout's.
const NEAR: f64 = 0.05;
/// No idle timeout is shorter; a busy upstream's connections all idle for less.
const SHORTEST_MS: f64 = 500.0;

/// An end by the backend that followed on no response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sudden {
    pub(super) ns: u64,
    pub(super) established_ns: u64,
    /// How long it had been idle; none if a request was in flight.
    pub(super) idle_age_ns: Option<u64>,
}

/// Connections that ended together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Burst {
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
    /// Connections older than it.
    old: usize,
    pub(super) connections: usize,
    pub(super) in_flight: usize,
}

/// The bursts among these ends.
pub(super) fn of(ends: &VecDeque<Sudden>, idle_timeout: Option<InferredTimeout>) -> Vec<Burst> {
    let mut ends: Vec<Sudden> = ends
        .iter()
        .filter(|end| !is_timeouts(end, idle_timeout))
        .copied()
        .collect();
    ends.sort_by_key(|end| end.ns);
    ends.chunk_by(|before, after| after.ns - before.ns <= WITHIN_NS)
        .filter_map(burst)
        .collect()
}

fn is_timeouts(end: &Sudden, idle_timeout: Option<InferredTimeout>) -> bool {
    let Some((age, timeout)) = end.idle_age_ns.map(ms).zip(idle_timeout) else {
        return false;
    };
    age >= SHORTEST_MS && (age - timeout.ms).abs() <= (timeout.ms * NEAR).max(timeout.spread_ms)
}

/// A burst may have a few single ends before it, of which it is not part: it begins where
/// most of the connections that end from there on are older than it.
fn burst(ends: &[Sudden]) -> Option<Burst> {
    if ends.last()?.ns - ends.first()?.ns > WITHIN_NS {
        return None;
    }
    (0..ends.len().min(BEFORE))
        .filter_map(|skipped| burst_from(ends.get(skipped..)?))
        .max_by_key(|burst| (burst.old, burst.connections))
}

fn burst_from(ends: &[Sudden]) -> Option<Burst> {
    let first_ns = ends.first()?.ns;
    let last_ns = ends.last()?.ns;
    let ages: Vec<f64> = ends
        .iter()
        .filter_map(|end| end.idle_age_ns)
        .map(ms)
        .collect();
    let alone = |end: &&Sudden| {
        let Some(age) = end.idle_age_ns.map(ms) else {
            return true;
        };
        let alike = ages
            .iter()
            .filter(|other| (age - **other).abs() <= age * NEAR);
        age < SHORTEST_MS || alike.count() < 2
    };
    let old = ends
        .iter()
        .filter(|end| end.established_ns < first_ns)
        .filter(alone)
        .count();
    (old >= LEAST).then(|| Burst {
        first_ns,
        last_ns,
        old,
        connections: ends.len(),
        in_flight: ends.iter().filter(|end| end.idle_age_ns.is_none()).count(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn end(at_ms: u64, idle_ms: Option<u64>) -> Sudden {
        Sudden {
            ns: at_ms * MS,
            established_ns: 0,
            idle_age_ns: idle_ms.map(|ms| ms * MS),
        }
    }

    fn number(ends: &[Sudden]) -> usize {
        of(&ends.iter().copied().collect(), None).len()
    }

    #[test]
    fn three_old_connections_within_a_second_are_a_burst() {
        let ends = [end(5000, None), end(5100, Some(700)), end(5900, Some(90))];
        assert_eq!(number(&ends), 1);
        assert_eq!(number(&ends[..2]), 0);
        let mut young = ends;
        young[2].established_ns = 5500 * MS;
        assert_eq!(number(&young), 0);
    }

    #[test]
    fn a_burst_begins_where_its_connections_end_not_with_a_single_end_before() {
        let mut ends = vec![end(5000, None)];
        ends.extend((0..4).map(|index| Sudden {
            established_ns: 5005 * MS,
            ..end(5300 + index, None)
        }));
        let found = of(&ends.into_iter().collect(), None);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].first_ns, found[0].connections), (5300 * MS, 4));
    }

    #[test]
    fn failures_that_go_on_are_none() {
        let ends: Vec<Sudden> = (0..20).map(|index| end(5000 + index * 300, None)).collect();
        assert_eq!(number(&ends), 0);
    }

    #[test]
    fn equal_idle_ages_are_a_timers() {
        let ends = [
            end(5000, Some(2000)),
            end(5010, Some(2005)),
            end(5020, Some(2010)),
        ];
        assert_eq!(number(&ends), 0);
        let busy = [
            end(5000, Some(20)),
            end(5010, Some(21)),
            end(5020, Some(20)),
        ];
        assert_eq!(number(&busy), 1);
    }

    #[test]
    fn ends_at_the_known_idle_timeout_are_left_out() {
        let timeout = InferredTimeout {
            ms: 2000.0,
            spread_ms: 5.0,
            samples: 9,
        };
        let ends = [end(5000, None), end(5010, Some(2005)), end(5020, Some(900))];
        assert_eq!(of(&ends.iter().copied().collect(), Some(timeout)), []);
    }
}
