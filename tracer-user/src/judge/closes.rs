//! A worker's closes that lines may come for which were not seen being written: how long
//! each is kept, and what is known of those that are not kept any more.

use std::collections::VecDeque;
use std::rc::Rc;

use super::agreement::agreement;
use super::clock::Clock;
use super::end::is_tls_alert;
use super::line::UpstreamLine;
use crate::trace::record::Connection;

/// A line is read within moments of its connection's close, but a capture may stall.
pub(super) const CLOSE_WAITS_NS: u64 = 10_000_000_000;
/// So long before a line was read at most its connection was closed, unless it did.
const LATELY_NS: u64 = 2_000_000_000;
/// The log is read in turns: what was closed so soon before one was to be read in it.
pub(super) const READ_SLACK_NS: u64 = 50_000_000;
/// Closes kept beyond those of that time.
const CLOSES: usize = 4096;
/// Closes kept at all, some 700 bytes each.
const MOST_CLOSES: usize = 32_768;

/// A close, and whether a line has been given it already.
#[derive(Debug)]
pub(super) struct Close {
    pub(super) connection: Rc<Connection>,
    pub(super) given: bool,
    /// The same, had nginx met its end: calls were missed then.
    pub(super) assumed: Option<Rc<Connection>>,
}

impl Close {
    /// See [`agreement`].
    pub(super) fn agreement(&self, line: &UpstreamLine, clock: &Clock) -> Option<i32> {
        let assumed = || agreement(line, self.assumed.as_ref()?, clock);
        agreement(line, &self.connection, clock).or_else(assumed)
    }

    /// The connection as it shows what this line reports, and whether that is assumed.
    pub(super) fn as_shown(&self, line: &UpstreamLine, clock: &Clock) -> (Rc<Connection>, bool) {
        match &self.assumed {
            Some(assumed) if agreement(line, &self.connection, clock).is_none() => {
                (Rc::clone(assumed), true)
            }
            _ => (Rc::clone(&self.connection), false),
        }
    }
}

/// The closes, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Closes {
    pub(super) list: VecDeque<Close>,
    /// Of those that were too many, ones that ended in an alert of TLS: a line about bytes
    /// that nginx passes on waits long for them.
    alerts: VecDeque<Rc<Connection>>,
    /// When the last close was that was forgotten because there were too many.
    pub(super) gone_ns: Option<u64>,
}

impl Closes {
    /// `first_line_ns`: when the first line was read that waits; `passing_on`: a line waits
    /// for an alert.
    pub(super) fn push(
        &mut self,
        connection: &Rc<Connection>,
        first_line_ns: Option<u64>,
        passing_on: bool,
    ) {
        let since = first_line_ns.unwrap_or(u64::MAX).min(connection.ended_ns);
        while let Some(first) = self.list.front() {
            let age = since.saturating_sub(first.connection.ended_ns);
            let most = if age > LATELY_NS { CLOSES } else { MOST_CLOSES };
            let too_many = self.list.len() >= most;
            if !too_many && age <= CLOSE_WAITS_NS {
                break;
            }
            let Some(close) = self.list.pop_front() else {
                break;
            };
            if too_many {
                self.gone_ns = self.gone_ns.max(Some(close.connection.ended_ns));
            }
            if passing_on && !close.given && is_tls_alert(&close.connection) {
                self.alerts.push_back(close.connection);
                if self.alerts.len() > CLOSES {
                    self.alerts.pop_front();
                }
            }
        }
        if !passing_on {
            self.alerts.clear();
        }
        self.list.push_back(Close {
            connection: Rc::clone(connection),
            given: false,
            assumed: None,
        });
    }

    pub(super) fn remove(&mut self, cookie: u64) {
        let is_it = |close: &Close| close.connection.cookie == cookie;
        let found = self.list.iter().rposition(is_it);
        if let Some(index) = found {
            self.list.remove(index);
        }
        self.alerts.retain(|connection| connection.cookie != cookie);
    }

    /// Those that no line has been given, and alerts from before.
    pub(super) fn free(&self) -> impl Iterator<Item = &Rc<Connection>> {
        let kept = self.list.iter().filter(|close| !close.given);
        self.alerts
            .iter()
            .chain(kept.map(|close| &close.connection))
    }
}

/// May the last of the closes that were not looked at, because there were too many, have been
/// this line's?
pub(super) fn may_be_of(line: &UpstreamLine, ended_ns: Option<u64>) -> bool {
    let lately = line.read_ns.saturating_sub(LATELY_NS);
    let since = line.since_ns.unwrap_or(0).saturating_sub(READ_SLACK_NS);
    ended_ns.is_some_and(|ended| ended >= lately.max(since))
}
