//! What one connection's record proves by itself, without a line: when the backend's
//! side ended it, whether a request was in flight then, and how it ended in all.

use super::mid_life;
use super::without_calls::{is_remembered, is_uncounted};
use crate::trace::record::{Connection, ConnectionEnd, PeerClose};

/// Silence below which a close is taken as following directly on a response.
pub(super) const DIRECTLY_NS: u64 = 5_000_000;

/// Silence below which no timer closed: what ends sooner after a response had a reason in
/// it, such as a limit on requests. No server's idle timeout is as short.
pub(super) const SOON_NS: u64 = 50_000_000;

const ECONNREFUSED: u32 = 111;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ending {
    /// Still open.
    Open,
    /// See [`crate::report::model::Closes`], as for the others.
    BackendIdle,
    BackendInFlight,
    /// The backend closed after (part of) a response.
    BackendAfterResponse,
    NginxIdle,
    NginxAfterResponse,
    NginxInFlight,
    Refused,
    /// Never established for another reason.
    NotConnected,
}

/// When the backend's side ended the connection: the earlier of FIN and RST.
pub(super) fn peer_end_ns(connection: &Connection) -> Option<u64> {
    match (connection.fin_received_ns, connection.rst_received_ns) {
        (Some(fin), Some(rst)) => Some(fin.min(rst)),
        (fin, rst) => fin.or(rst),
    }
}

/// Was it an RST that came first?
pub(super) fn ended_by_reset(connection: &Connection) -> bool {
    connection
        .rst_received_ns
        .is_some_and(|rst| connection.fin_received_ns.is_none_or(|fin| rst < fin))
}

/// Can this close of the backend's side have caused the end that nginx's side saw? A
/// close comes first; one that came later shows that the side was still open.
pub(super) fn caused_by(connection: &Connection, close: &PeerClose) -> bool {
    peer_end_ns(connection).is_none_or(|end| close.ns <= end.saturating_add(CLOCK_NS))
}

/// Times of one host taken on two processors.
const CLOCK_NS: u64 = 1_000_000;

/// Bytes not acknowledged when the backend's side ended the connection.
pub(super) fn unacked_at_end(connection: &Connection) -> Option<u32> {
    if ended_by_reset(connection) {
        connection.unacked_at_rst
    } else {
        connection.unacked_at_fin
    }
}

/// Did the end come before the last request was written? Bytes that were not
/// acknowledged then are that request's, whatever the order of the times: the kernel
/// reports a send only after it has returned.
pub(super) fn ended_before_request(connection: &Connection) -> bool {
    peer_end_ns(connection).is_some()
        && connection.exchanges_at_end < connection.exchanges
        && unacked_at_end(connection).is_none_or(|unacked| unacked == 0)
}

/// When something last moved on the connection. Of data that nginx was late to read,
/// that it came.
pub(super) fn last_activity_ns(connection: &Connection) -> Option<u64> {
    let received = connection.last_arrival_ns.or(connection.last_received_ns);
    received.max(connection.last_sent_ns)
}

/// The silence before the last exchange. The kernel counts it from nginx's read of the
/// answer before; if that was late, and the last exchange has no answer, it is known when
/// that one came.
pub(super) fn silence_before_ns(connection: &Connection) -> Option<u64> {
    let counted = connection.idle_before_ns?;
    let since_arrival = connection
        .last_arrival_ns
        .zip(connection.request_started_ns)
        .and_then(|(arrived, started)| started.checked_sub(arrived));
    Some(since_arrival.map_or(counted, |silence| silence.max(counted)))
}

/// Did nginx itself, looking at the idle connection, find the end that had come?
fn found_idle(connection: &Connection) -> bool {
    (connection.idle_end.is_some() || connection.calls_unseen)
        && !connection.awaiting_at_end
        && connection.exchanges_at_end == connection.exchanges
        && peer_end_ns(connection)
            .zip(last_activity_ns(connection))
            .is_some_and(|(end, activity)| activity <= end)
}

/// How long the connection had been silent when the backend's FIN or RST came, if it is
/// proven that it was kept alive and idle then: nginx found it so, or sent another
/// request later.
pub(super) fn idle_age_ns(connection: &Connection) -> Option<u64> {
    if connection.established_ns.is_none() || connection.exchanges_at_end == 0 {
        return None;
    }
    let end = peer_end_ns(connection)?;
    let quiet_since = if mid_life::ended_before(connection) {
        return None;
    } else if ended_before_request(connection) {
        // Of several later requests only the last one's start is known.
        (connection.exchanges_at_end.checked_add(1)? == connection.exchanges).then_some(())?;
        connection
            .request_started_ns?
            .checked_sub(silence_before_ns(connection)?)?
    } else if found_idle(connection) {
        last_activity_ns(connection)?
    } else {
        return None;
    };
    Some(end.saturating_sub(quiet_since))
}

pub(super) fn ending(connection: &Connection) -> Ending {
    if connection.end == ConnectionEnd::Open {
        return Ending::Open;
    }
    if connection.established_ns.is_none() {
        return if connection.socket_error == Some(ECONNREFUSED) {
            Ending::Refused
        } else {
            Ending::NotConnected
        };
    }
    match peer_end_ns(connection) {
        Some(end) => backends_ending(connection, end),
        None => nginxs_ending(connection),
    }
}

fn backends_ending(connection: &Connection, end: u64) -> Ending {
    let directly = |age: u64| {
        if age < DIRECTLY_NS {
            Ending::BackendAfterResponse
        } else {
            Ending::BackendIdle
        }
    };
    if connection.exchanges == 0 {
        return Ending::BackendIdle;
    }
    if let Some(age) = idle_age_ns(connection) {
        return directly(age);
    }
    let answered = connection.first_byte_ns.is_some();
    if !answered && connection.unread_at_end.is_some() {
        // The answer was there with the end; nginx closed without reading it.
        return Ending::NginxInFlight;
    }
    // An answer that nginx read after the end had come with it.
    let with_the_end = connection.last_received_ns > Some(end);
    if !answered || connection.awaiting_at_end && !with_the_end {
        return Ending::BackendInFlight;
    }
    let looked = connection.eof_read_ns.is_some() || connection.failed_call_ns.is_some();
    match last_activity_ns(connection) {
        // nginx closed it, or heard of its error, without a read: it was in no exchange.
        Some(activity) if !looked && activity <= end => directly(end - activity),
        _ => Ending::BackendAfterResponse,
    }
}

fn nginxs_ending(connection: &Connection) -> Ending {
    if connection.exchanges > 0 && connection.first_byte_ns.is_none() {
        return Ending::NginxInFlight;
    }
    let closed = connection.closed_ns.unwrap_or(connection.ended_ns);
    match last_activity_ns(connection) {
        Some(since) if closed.saturating_sub(since) < DIRECTLY_NS => Ending::NginxAfterResponse,
        _ => Ending::NginxIdle,
    }
}

/// Bytes over TLS that need not be an answer. Two session tickets of TLS 1.3 come after
/// the first request was sent (OpenSSL: some 250 bytes each), and a close_notify is an
/// encrypted record of 24 to 31 bytes.
pub(super) fn no_answer_below(connection: &Connection) -> u64 {
    match connection.handshake_ns {
        None => 1,
        Some(_) if connection.exchanges <= 1 => 2048,
        Some(_) => 64,
    }
}

/// Bytes not acknowledged when nginx closed. Where the socket had an error by then, older
/// captures noted none, and have 0.
pub(super) fn unacked_at_close(connection: &Connection) -> Option<u32> {
    let noted = |unacked: &u32| *unacked > 0 || connection.socket_error.is_none();
    connection.unacked_at_close.filter(noted)
}

/// Did the backend answer the last request, and that after it had taken all of it?
/// nginx goes on sending while an early answer is on its way.
pub(super) fn answered_whole_request(connection: &Connection) -> bool {
    let taken = connection.rst_received_ns.is_none()
        && unacked_at_end(connection).is_none_or(|unacked| unacked == 0)
        && unacked_at_close(connection)
            .map_or(connection.socket_error.is_none(), |unacked| unacked == 0);
    connection.exchanges > 0 && connection.response_bytes >= no_answer_below(connection) && taken
}

/// From the first byte of the last request to the backend's FIN or RST; none at all if
/// that is noted earlier, for the kernel reports a send only after it has returned.
pub(super) fn in_flight_at_end_ns(connection: &Connection) -> Option<u64> {
    Some(peer_end_ns(connection)?.saturating_sub(connection.request_started_ns?))
}

/// The silence before a request on a kept-alive connection that was answered at once by an
/// RST instead of an acknowledgement.
pub(super) fn reset_instead_of_acknowledged(connection: &Connection) -> Option<u64> {
    let unacked = u64::from(unacked_at_end(connection)?);
    (ended_by_reset(connection)
        && connection.response_bytes == 0
        && connection.exchange_retransmits == 0
        && unacked >= connection.request_bytes
        && in_flight_at_end_ns(connection)? < SOON_NS)
        .then_some(silence_before_ns(connection)?)
}

/// Was the only answer to a plain request an alert of TLS? That of a server which
/// expects a handshake is one record of 7 bytes (RFC 8446, 5.1 and 6); some send two.
pub(super) fn is_tls_alert(connection: &Connection) -> bool {
    connection.handshake_ns.is_none()
        && connection.exchanges == 1
        && !connection.first_seen_mid_life
        && matches!(connection.response_bytes, TLS_ALERT | TWO_TLS_ALERTS)
        && connection.received_bytes == connection.response_bytes
}

/// Bytes of a record of TLS that holds an alert.
pub(super) const TLS_ALERT: u64 = 7;
const TWO_TLS_ALERTS: u64 = 2 * TLS_ALERT;

/// Was the first request of a connection met by its end or by an alert, at once and
/// without an answer?
pub(super) fn refused_at_once(connection: &Connection) -> bool {
    let answered = connection.response_bytes > 0 || connection.unread_at_end.is_some();
    is_tls_alert(connection)
        || connection.exchanges == 1
            && !connection.first_seen_mid_life
            && !answered
            && peer_end_ns(connection)
                .zip(connection.request_started_ns)
                .is_some_and(|(end, started)| end.saturating_sub(started) < AT_ONCE_NS)
}

/// A server that sees bytes of the wrong protocol closes within this time, even if it is
/// busy.
const AT_ONCE_NS: u64 = 50_000_000;
/// The same, beyond the time that the connect took, if it is not.
const WITHOUT_WORK_NS: u64 = 10_000_000;

/// Did that end come before the backend can have worked on the request? The connect took
/// a round trip of the network.
pub(super) fn refused_without_work(connection: &Connection) -> bool {
    let round_trip = connection.established_ns.map_or(0, |established| {
        established.saturating_sub(connection.opened_ns)
    });
    refused_at_once(connection)
        && peer_end_ns(connection)
            .zip(connection.request_started_ns)
            .is_none_or(|(end, started)| {
                end.saturating_sub(started) < round_trip.saturating_add(WITHOUT_WORK_NS)
            })
}

/// Exchanges that were answered, at least.
pub(super) fn answered_exchanges(connection: &Connection) -> u32 {
    if connection.calls_unseen {
        return 0;
    }
    // Of the last one, which may be two in one, it is not known whether it was.
    let last = !connection.filled_in
        && connection.first_byte_ns.is_some()
        && connection.response_bytes >= no_answer_below(connection);
    connection.exchanges.saturating_sub(u32::from(!last))
}

/// A silence on the connection, kept alive, that the backend let pass: the last exchange
/// was answered after it, or nginx closed.
pub(super) fn survived_silence_ns(connection: &Connection) -> Option<u64> {
    let before = silence_before_ns(connection)
        .filter(|_| !is_remembered(connection))
        .filter(|_| answered_exchanges(connection) == connection.exchanges);
    let at_the_end = (ending(connection) == Ending::NginxIdle).then(|| {
        let closed = connection.closed_ns.unwrap_or(connection.ended_ns);
        closed.saturating_sub(last_activity_ns(connection).unwrap_or(closed))
    });
    before.max(at_the_end)
}

/// Did the backend close soon after a whole response, so that the number of exchanges
/// may be its limit? A response that ends with the connection ends in a read of the end
/// instead; so does one whose last bytes came together with the FIN, and whether that one
/// was whole only a line can tell (see `Figures::failed`).
pub(super) fn closed_after_exchanges(connection: &Connection) -> Option<u32> {
    let whole = connection.idle_end.is_some()
        || ended_before_request(connection)
        || connection.unread_at_end.is_some()
        || (connection.eof_read_ns.is_none() && connection.failed_call_ns.is_none());
    let soon = match ending(connection) {
        // nginx read the answer after the end: when it had come is not known.
        Ending::BackendAfterResponse if connection.last_received_ns > peer_end_ns(connection) => {
            in_flight_at_end_ns(connection).is_some_and(|ns| ns < SOON_NS)
        }
        Ending::BackendAfterResponse => true,
        Ending::BackendIdle => idle_age_ns(connection).is_some_and(|age| age < SOON_NS),
        _ => false,
    };
    (whole && soon && !connection.awaiting_at_end && !is_uncounted(connection))
        .then_some(connection.exchanges_at_end)
}
