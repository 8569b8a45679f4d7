//! The trace's monotonic times as wall time, and a log stamp's local time in the zone
//! that nginx stamps its lines in.

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

use crate::trace::record::Anchor;

/// Anchors of both clocks, in the order in which they were taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    anchors: Vec<Anchor>,
}

impl Clock {
    pub(crate) fn add(&mut self, anchor: Anchor) {
        self.anchors.push(anchor);
    }

    /// Wall time in nanoseconds since 1970, by the last anchor not after `ns`, so
    /// that a clock step counts only from the anchor at which it was noticed.
    pub(super) fn realtime_ns(&self, ns: u64) -> Option<i64> {
        let next = self
            .anchors
            .partition_point(|anchor| anchor.monotonic_ns <= ns);
        let anchor = self.anchors.get(next.saturating_sub(1))?;
        let difference = i128::from(ns) - i128::from(anchor.monotonic_ns);
        i64::try_from(i128::from(anchor.realtime_ns) + difference).ok()
    }

    /// RFC 3339 in UTC with nanoseconds; empty if the trace has no anchor.
    pub(crate) fn rfc3339(&self, ns: u64) -> String {
        self.realtime_ns(ns).map(format_ns).unwrap_or_default()
    }

    /// The largest step of the wall clock between two anchors, in nanoseconds.
    pub(super) fn largest_step_ns(&self) -> i64 {
        self.anchors
            .windows(2)
            .filter_map(|pair| {
                let [before, after] = pair else { return None };
                let monotonic = i128::from(after.monotonic_ns) - i128::from(before.monotonic_ns);
                let realtime = i128::from(after.realtime_ns) - i128::from(before.realtime_ns);
                i64::try_from(realtime - monotonic).ok()
            })
            .max_by_key(|step| step.unsigned_abs())
            .unwrap_or(0)
    }
}

fn format_ns(realtime_ns: i64) -> String {
    Timestamp::from_nanosecond(i128::from(realtime_ns))
        .map(|time| format!("{time:.9}"))
        .unwrap_or_default()
}

/// A stamp of the log as seconds since 1970. In the hour that a daylight-saving change
/// repeats it is the occurrence nearer to `read_s`, when the line was read.
pub(super) fn stamp_seconds(
    stamp: civil::DateTime,
    zone: &TimeZone,
    read_s: Option<i64>,
) -> Option<i64> {
    let stamp = zone.to_ambiguous_zoned(stamp);
    let second = |zoned: jiff::Zoned| zoned.timestamp().as_second();
    let earlier = stamp.clone().earlier().ok().map(second);
    let later = stamp.later().ok().map(second);
    earlier
        .into_iter()
        .chain(later)
        .min_by_key(|second| read_s.map_or(0, |read| (second - read).abs()))
}

/// A stamp in UTC as seconds since 1970.
pub(super) fn utc_seconds(stamp: civil::DateTime) -> Option<i64> {
    stamp_seconds(stamp, &TimeZone::UTC, None)
}

/// A stamp's second as RFC 3339 in UTC with nanoseconds.
pub(crate) fn rfc3339_second(second: i64) -> String {
    second
        .checked_mul(1_000_000_000)
        .map(format_ns)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_runs_on_from_the_anchor_before_it() {
        let mut clock = Clock::default();
        clock.add(Anchor {
            monotonic_ns: 100,
            realtime_ns: 1_000_000_000_000_000_000,
        });
        clock.add(Anchor {
            monotonic_ns: 200,
            realtime_ns: 1_000_000_000_000_000_600,
        });
        assert_eq!(clock.realtime_ns(150), Some(1_000_000_000_000_000_050));
        assert_eq!(clock.realtime_ns(90), Some(999_999_999_999_999_990));
        assert_eq!(clock.realtime_ns(201), Some(1_000_000_000_000_000_601));
        assert_eq!(clock.largest_step_ns(), 500);
        assert_eq!(clock.rfc3339(100), "2001-09-09T01:46:40.000000000Z");
    }

    #[test]
    fn a_stamp_of_the_repeated_hour_is_the_one_that_was_just_read() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let stamp = civil::date(2026, 10, 25).at(2, 30, 0, 0);
        let first: Timestamp = "2026-10-25T00:30:00Z".parse().unwrap();
        let (first, second) = (first.as_second(), first.as_second() + 3600);
        for (read_s, expected) in [
            (None, first),
            (Some(first + 1), first),
            (Some(second), second),
            (Some(second + 2), second),
        ] {
            assert_eq!(stamp_seconds(stamp, &berlin, read_s), Some(expected));
        }
        // The hour that is left out in spring: nginx stamps none, a clock step may.
        let missing = civil::date(2026, 3, 29).at(2, 30, 0, 0);
        assert!(stamp_seconds(missing, &berlin, None).is_some());
        let plain = civil::date(2026, 10, 25).at(12, 0, 0, 0);
        let noon: Timestamp = "2026-10-25T11:00:00Z".parse().unwrap();
        assert_eq!(
            stamp_seconds(plain, &berlin, Some(0)),
            Some(noon.as_second())
        );
    }
}
