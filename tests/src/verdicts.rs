//! A report as far as tests look at it, and its comparison with the truth.

mod comparison;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde::Deserialize;

pub use self::comparison::{Comparison, Row, compare, compare_beside};

/// The parts of `report --format json` that tests look at.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// `whoclosed.report/1`.
    pub schema: String,
    /// Where and when.
    pub capture: Captured,
    /// Counts.
    pub summary: Summary,
    /// One for each upstream error line.
    pub incidents: Vec<Incident>,
    /// One for each backend.
    pub upstreams: Vec<Upstream>,
    /// What limits it.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Where and when.
#[derive(Clone, Debug, Deserialize)]
pub struct Captured {
    /// What was lost, by kind.
    pub lost: BTreeMap<String, u64>,
    /// The trace has its end.
    #[serde(default)]
    pub complete: bool,
    /// The kernel's hooks.
    #[serde(default)]
    pub hooks: Vec<Hook>,
}

/// A hook and what became of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Hook {
    /// Tracepoint or function.
    pub name: String,
    /// It, or another in its place, was attached.
    pub attached: bool,
    /// What was attached in its place.
    #[serde(default)]
    pub by: Option<String>,
    /// Why not it.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Counts.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    /// Upstream error lines.
    pub lines: u64,
    /// Lines by strength of their match.
    pub matched: BTreeMap<String, u64>,
    /// Lines about upstreams that nginx did not write.
    #[serde(default)]
    pub foreign_lines: u64,
}

/// One line and its verdict.
#[derive(Clone, Debug, Deserialize)]
pub struct Incident {
    /// Number from 1.
    pub id: u64,
    /// The line.
    pub line: Line,
    /// Backend address.
    pub upstream: String,
    /// Who.
    pub side: String,
    /// How.
    pub means: String,
    /// When in the connection's life.
    pub phase: String,
    /// Why.
    pub cause: String,
    /// How sure that is.
    pub confidence: String,
    /// Strength of the match.
    #[serde(rename = "match")]
    pub matched: String,
    /// nginx tried again.
    pub retried: Option<bool>,
    /// The client got an answer.
    pub served: Option<bool>,
    /// The same for all incidents of one client request.
    pub request_group: u64,
    /// Master of the nginx that logged it, where there are several.
    #[serde(default)]
    pub instance: Option<u32>,
    /// Sentences.
    pub evidence: Vec<String>,
    /// The connection.
    pub connection: Option<Connection>,
}

/// Parts of the line.
#[derive(Clone, Debug, Deserialize)]
pub struct Line {
    /// The message.
    pub message: String,
    /// The request line.
    pub request: Option<String>,
    /// The upstream as nginx wrote it.
    #[serde(default)]
    pub upstream: Option<String>,
    /// The log that it stands in.
    pub file: String,
    /// Byte in that file.
    pub offset: u64,
    /// Number of the client connection.
    pub connection: Option<u64>,
}

/// The connection.
#[derive(Clone, Debug, Deserialize)]
pub struct Connection {
    /// nginx's end.
    pub local: SocketAddr,
    /// The backend's end.
    pub remote: SocketAddr,
    /// The worker on this host.
    pub worker_pid: u32,
    /// Requests on it.
    pub requests: Option<u32>,
    /// It had served one before.
    pub reused: Option<bool>,
    /// So many at least, where the number is not known.
    #[serde(default)]
    pub requests_at_least: Option<u32>,
    /// Silence before the last request, or before the end if none was in flight.
    pub idle_ms: Option<f64>,
    /// Sent of the last request, head and body; none if it is not known.
    pub request_bytes: Option<u64>,
    /// Open before the capture began.
    #[serde(default)]
    pub first_seen_mid_life: bool,
    /// nginx's sends and receives were not seen.
    #[serde(default)]
    pub calls_unseen: bool,
    /// Some of them, near its end.
    #[serde(default)]
    pub filled_in: bool,
    /// From connect() to the end.
    #[serde(default)]
    pub age_ms: f64,
}

/// One backend.
#[derive(Clone, Debug, Deserialize)]
pub struct Upstream {
    /// Its address.
    pub address: String,
    /// connect() calls.
    pub connections: u64,
    /// Requests sent, where they are known.
    pub requests: Option<u64>,
    /// Its idle timeout.
    pub idle_timeout: Option<Inferred>,
    /// How many requests it allows on a connection.
    pub request_limit: Option<Limit>,
    /// How long it works on a request before it gives up.
    #[serde(default)]
    pub work_timeout: Option<Inferred>,
    /// How large a request it takes.
    #[serde(default)]
    pub size_threshold: Option<Size>,
}

/// An inferred size: of head and body.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Size {
    /// Sent of the smallest request that failed, until it did.
    pub bytes: u64,
    /// The greatest that was answered, within 25 %.
    pub answered_bytes: u64,
}

/// An inferred number.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Limit {
    /// Requests on a connection.
    pub requests: u32,
    /// Closes that it rests on.
    pub samples: u64,
}

/// An inferred time.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Inferred {
    /// Milliseconds.
    pub ms: f64,
    /// Closes that it rests on.
    pub samples: u64,
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// If it is not JSON of this shape.
    pub fn parse(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).with_context(|| {
            let text = String::from_utf8_lossy(json);
            format!(
                "not a report: {}",
                text.chars().take(200).collect::<String>()
            )
        })
    }

    /// The backend's part.
    #[must_use]
    pub fn upstream(&self, address: SocketAddr) -> Option<&Upstream> {
        let address = address.to_string();
        self.upstreams
            .iter()
            .find(|upstream| upstream.address == address)
    }
}

impl Incident {
    /// Target in the line's request.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.line.request.as_deref()?.split(' ').nth(1)
    }
}
