//! What a backend remembers of a connection. All times are CLOCK_MONOTONIC.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::behaviour::{Behaviour, Means};
use crate::tls_backend::Session;

/// One accepted connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connection {
    /// The backend's end.
    pub local: SocketAddr,
    /// nginx's end.
    pub remote: SocketAddr,
    /// When accept() returned it.
    pub accepted_ns: u64,
    /// Its requests, in order.
    pub requests: Vec<Request>,
    /// How it ended; none while it is open.
    pub end: Option<End>,
    /// Its TLS, where the backend speaks that.
    pub tls: Option<Session>,
}

impl Connection {
    /// Not ended yet.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.end.is_none()
    }

    /// Requests that were answered in full.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.requests
            .iter()
            .filter(|request| request.answered_ns().is_some())
            .count()
    }

    /// When its last byte of response was handed to the kernel.
    #[must_use]
    pub fn last_answered_ns(&self) -> Option<u64> {
        self.requests.iter().rev().find_map(Request::answered_ns)
    }

    /// Whether the backend itself ended it, for this reason.
    #[must_use]
    pub fn closed_because(&self, why: Why) -> bool {
        self.end
            .is_some_and(|end| matches!(end.how, Ended::Closed(_)) && end.why == why)
    }
}

/// One request as the backend read it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// When its first byte was there.
    pub arrived_ns: u64,
    /// When its head was read.
    pub read_ns: u64,
    /// `GET`, `POST`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Bytes of its body that were read.
    pub body_bytes: usize,
    /// What the backend was about to do with it.
    pub behaviour: Behaviour,
    /// Its answer, if one was begun.
    pub answer: Option<Answer>,
}

impl Request {
    /// When the whole answer had been handed to the kernel.
    #[must_use]
    pub fn answered_ns(&self) -> Option<u64> {
        self.answer.and_then(|answer| answer.finished_ns)
    }
}

/// An answer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Just before its first byte was written.
    pub began_ns: u64,
    /// After its last byte was written; none if it was cut short, by either side.
    pub finished_ns: Option<u64>,
}

/// The end of a connection, recorded before the act if it is the backend's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When.
    pub at_ns: u64,
    /// How.
    pub how: Ended,
    /// Why.
    pub why: Why,
}

/// Who ended it and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// The backend closed it.
    Closed(Means),
    /// A FIN from nginx was read.
    PeerClosed,
    /// An RST from nginx was read.
    PeerReset,
}

/// Why it was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// Silent for the backend's idle time.
    Idle,
    /// It had served its number of requests.
    RequestLimit,
    /// The request said `Connection: close`.
    Asked,
    /// Told to, before any byte of response.
    BeforeAnswer,
    /// Told to, in the response's header.
    InHeader,
    /// Told to, in the response's body.
    InBody,
    /// Told to, after an answer that promised to keep it.
    AfterAnswer,
    /// Told to leave the request's body unread.
    BodyUnread,
    /// The answer had said so: `Connection: close`, or a body that ends with it.
    Announced,
    /// After protocols had been switched.
    Upgraded,
    /// The lab ended.
    Stopped,
    /// nginx went, with no request in hand.
    PeerWhileIdle,
    /// nginx went while the backend worked on a request or answered it.
    PeerInFlight,
    /// What came was no request; a 400 went first.
    NotHttp,
    /// Told to, in the handshake of TLS.
    InHandshake,
    /// The handshake of TLS could not be; an alert went first.
    HandshakeFailed,
    /// nginx went in the handshake of TLS.
    PeerInHandshake,
    /// This worker process had answered its number of requests.
    Recycled,
    /// Told to end the whole process: the kernel closes this and every other connection.
    ProcessEnded,
}
