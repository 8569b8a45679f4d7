//! Values of which the densest cluster matters: idle ages at which a backend closes.

/// Kept values; beyond it every second one is dropped, so that memory stays bounded
/// and the sample stays spread over the whole capture.
const MOST: usize = 16_384;

/// A bounded sample of nanosecond values.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    values: Vec<u64>,
    /// Only every so many-th value is kept (a power of two).
    stride: u64,
    seen: u64,
}

/// The densest cluster of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    /// Its median; the least of an even spread.
    pub(super) ns: u64,
    /// From its smallest to its largest value.
    pub(super) spread_ns: u64,
    /// Values in it.
    pub(super) count: u64,
    /// Values in the sample.
    pub(super) of: u64,
}

impl Samples {
    pub(super) fn add(&mut self, ns: u64) {
        let stride = self.stride.max(1);
        if self.seen.is_multiple_of(stride) {
            self.values.push(ns);
        }
        self.seen += 1;
        if self.values.len() >= MOST {
            let mut keep = false;
            self.values.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride = stride * 2;
        }
    }

    /// How many values there were.
    pub(super) const fn seen(&self) -> u64 {
        self.seen
    }

    /// Takes the values of another sample.
    pub(super) fn append(&mut self, other: Self) {
        for value in other.values {
            self.add(value);
        }
    }

    /// How many values there were above this one, about.
    pub(super) fn above(&self, ns: u64) -> u64 {
        let kept = self.values.iter().filter(|value| **value > ns).count();
        (kept as u64).saturating_mul(self.stride.max(1))
    }

    /// All values as one cluster that begins at the least, if they are many, the largest is
    /// not above twice the least, and they are spread evenly between both.
    pub(super) fn even(&self) -> Option<Mode> {
        let mut values = self.values.clone();
        values.sort_unstable();
        let (least, most) = (*values.first()?, *values.last()?);
        let below = |share: u64| {
            let bound = least + (most - least) / 3 * share;
            values.partition_point(|value| *value < bound)
        };
        let (first, second) = (below(1), below(2));
        let thirds = [first, second - first, values.len() - second];
        let even = thirds
            .iter()
            .all(|third| third * 10 >= values.len() && third * 10 <= values.len() * 7);
        (values.len() >= WIDE && most / 2 <= least && even).then_some(Mode {
            ns: least,
            spread_ns: most - least,
            count: values.len() as u64,
            of: values.len() as u64,
        })
    }

    /// The cluster of the least values that are as close together as in [`Self::mode`] and
    /// at least a third of all, and so many.
    pub(super) fn least_mode(&self, share: f64, least_ns: u64, count: u64) -> Option<Mode> {
        let mut values = self.values.clone();
        values.sort_unstable();
        let needed = values.len().div_ceil(3).max(usize::try_from(count).ok()?);
        (0..values.len()).find_map(|from| {
            let first = *values.get(from)?;
            let bound = first.saturating_add(width(first, share).max(least_ns));
            let to = values.partition_point(|value| *value <= bound);
            let cluster = values.get(from..to)?;
            (cluster.len() >= needed).then_some(Mode {
                ns: *cluster.get(cluster.len() / 2)?,
                spread_ns: cluster.last()? - first,
                count: cluster.len() as u64,
                of: values.len() as u64,
            })
        })
    }

    /// The densest cluster whose width is within `share` of its values or `least_ns`,
    /// whichever is wider.
    pub(super) fn mode(&self, share: f64, least_ns: u64) -> Option<Mode> {
        let mut values = self.values.clone();
        values.sort_unstable();
        let mut best: Option<(usize, usize)> = None;
        let mut start = 0;
        for (end, value) in values.iter().enumerate() {
            while let Some(first) = values.get(start)
                && value - first > width(*first, share).max(least_ns)
            {
                start += 1;
            }
            if best.is_none_or(|(from, to)| end - start > to - from) {
                best = Some((start, end));
            }
        }
        let (from, to) = best?;
        let cluster = values.get(from..=to)?;
        Some(Mode {
            ns: *cluster.get(cluster.len() / 2)?,
            spread_ns: cluster.last()? - cluster.first()?,
            count: u64::try_from(cluster.len()).ok()?,
            of: u64::try_from(values.len()).ok()?,
        })
    }
}

/// Values that are enough to see how they are spread.
const WIDE: usize = 20;

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a width of some per cent of a time; precision does not matter"
)]
fn width(ns: u64, share: f64) -> u64 {
    (ns as f64 * share) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_densest_cluster_wins_over_scattered_values() {
        let mut samples = Samples::default();
        for value in [10, 400, 1000, 1001, 1003, 1004, 2000, 5000] {
            samples.add(value * 1_000_000);
        }
        let mode = samples.mode(0.02, 20_000_000).unwrap();
        assert_eq!((mode.ns, mode.count, mode.of), (1_003_000_000, 4, 8));
        assert_eq!(mode.spread_ns, 4_000_000);
        assert_eq!(Samples::default().mode(0.02, 1), None);
    }

    #[test]
    fn memory_stays_bounded_and_the_mode_survives() {
        let mut samples = Samples::default();
        for value in 0..200_000u64 {
            samples.add(if value % 3 == 0 { value } else { 5_000_000_000 });
        }
        assert!(samples.values.len() < MOST);
        assert_eq!(samples.mode(0.02, 1000).unwrap().ns, 5_000_000_000);
    }
}
