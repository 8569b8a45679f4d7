//! Both clocks of the host.

use crate::trace::record::Anchor;

const NS_PER_S: i64 = 1_000_000_000;

fn nanoseconds(clock: rustix::time::ClockId) -> i64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec
        .saturating_mul(NS_PER_S)
        .saturating_add(time.tv_nsec)
}

/// CLOCK_MONOTONIC in nanoseconds: the clock of the kernel programs' times.
#[must_use]
pub fn monotonic_ns() -> u64 {
    u64::try_from(nanoseconds(rustix::time::ClockId::Monotonic)).unwrap_or(0)
}

/// How long a tick of the kernel is (`1 / CONFIG_HZ`): its coarse clocks advance by one
/// (`posix_get_coarse_res`).
#[must_use]
pub fn tick_ns() -> u32 {
    let resolution = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
    if resolution.tv_sec != 0 {
        return 0;
    }
    u32::try_from(resolution.tv_nsec).unwrap_or(0)
}

/// Reads both clocks at once: of some readings the one with the least time between.
#[must_use]
pub fn anchor() -> Anchor {
    let mut best = (
        u64::MAX,
        Anchor {
            monotonic_ns: 0,
            realtime_ns: 0,
        },
    );
    for _ in 0..5 {
        let before = monotonic_ns();
        let realtime_ns = nanoseconds(rustix::time::ClockId::Realtime);
        let between = monotonic_ns().saturating_sub(before);
        if between < best.0 {
            best = (
                between,
                Anchor {
                    monotonic_ns: before + between / 2,
                    realtime_ns,
                },
            );
        }
    }
    best.1
}
