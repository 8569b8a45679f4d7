//! Lines that wait for word of what was missed. Their connection shows what they report only
//! if a call of nginx's was missed that moved no bytes: one that failed, or read the end of
//! the stream. What the kernel skipped is counted once a second, so later.

use super::fitting::ANOTHERS;
use super::socket::Socket;
use super::workers::Settled;
use super::{Judge, end};
use crate::trace::record::Connection;

/// The counters have been read after a moment, and so have those of the span after it, when
/// the clocks are read so much later.
const KNOWN_AFTER_NS: u64 = 1_200_000_000;

impl Judge {
    /// Those of which it is known by now.
    pub(super) fn settle_doubtful(&mut self, now_ns: u64) {
        let known = |settled: &Settled| match &settled.socket {
            Socket::Assumed(connection) => {
                connection.ended_ns.saturating_add(KNOWN_AFTER_NS) <= now_ns
            }
            _ => true,
        };
        while let Some((_, first)) = self.doubtful.front()
            && known(first)
        {
            let Some((pid, mut settled)) = self.doubtful.pop_front() else {
                return;
            };
            if let Socket::Assumed(connection) = settled.socket {
                settled.end_not_met = self.end_was_missed(&connection);
                settled.socket = if settled.end_not_met {
                    if let Some(worker) = self.workers.get_mut(&pid) {
                        worker.taken(connection.cookie);
                    }
                    Socket::Found(connection)
                } else {
                    Socket::Missing(ANOTHERS)
                };
            }
            self.keep(pid, vec![settled]);
        }
    }

    /// Were calls missed when nginx must have met this connection's end? Where its own record
    /// may be lost, the next close need not be the line's.
    fn end_was_missed(&self, connection: &Connection) -> bool {
        let met = end::peer_end_ns(connection).unwrap_or(connection.ended_ns)..=connection.ended_ns;
        self.losses.calls_missed(met.clone()) && self.losses.verdicts.around(met) == 0
    }
}
