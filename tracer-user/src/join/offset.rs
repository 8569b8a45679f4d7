//! How far the clock of a backend's host is ahead of that of nginx's, from what must have
//! come before what on the connections that both saw.

use std::collections::BTreeMap;

/// Clocks of two hosts that nobody corrects drift apart by some 50 µs a second: within
/// this time by little, against what one connection can tell.
const WINDOW_NS: u64 = 60_000_000_000;

/// A handshake's last segment may come this late, by losses or a busy host; what differs
/// more from the others belongs to no one connection.
const APART_NS: i64 = 2_000_000_000;

/// What one connection says. Differences are the backend's clock less nginx's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// When, by nginx's clock.
    pub(super) at_ns: u64,
    /// From something that left nginx to its arrival at the other end: it was on its way
    /// between, so the clock is ahead by no more.
    pub(super) most_ns: i64,
    /// From the arrival at nginx of something that the other end sent to its being sent: it
    /// is ahead by no less.
    pub(super) least_ns: Option<i64>,
    /// By how much the first of these is too large at most: the way there and back, or what
    /// its times may be off.
    pub(super) round_trip_ns: u64,
}

/// The clock of a backend's host against nginx's.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Offset {
    /// By the part of the time (nginx's clock) that they were learnt in.
    windows: BTreeMap<u64, Window>,
    /// Over all connections: the median of what each says, and how far the middle half
    /// of them lies apart.
    pub(super) median_ns: i64,
    pub(super) spread_ns: u64,
    pub(super) samples: u64,
}

/// The offset in a part of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) offset_ns: i64,
    /// It may be off by this much.
    pub(super) error_ns: u64,
}

impl Offset {
    /// Both captures ran on one host, which has one clock.
    pub(super) fn none() -> Self {
        Self {
            windows: BTreeMap::from([(0, Window::default())]),
            median_ns: 0,
            spread_ns: 0,
            samples: 0,
        }
    }

    /// None if there is no connection, or if they contradict each other.
    pub(super) fn estimate(samples: &[Sample]) -> Option<Self> {
        let middle = median(samples.iter().map(Sample::likely_ns).collect())?;
        let agreeing: Vec<Sample> = samples
            .iter()
            .filter(|sample| (sample.likely_ns() - middle).abs() <= APART_NS)
            .copied()
            .collect();
        // Address pairs that are equal by chance have nothing in common.
        if agreeing.len() * 2 <= samples.len() {
            return None;
        }
        let mut all: Vec<i64> = agreeing.iter().map(Sample::likely_ns).collect();
        all.sort_unstable();
        let quarter = |of: usize| all.get(of * all.len() / 4).copied();
        let last = all.last().copied()?;
        let spread = quarter(3).unwrap_or(last) - quarter(1)?;
        let mut parts: BTreeMap<u64, Vec<Sample>> = BTreeMap::new();
        for sample in &agreeing {
            parts
                .entry(sample.at_ns / WINDOW_NS)
                .or_default()
                .push(*sample);
        }
        Some(Self {
            windows: parts
                .into_iter()
                .filter_map(|(part, samples)| Some((part, Window::of(&samples)?)))
                .collect(),
            median_ns: median(all)?,
            spread_ns: spread.unsigned_abs(),
            samples: agreeing.len() as u64,
        })
    }

    /// At this time by nginx's clock: that of the nearest part in which it was learnt.
    pub(super) fn at(&self, ns: u64) -> Window {
        let part = ns / WINDOW_NS;
        let before = self.windows.range(..=part).next_back();
        let after = self.windows.range(part..).next();
        match (before, after) {
            (Some(before), Some(after)) if after.0 - part < part - before.0 => *after.1,
            (Some((_, window)), _) | (None, Some((_, window))) => *window,
            (None, None) => Window::default(),
        }
    }

    /// A time of the backend's host by nginx's clock, and how far it may be off.
    pub(super) fn convert(&self, backend_ns: u64) -> (u64, u64) {
        let about = backend_ns.saturating_add_signed(-self.median_ns);
        let window = self.at(about);
        let ns = backend_ns.saturating_add_signed(-window.offset_ns);
        (ns, window.error_ns)
    }

    /// How far the offset wandered from the first part to the last.
    pub(super) fn drift_ns(&self) -> i64 {
        let first = self.windows.values().next();
        let last = self.windows.values().next_back();
        first
            .zip(last)
            .map_or(0, |(first, last)| last.offset_ns - first.offset_ns)
    }

    /// How far it may be off at most.
    pub(super) fn error_ns(&self) -> u64 {
        let errors = self.windows.values().map(|window| window.error_ns);
        errors.max().unwrap_or(0)
    }
}

impl Sample {
    /// If both ways take equally long.
    fn likely_ns(&self) -> i64 {
        let half = i64::try_from(self.round_trip_ns / 2).unwrap_or(0);
        self.most_ns.saturating_sub(half)
    }
}

impl Window {
    fn of(samples: &[Sample]) -> Option<Self> {
        let most = samples.iter().map(|sample| sample.most_ns).min()?;
        let quickest = samples.iter().map(|sample| sample.round_trip_ns).min()?;
        let likely = median(samples.iter().map(Sample::likely_ns).collect())?.min(most);
        let least = samples.iter().filter_map(|sample| sample.least_ns).max();
        Some(match least {
            Some(least) => Self {
                offset_ns: i64::midpoint(least, most),
                // Where they contradict each other, the clocks drifted meanwhile.
                error_ns: most.abs_diff(least).div_ceil(2),
            },
            None => Self {
                offset_ns: likely,
                error_ns: quickest.max(most.abs_diff(likely)),
            },
        })
    }
}

fn median(mut values: Vec<i64>) -> Option<i64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_s: u64, most_ns: i64, least_ns: Option<i64>, round_trip_ns: u64) -> Sample {
        Sample {
            at_ns: at_s * 1_000_000_000,
            most_ns,
            least_ns,
            round_trip_ns,
        }
    }

    #[test]
    fn both_ways_together_bound_the_offset() {
        let samples = [
            sample(1, 5_000_300, None, 400),
            sample(2, 5_000_200, Some(4_999_900), 400),
            sample(3, 5_009_000, Some(4_990_000), 400),
        ];
        let offset = Offset::estimate(&samples).unwrap();
        let window = offset.at(2_000_000_000);
        assert_eq!((window.offset_ns, window.error_ns), (5_000_050, 150));
        assert_eq!(offset.convert(105_000_050), (100_000_000, 150));
    }

    #[test]
    fn one_way_alone_is_off_by_a_round_trip_at_most() {
        let offset = Offset::estimate(&[sample(1, -700, None, 400)]).unwrap();
        let window = offset.at(0);
        assert_eq!((window.offset_ns, window.error_ns), (-900, 400));
    }

    #[test]
    fn a_drift_is_followed() {
        let samples: Vec<Sample> = (0..20)
            .map(|minute| sample(minute * 60, 1_000 * minute.cast_signed(), None, 0))
            .collect();
        let offset = Offset::estimate(&samples).unwrap();
        assert_eq!(offset.drift_ns(), 19_000);
        assert_eq!(offset.at(600_000_000_000).offset_ns, 10_000);
        assert_eq!(offset.at(u64::MAX).offset_ns, 19_000);
    }

    #[test]
    fn a_few_that_are_another_connection_count_for_nothing() {
        let mut samples = vec![sample(1, 500, None, 0); 5];
        samples.push(sample(1, -9_000_000_000, None, 0));
        assert_eq!(Offset::estimate(&samples).unwrap().at(0).offset_ns, 500);
        let scattered: Vec<Sample> = (0..6)
            .map(|number| sample(1, number * 9_000_000_000, None, 0))
            .collect();
        assert_eq!(Offset::estimate(&scattered), None);
        assert_eq!(Offset::estimate(&[]), None);
    }
}
