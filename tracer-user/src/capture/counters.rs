//! Per-upstream counters: summed over processors, turned into what happened since
//! the last reading.

use std::collections::HashMap;

use tracer_ebpf::histogram::lower_bound;
use tracer_ebpf::upstream::{UpstreamCounters, UpstreamKey};

use super::convert;
use crate::trace::record::{Histogram, Upstream};

/// Adds one processor's counters to a sum.
pub fn add(sum: &mut UpstreamCounters, part: &UpstreamCounters) {
    sum.connects += part.connects;
    sum.connect_failures += part.connect_failures;
    sum.exchanges += part.exchanges;
    sum.fin_first += part.fin_first;
    sum.rst_first += part.rst_first;
    sum.nginx_first += part.nginx_first;
    for (sum, part) in [
        (&mut sum.connect_us, &part.connect_us),
        (&mut sum.first_byte_us, &part.first_byte_us),
        (&mut sum.request_bytes, &part.request_bytes),
    ] {
        for (sum, part) in sum.iter_mut().zip(part) {
            *sum = sum.wrapping_add(*part);
        }
    }
}

/// What was read last time, by upstream.
#[derive(Debug, Default)]
pub struct Readings {
    last: HashMap<([u8; 16], u16, u32), UpstreamCounters>,
}

/// Counters go round, and a program that was interrupted while it added to one may set it
/// back a little: what was counted meanwhile is lost, and nothing was counted backwards.
fn histogram(new: &[u32], old: &[u32]) -> Histogram {
    new.iter()
        .zip(old)
        .enumerate()
        .filter_map(|(bucket, (new, old))| {
            let count = new.wrapping_sub(*old).cast_signed();
            let count = u64::try_from(count).ok().filter(|count| *count > 0)?;
            Some((lower_bound(bucket), count))
        })
        .collect()
}

impl Readings {
    /// The change since the last reading; none if nothing happened.
    pub fn since_last(
        &mut self,
        ns: u64,
        key: &UpstreamKey,
        new: &UpstreamCounters,
    ) -> Option<Upstream> {
        let identity = (key.address, key.port, key.netns);
        let old = self
            .last
            .insert(identity, *new)
            .unwrap_or(UpstreamCounters::ZERO);
        let change = Upstream {
            ns,
            address: convert::address(key.family, &key.address),
            port: key.port,
            netns: key.netns,
            connects: new.connects.saturating_sub(old.connects),
            connect_failures: new.connect_failures.saturating_sub(old.connect_failures),
            exchanges: new.exchanges.saturating_sub(old.exchanges),
            fin_first: new.fin_first.saturating_sub(old.fin_first),
            rst_first: new.rst_first.saturating_sub(old.rst_first),
            nginx_first: new.nginx_first.saturating_sub(old.nginx_first),
            connect_us: histogram(&new.connect_us, &old.connect_us),
            first_byte_us: histogram(&new.first_byte_us, &old.first_byte_us),
            request_bytes: histogram(&new.request_bytes, &old.request_bytes),
        };
        has_happened(&change).then_some(change)
    }
}

fn has_happened(change: &Upstream) -> bool {
    let counts = [
        change.connects,
        change.connect_failures,
        change.exchanges,
        change.fin_first,
        change.rst_first,
        change.nginx_first,
    ];
    let histograms = [
        &change.connect_us,
        &change.first_byte_us,
        &change.request_bytes,
    ];
    counts.iter().any(|count| *count > 0) || histograms.iter().any(|one| !one.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_change_since_the_last_reading_is_told() {
        let key = UpstreamKey {
            family: 2,
            port: 80,
            ..UpstreamKey::ZERO
        };
        let mut readings = Readings::default();
        let mut counters = UpstreamCounters {
            connects: 3,
            ..UpstreamCounters::ZERO
        };
        counters.connect_us[7] = 2;
        let first = readings.since_last(1, &key, &counters).unwrap();
        assert_eq!(
            (first.connects, first.connect_us.as_slice()),
            (3, &[(7, 2)][..])
        );
        assert_eq!(readings.since_last(2, &key, &counters), None);
        counters.connects = 4;
        counters.connect_us[9] = 1;
        let second = readings.since_last(3, &key, &counters).unwrap();
        assert_eq!(
            (second.connects, second.connect_us.as_slice()),
            (1, &[(10, 1)][..])
        );
    }

    #[test]
    fn a_counter_that_was_set_back_tells_of_nothing_and_one_that_went_round_goes_on() {
        assert_eq!(histogram(&[9, 3], &[12, 1]), [(1, 2)]);
        assert_eq!(histogram(&[2], &[u32::MAX - 1]), [(0, 4)]);
        let key = UpstreamKey::ZERO;
        let mut counters = UpstreamCounters {
            exchanges: 12,
            ..UpstreamCounters::ZERO
        };
        counters.connect_us[7] = 12;
        let mut readings = Readings::default();
        readings.since_last(1, &key, &counters).unwrap();
        counters.exchanges = 9;
        counters.connect_us[7] = 9;
        let back = readings.since_last(2, &key, &counters);
        assert_eq!(back, None);
        counters.exchanges = 11;
        counters.connect_us[7] = 10;
        let on = readings.since_last(3, &key, &counters).unwrap();
        assert_eq!((on.exchanges, on.connect_us), (2, vec![(7, 1)]));
    }

    #[test]
    fn every_value_falls_into_the_bucket_whose_bounds_hold_it() {
        use tracer_ebpf::histogram::{BUCKETS, bucket};
        for value in (0..5000).chain((13..60).map(|bit| (1u64 << bit) - 1)) {
            let found = bucket(value);
            assert!(lower_bound(found) <= value, "{value}");
            assert!(
                found + 1 == BUCKETS || value < lower_bound(found + 1),
                "{value}"
            );
        }
    }
}
