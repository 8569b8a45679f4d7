//! Acts: what the lab's backends and drivers did, and what a report has to say of it.
//! They come from the lab's own records, never from the tool.

mod words;

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::idle::Silence;

/// One thing that happened to one attempt or one connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Act {
    /// The backend's address as nginx names it; the upstream block's name where no
    /// peer was left.
    pub upstream: String,
    /// nginx's end of the connection, where there was one and the backend knows it.
    pub nginx_end: Option<SocketAddr>,
    /// Target of the request that arrived on it and met the act. None for what happened
    /// to a connection without a request: whichever request meets that has the line.
    pub target: Option<String>,
    /// When, CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// What was done, in words.
    pub what: String,
    /// What a line about it deserves. None: it is no fault, and a line about it is a
    /// false incident.
    pub expected: Option<Expected>,
}

/// The verdicts that are right. The lists are never empty; the first stands for the act
/// in tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Who.
    #[serde(deserialize_with = "words::read")]
    pub sides: Vec<&'static str>,
    /// How.
    #[serde(deserialize_with = "words::read")]
    pub means: Vec<&'static str>,
    /// Why.
    #[serde(deserialize_with = "words::read")]
    pub causes: Vec<&'static str>,
    /// What decides it was there to be seen: only then does `unexplained` count
    /// against the tool.
    pub evident: bool,
    /// The silence before it, where that is on record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Silence>,
}

impl Expected {
    /// One right verdict, with its evidence.
    #[must_use]
    pub fn new(side: &'static str, means: &'static str, cause: &'static str) -> Self {
        Self {
            sides: vec![side],
            means: vec![means],
            causes: vec![cause],
            evident: true,
            idle: None,
        }
    }

    /// Another cause is right too.
    #[must_use]
    pub fn or_cause(mut self, cause: &'static str) -> Self {
        self.causes.push(cause);
        self
    }

    /// Other means are right too.
    #[must_use]
    pub fn or_means(mut self, means: &'static str) -> Self {
        self.means.push(means);
        self
    }

    /// Another side is right too.
    #[must_use]
    pub fn or_side(mut self, side: &'static str) -> Self {
        self.sides.push(side);
        self
    }

    /// The silence before it.
    #[must_use]
    pub fn after(mut self, idle: Silence) -> Self {
        self.idle = Some(idle);
        self
    }

    /// What would decide it cannot be seen: `unexplained` is a good answer.
    #[must_use]
    pub fn without_evidence(mut self) -> Self {
        self.evident = false;
        self
    }

    /// Words of it that no report knows.
    #[must_use]
    pub fn unknown_words(&self) -> Vec<&'static str> {
        let words = self.sides.iter().chain(&self.means).chain(&self.causes);
        words
            .filter(|said| words::word(said).is_none())
            .copied()
            .collect()
    }

    /// The cause that stands for it.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        self.causes.first().copied().unwrap_or("-")
    }
}

/// A constant that a backend was configured with, to be inferred by the tool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Constant {
    /// The backend's address.
    pub upstream: String,
    /// Which, and its true value.
    pub value: Value,
}

/// A constant's value.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// Silence after which connections are closed, milliseconds.
    IdleTimeoutMs(f64),
    /// The same, and what the backend itself recorded: between the ends of its last
    /// answers and its closes, milliseconds. On a busy host a timer goes off late.
    KeptMs {
        /// Configured.
        timeout: f64,
        /// The shortest.
        least: f64,
        /// The longest.
        most: f64,
    },
    /// Requests after which a connection is closed.
    RequestLimit(u32),
    /// Time after which the backend gives up a request, milliseconds.
    WorkTimeoutMs(f64),
    /// The same where a supervisor ends the process, which it looks for about once a
    /// second.
    SupervisedTimeoutMs(f64),
    /// Bytes of body.
    SizeThreshold {
        /// Of the greatest request that was answered.
        answered: u64,
        /// Of the smallest that was not taken.
        failed: u64,
    },
    /// Bytes of body of every request that failed, sent whole: what each incident's
    /// connection has to say, nginx's request line and headers aside.
    FailedBodyBytes(u64),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IdleTimeoutMs(ms) | Self::KeptMs { timeout: ms, .. } => {
                write!(f, "idle timeout {ms:.1} ms")
            }
            Self::RequestLimit(requests) => write!(f, "request limit {requests}"),
            Self::WorkTimeoutMs(ms) => write!(f, "work timeout {ms:.1} ms"),
            Self::SupervisedTimeoutMs(ms) => write!(f, "supervised work timeout {ms:.1} ms"),
            Self::FailedBodyBytes(bytes) => write!(f, "failed requests' bodies {bytes} bytes"),
            Self::SizeThreshold { answered, failed } => {
                write!(f, "size threshold above {answered}, up to {failed} bytes")
            }
        }
    }
}
