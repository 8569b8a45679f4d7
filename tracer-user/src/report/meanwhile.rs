//! What may have happened between two events of a timeline without being recorded: the
//! programs keep the last exchange of a connection, and of it the beginnings and ends.

use super::timeline::Event;
use crate::trace::record::Connection;

/// From some event on until another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meanwhile {
    /// Since then, as [`Event::ns`].
    pub(super) from_ns: i64,
    /// What, in words.
    pub(super) what: String,
}

/// Parts of the request after its first.
pub(super) const SENDS: &str = "more of the request may have been sent, which is not recorded";
/// Parts of the response after its first.
pub(super) const RECEIVES: &str = "more of the response may have come, which is not recorded";

/// What went over the connection before the last exchange.
pub(super) fn earlier(connection: &Connection) -> String {
    let counted =
        !connection.first_seen_mid_life && !connection.calls_unseen && connection.missed_calls == 0;
    match connection.exchanges {
        0 | 1 if counted => "what came before the request is not recorded".to_owned(),
        2 if counted => "exchange 1, of which only the end is recorded".to_owned(),
        3 if counted => "exchanges 1 and 2, not recorded one by one".to_owned(),
        all if counted => format!("exchanges 1 to {}, not recorded one by one", all - 1),
        _ => "earlier exchanges are not recorded one by one".to_owned(),
    }
}

/// What may have happened between these two moments, if it was not silent for certain.
pub(super) fn between(events: &[Event], from_ns: i64, to_ns: i64) -> Option<&str> {
    events
        .iter()
        .filter_map(|event| Some((event.ns, event.meanwhile.as_ref()?)))
        .find(|(until, meanwhile)| meanwhile.from_ns < to_ns && from_ns < *until)
        .map(|(_, meanwhile)| meanwhile.what.as_str())
}
