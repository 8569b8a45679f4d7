//! The one clock of all records (CLOCK_MONOTONIC, as in traces), and bounded waits
//! for facts.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// How long a wait for something that ought to happen at once may last on a busy
/// machine before it counts as never.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Nanoseconds of CLOCK_MONOTONIC.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // The clock counts from boot: neither part is ever negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Time between two readings of [`now_ns`]; zero if they are the wrong way round.
#[must_use]
pub fn between(earlier_ns: u64, later_ns: u64) -> Duration {
    Duration::from_nanos(later_ns.saturating_sub(earlier_ns))
}

/// A duration as ppoll(2) takes it.
#[must_use]
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Sleeps until `deadline`; returns at once if it has passed.
pub fn sleep_until(deadline: Instant) {
    thread::sleep(deadline.saturating_duration_since(Instant::now()));
}

/// Asks `fact` again and again until it yields something.
///
/// # Errors
/// If it fails, or has yielded nothing within `patience`: the message names `what`.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut fact: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = fact()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {patience:?} in vain for {what}");
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_fact_or_names_what_never_came() {
        let mut asked = 0;
        let value = wait_for("three", PATIENCE, || {
            asked += 1;
            Ok((asked == 3).then_some(asked))
        });
        assert_eq!(value.unwrap(), 3);
        let never = wait_for::<()>("the moon", Duration::ZERO, || Ok(None)).unwrap_err();
        assert!(never.to_string().contains("the moon"));
    }

    #[test]
    fn the_clock_goes_forward_and_never_wraps_a_difference() {
        let earlier = now_ns();
        let later = now_ns();
        assert!(later >= earlier);
        assert_eq!(between(2, 1), Duration::ZERO);
        assert_eq!(between(1, 3), Duration::from_nanos(2));
    }
}
