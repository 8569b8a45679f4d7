//! Whether a connection was already over when the request went out on it.

use super::case::{Case, ms};
use super::end::{
    ended_before_request, ended_by_reset, in_flight_at_end_ns, peer_end_ns, silence_before_ns,
    unacked_at_end,
};
use super::spoken::Counted;

/// An RST that comes this soon after the request is the backend's kernel speaking, not
/// a program that worked on the request.
const QUICKLY_NS: u64 = 50_000_000;
/// An idle age this close to the backend's idle timeout speaks for it; timers are coarse
/// by some time at least.
pub(super) const NEAR: f64 = 0.05;
const NEAR_MS: f64 = 50.0;
/// No program takes a request, works on it and gives up sooner.
const AT_ONCE_NS: u64 = 5_000_000;
/// Silence that no handshake knows, unless nginx's worker was kept from working.
const AFTER_HANDSHAKE_NS: u64 = 100_000_000;
/// A silence this long, a stream over HTTP/2 hardly knows between two of its frames.
const BETWEEN_FRAMES_NS: u64 = 1_000_000_000;

/// How a connection was already over when the request went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stale {
    /// The FIN or RST had arrived before the request was sent.
    Idle,
    /// The FIN acknowledges nothing of the request: both crossed on the wire, or the
    /// request was just being written when it came.
    Crossed,
    /// The backend's process closed without having read any of the request.
    LeftUnread,
    /// An RST came at once and instead of an acknowledgement.
    AnsweredByReset,
}

impl Case<'_> {
    /// The backend ended the connection before the request that failed on it, or at
    /// least without having received any of it.
    pub(super) fn was_stale(&self) -> Option<Stale> {
        let connection = self.connection()?;
        connection.established_ns?;
        peer_end_ns(connection)?;
        if !self.reused().unwrap_or_else(|| self.reused_by_silence()) {
            return None;
        }
        if self.sent_nothing() {
            return Some(Stale::Idle);
        }
        if self.answered() != Some(false) {
            return None;
        }
        if ended_before_request(connection) {
            return Some(Stale::Idle);
        }
        let unacked = u64::from(unacked_at_end(connection)?);
        if unacked == 0 || unacked < connection.request_bytes {
            return self.left_unread().then_some(Stale::LeftUnread);
        }
        if !ended_by_reset(connection) {
            return Some(Stale::Crossed);
        }
        // An RST instead of an acknowledgement: the backend's kernel had no such
        // connection any more when the request came. A process that closes with bytes
        // unread had one.
        let closed_after_it = self
            .peer_close
            .zip(connection.request_started_ns)
            .is_some_and(|(close, started)| close.ns > started);
        if closed_after_it || self.peer_unread().is_some_and(|unread| unread > 0) {
            return self.left_unread().then_some(Stale::LeftUnread);
        }
        (connection.exchange_retransmits == 0 && in_flight_at_end_ns(connection)? < QUICKLY_NS)
            .then_some(Stale::AnsweredByReset)
    }

    /// Did the backend's process close without having read any of the request, and that
    /// at once or when its idle timeout was over? Its kernel had acknowledged the request,
    /// but the process had made up its mind before it looked.
    fn left_unread(&self) -> bool {
        let Some(connection) = self.connection() else {
            return false;
        };
        let Some(close) = self.peer_close else {
            // Of a backend elsewhere its timer tells.
            return self.idled_out()
                && in_flight_at_end_ns(connection).is_some_and(|ns| ns < AT_ONCE_NS);
        };
        let unread = u64::from(close.unread_bytes);
        let none_read = if self.line.tls || connection.first_seen_mid_life {
            unread >= connection.request_bytes
        } else {
            let before = connection
                .sent_bytes
                .saturating_sub(connection.request_bytes);
            close.received_bytes.saturating_sub(unread) <= before
        };
        let at_once = in_flight_at_end_ns(connection).is_some_and(|ns| ns < QUICKLY_NS);
        unread > 0 && none_read && (at_once || self.idled_out())
    }

    /// Had the connection been silent for about the backend's idle timeout?
    pub(super) fn idled_out(&self) -> bool {
        self.idle_ns().is_some_and(|idle| self.is_timeouts(idle))
    }

    /// Is this about the backend's idle timeout?
    pub(super) fn is_timeouts(&self, ns: u64) -> bool {
        self.constants.idle_timeout.is_some_and(|timeout| {
            let near = (timeout.ms * NEAR).max(timeout.spread_ms).max(NEAR_MS);
            (ms(ns) - timeout.ms).abs() <= near
        })
    }

    /// A new TLS connection gets its request right after the handshake: one that had
    /// been silent for long had been kept alive, most likely.
    pub(super) fn reused_by_silence(&self) -> bool {
        let long = match self.counted() {
            Counted::Requests => return false,
            Counted::TlsFlights => AFTER_HANDSHAKE_NS,
            Counted::Http2 => BETWEEN_FRAMES_NS,
        };
        let silence = if self.sent_nothing() {
            // Silent until the end came: how late nginx found it says nothing.
            self.idle_age_ns()
        } else {
            self.connection()
                .and_then(|connection| silence_before_ns(connection))
        };
        silence.is_some_and(|idle| idle >= long)
    }
}
