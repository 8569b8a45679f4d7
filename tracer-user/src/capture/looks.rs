//! When the counters of losses were read, and so in which span of time was lost what they
//! show: since before they were read the last time, until after they were read.

use anyhow::Result;

/// Looks at counters, one after the other.
#[derive(Debug)]
pub(super) struct Looks {
    /// Just before they were read last.
    before_ns: u64,
}

/// What was noticed at a look happened in this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) since_ns: u64,
    pub(super) until_ns: u64,
}

impl Looks {
    /// The counters begin at zero, at this time or later.
    pub(super) const fn begin(ns: u64) -> Self {
        Self { before_ns: ns }
    }

    /// Reads the counters; a look that fails is none. `clock` tells the time.
    ///
    /// # Errors
    /// Those of `read`.
    pub(super) fn look<T>(
        &mut self,
        clock: impl Fn() -> u64,
        read: impl FnOnce() -> Result<T>,
    ) -> Result<(Span, T)> {
        let before_ns = clock();
        let found = read()?;
        // What was counted while they were read lies in this span or in the next.
        let span = Span {
            since_ns: self.before_ns,
            until_ns: clock(),
        };
        self.before_ns = before_ns;
        Ok((span, found))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_loss_while_the_counters_are_read_lies_in_both_spans_around() {
        let now = Cell::new(100);
        let slow = || {
            now.set(now.get() + 30);
            Ok(())
        };
        let mut looks = Looks::begin(40);
        let (first, ()) = looks.look(|| now.get(), slow).unwrap();
        assert_eq!((first.since_ns, first.until_ns), (40, 130));
        now.set(200);
        let failed: Result<(Span, ())> = looks.look(|| now.get(), || anyhow::bail!("x"));
        assert!(failed.is_err());
        let (second, ()) = looks.look(|| now.get(), slow).unwrap();
        assert_eq!((second.since_ns, second.until_ns), (100, 230));
    }
}
