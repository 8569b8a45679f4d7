//! Moments of a long capture in bounded memory: exact ones while they are few, and the
//! first and last of ever wider intervals when they are many.

use std::collections::BTreeMap;

/// Width of an interval in the beginning.
const WIDTH_NS: u64 = 100_000_000;
/// Intervals kept; when there are more, they are made twice as wide.
const MOST: usize = 1024;

/// Values by interval.
#[derive(Clone, Debug)]
struct Intervals<T> {
    width_ns: u64,
    values: BTreeMap<u64, T>,
}

impl<T> Default for Intervals<T> {
    fn default() -> Self {
        Self {
            width_ns: WIDTH_NS,
            values: BTreeMap::new(),
        }
    }
}

impl<T: Copy> Intervals<T> {
    /// Adds a value; `join` makes one of two in the same interval.
    fn add(&mut self, ns: u64, value: T, join: fn(T, T) -> T) {
        let insert = |values: &mut BTreeMap<u64, T>, key, value| {
            values
                .entry(key)
                .and_modify(|known| *known = join(*known, value))
                .or_insert(value);
        };
        insert(&mut self.values, ns / self.width_ns, value);
        while self.values.len() > MOST {
            self.width_ns = self.width_ns.saturating_mul(2);
            for (key, value) in std::mem::take(&mut self.values) {
                insert(&mut self.values, key / 2, value);
            }
        }
    }
}

/// When something happened.
#[derive(Clone, Debug, Default)]
pub(super) struct Moments {
    /// First and last of each interval.
    intervals: Intervals<(u64, u64)>,
}

impl Moments {
    pub(super) fn add(&mut self, ns: u64) {
        self.intervals.add(ns, (ns, ns), |one, other| {
            (one.0.min(other.0), one.1.max(other.1))
        });
    }

    /// The last one known to be before `ns`.
    pub(super) fn last_before(&self, ns: u64) -> Option<u64> {
        let key = ns / self.intervals.width_ns;
        self.intervals
            .values
            .range(..=key)
            .rev()
            .flat_map(|(_, (first, last))| [*last, *first])
            .find(|moment| *moment < ns)
    }

    /// The first one known to be after `ns`.
    pub(super) fn first_after(&self, ns: u64) -> Option<u64> {
        let key = ns / self.intervals.width_ns;
        self.intervals
            .values
            .range(key..)
            .flat_map(|(_, (first, last))| [*first, *last])
            .find(|moment| *moment > ns)
    }
}

/// How far connections reached: of those begun in an interval, the one that lasted
/// longest.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    intervals: Intervals<(u64, u64)>,
}

impl Reach {
    pub(super) fn add(&mut self, from_ns: u64, until_ns: u64) {
        self.intervals
            .add(from_ns, (from_ns, until_ns), |one, other| {
                if other.1 > one.1 { other } else { one }
            });
    }

    /// Is there one begun before `before_ns` that lasted beyond `beyond_ns`?
    pub(super) fn crosses(&self, before_ns: u64, beyond_ns: u64) -> bool {
        let key = before_ns / self.intervals.width_ns;
        self.intervals
            .values
            .range(..=key)
            .any(|(_, (from, until))| *from < before_ns && *until > beyond_ns)
    }

    /// Is there one begun after `ns`?
    pub(super) fn begins_after(&self, ns: u64) -> bool {
        let key = ns / self.intervals.width_ns;
        self.intervals
            .values
            .range(key..)
            .any(|(_, (from, _))| *from > ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_exact_while_there_are_few() {
        let mut moments = Moments::default();
        for ns in [700_000_000, 100, 300, 900_000_000] {
            moments.add(ns);
        }
        assert_eq!(moments.last_before(700_000_000), Some(300));
        assert_eq!(moments.first_after(300), Some(700_000_000));
        assert_eq!(moments.last_before(100), None);
        assert_eq!(moments.first_after(900_000_000), None);
        assert_eq!(
            (moments.last_before(200), moments.first_after(200)),
            (Some(100), Some(300))
        );
    }

    #[test]
    fn memory_stays_bounded_and_no_neighbour_is_made_up() {
        let mut moments = Moments::default();
        let mut reach = Reach::default();
        for index in 0..100_000u64 {
            // Nothing in the middle.
            let ns = index * WIDTH_NS + if index < 50_000 { 0 } else { 900_000_000_000 };
            moments.add(ns);
            reach.add(ns, ns + 5);
        }
        assert!(moments.intervals.values.len() <= MOST && reach.intervals.values.len() <= MOST);
        let middle = 50_000 * WIDTH_NS + 450_000_000_000;
        assert_eq!(moments.last_before(middle), Some(49_999 * WIDTH_NS));
        assert_eq!(
            moments.first_after(middle),
            Some(50_000 * WIDTH_NS + 900_000_000_000)
        );
        assert!(!reach.crosses(middle, middle) && reach.begins_after(middle));
    }
}
