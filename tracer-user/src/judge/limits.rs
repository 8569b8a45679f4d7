//! How many requests a backend takes on one connection: its limit, inferred from the
//! connections that it closed soon after a response, and from those that it left open.

use std::collections::BTreeMap;

use super::end::{
    Ending, SOON_NS, answered_exchanges, closed_after_exchanges, ended_before_request, ending,
    idle_age_ns, last_activity_ns, peer_end_ns,
};
use super::without_calls::is_uncounted;
use crate::report::model::InferredLimit;
use crate::trace::record::Connection;

/// Closes that must agree before a limit is believed.
const AGREEING: u64 = 3;
/// A backend that closes for a limit has closed by then, busy as it may be: ten times the
/// time in which closes count for one.
const LEFT_OPEN_NS: u64 = 10 * SOON_NS;
/// Connections left open that tell against a limit, if they are a twentieth of the closes:
/// two exchanges may be one request, whose answer began early.
const LEFT_OPEN: u64 = 2;
const OF_CLOSES: u64 = 20;

/// One upstream's connections by their number of answered requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    /// Closed by the backend soon after a whole response.
    closed: BTreeMap<u32, u64>,
    /// Left open.
    left_open: BTreeMap<u32, u64>,
}

impl Limits {
    pub(super) fn connection(&mut self, connection: &Connection) {
        if let Some(exchanges) = closed_after_exchanges(connection) {
            *self.closed.entry(exchanges).or_default() += 1;
        }
        if let Some(answered) = left_open_after(connection) {
            *self.left_open.entry(answered).or_default() += 1;
        }
    }

    /// A line says that this connection failed: unless the end came before the request,
    /// no whole response was before it.
    pub(super) fn failed(&mut self, connection: &Connection) {
        if !ended_before_request(connection)
            && let Some(exchanges) = closed_after_exchanges(connection)
            && let Some(count) = self.closed.get_mut(&exchanges)
        {
            *count = count.saturating_sub(1);
        }
    }

    /// The limit: the backend closes soon after the same number of responses, no connection
    /// got further (`most`), and none that got as far was left open, but for a few.
    pub(super) fn limit(&self, most: u32) -> Option<InferredLimit> {
        let total: u64 = self.closed.values().sum();
        let (requests, samples) = self
            .closed
            .iter()
            .max_by_key(|(_, count)| **count)
            .map(|(n, c)| (*n, *c))?;
        let left_open: u64 = self.left_open.range(requests..).map(|(_, c)| c).sum();
        let constant = samples >= AGREEING && samples * 4 >= total * 3;
        let closes = left_open < LEFT_OPEN || left_open * OF_CLOSES < samples;
        (constant && closes && requests >= 2 && most <= requests)
            .then_some(InferredLimit { requests, samples })
    }
}

/// After how many answered requests did the backend leave the connection open for much
/// longer than a close for a limit takes?
fn left_open_after(connection: &Connection) -> Option<u32> {
    if is_uncounted(connection) {
        return None;
    }
    let until = match ending(connection) {
        Ending::BackendIdle => {
            let long = idle_age_ns(connection)? >= LEFT_OPEN_NS;
            return long.then_some(connection.exchanges_at_end);
        }
        Ending::NginxIdle => connection.closed_ns.unwrap_or(connection.ended_ns),
        Ending::Open if peer_end_ns(connection).is_none() => connection.ended_ns,
        _ => return None,
    };
    let silence = until.saturating_sub(last_activity_ns(connection)?);
    let answered = answered_exchanges(connection);
    (silence >= LEFT_OPEN_NS && answered == connection.exchanges).then_some(answered)
}
