//! Numbers drawn from a seed: the same seed gives the same scenario, a new one a new case.
//! (SplitMix64: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators".)

use std::ops::RangeInclusive;
use std::time::Duration;

/// A source of numbers.
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// For one scenario: what it draws does not depend on which others run beside it.
    #[must_use]
    pub fn for_scenario(seed: u64, name: &str) -> Self {
        // FNV-1a
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut draw = Self(seed ^ hash);
        draw.next();
        draw
    }

    /// The same for a scenario that is repeated: round 0 draws what
    /// [`Draw::for_scenario`] does, each further one something else.
    #[must_use]
    pub fn for_round(seed: u64, name: &str, round: u32) -> Self {
        match round {
            0 => Self::for_scenario(seed, name),
            round => Self::for_scenario(seed, &format!("{name}#{round}")),
        }
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of the range, each as likely (but for a share of 1 in 2⁶⁴ ÷ its length).
    pub fn number(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (first, last) = (*range.start(), *range.end());
        match (last - first).checked_add(1) {
            Some(count) => first + self.next() % count,
            None => self.next(),
        }
    }

    /// The same as a count.
    pub fn count(&mut self, range: RangeInclusive<usize>) -> usize {
        let (first, last) = (*range.start() as u64, *range.end() as u64);
        usize::try_from(self.number(first..=last)).unwrap_or(usize::MAX)
    }

    /// A time of so many milliseconds.
    pub fn milliseconds(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.number(range))
    }

    /// One or the other.
    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// One of these.
    ///
    /// # Panics
    /// If there is none.
    pub fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        assert!(!values.is_empty(), "nothing to draw from");
        values[self.count(0..=values.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_a_number_stays_in_its_range() {
        let mut one = Draw::for_scenario(7, "stale");
        let mut same = Draw::for_scenario(7, "stale");
        let mut other = Draw::for_scenario(7, "closed");
        let mut repeated = Draw::for_round(7, "stale", 1);
        assert_ne!(repeated.next(), Draw::for_round(7, "stale", 0).next());
        let mut differs = false;
        for _ in 0..1000 {
            let number = one.number(3..=9);
            assert_eq!(number, same.number(3..=9));
            assert!((3..=9).contains(&number));
            differs |= other.number(3..=9) != number;
        }
        assert!(differs);
    }
}
