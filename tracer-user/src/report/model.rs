//! The report as data: the shape that `report --format json` prints and keeps
//! (schema `whoclosed.report/1`; fields may be added, none changes its meaning).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::trace::record::Hook;

/// Value of [`Report::schema`].
pub const SCHEMA: &str = "whoclosed.report/1";

/// A whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Where and when.
    pub capture: CaptureSummary,
    /// Counts over all incidents.
    pub summary: Summary,
    /// One per upstream error line, in the order of time.
    pub incidents: Vec<Incident>,
    /// One per backend address.
    pub upstreams: Vec<UpstreamSummary>,
    /// What to change, most incidents first.
    pub advice: Vec<Advice>,
    /// Traces of backends' hosts that were read beside nginx's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<Joined>,
    /// What limits this report: losses, hooks that were missing, a cut-off trace.
    pub notes: Vec<String>,
}

/// Where and when the capture ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CaptureSummary {
    /// Host name.
    pub host: String,
    /// Kernel release.
    pub kernel: String,
    /// nginx versions, one per instance.
    pub nginx: Vec<String>,
    /// Start, RFC 3339 with nanoseconds, UTC.
    pub start: String,
    /// End, or the last thing recorded if the trace was cut off.
    pub end: String,
    /// Seconds between both.
    pub duration_s: f64,
    /// What was lost, by kind; empty if nothing.
    pub lost: BTreeMap<String, u64>,
    /// The trace has its end record.
    pub complete: bool,
    /// Each hook and what became of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
}

/// A trace made on a backend's host, and how it was joined with nginx's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    /// Its file.
    pub trace: String,
    /// The backend's host.
    pub host: String,
    /// Ports whose connections it has.
    pub ports: Vec<u16>,
    /// Connections in it, whoever opened them.
    pub accepted: u64,
    /// Those that are nginx's, and joined.
    pub connections: u64,
    /// Connections of nginx's that could be several of its, and were left out.
    pub ambiguous: u64,
    /// Both captures ran on one host, with one clock.
    pub one_clock: bool,
    /// How far the host's clock is ahead of that of nginx's host; null if nothing was
    /// joined.
    pub clock_offset_ms: Option<f64>,
    /// By how much that may be wrong.
    pub clock_error_ms: Option<f64>,
    /// Median of what each connection's handshake says of it.
    pub clock_median_ms: Option<f64>,
    /// How far the middle half of these lies apart.
    pub clock_spread_ms: Option<f64>,
    /// How far it wandered during the capture.
    pub clock_drift_ms: Option<f64>,
    /// Connections that it was estimated from.
    pub clock_samples: u64,
}

/// Counts over all incidents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Upstream error lines, each an incident.
    pub lines: u64,
    /// Upstream lines that report no failed attempt (bookkeeping, warnings).
    pub other_lines: u64,
    /// Lines about upstreams that nginx did not write: forged, or another program's.
    #[serde(default)]
    pub foreign_lines: u64,
    /// Error lines that nginx was seen writing, found in no log that was followed.
    #[serde(default)]
    pub elsewhere_lines: u64,
    /// Lines of the logs that could not be read as nginx's.
    #[serde(default)]
    pub unread_lines: u64,
    /// Logs of whose lines none could be read as nginx's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub illegible_logs: Vec<String>,
    /// Lines by strength of their match.
    pub matched: MatchCounts,
    /// Incidents by side.
    pub by_side: BTreeMap<Side, u64>,
    /// Incidents by cause.
    pub by_cause: BTreeMap<Cause, u64>,
    /// Client requests that met at least one incident.
    pub requests: u64,
    /// Of these, how many the client got an answer to all the same.
    pub requests_served: u64,
    /// Of these, how many failed for the client.
    pub requests_failed: u64,
}

/// Lines by strength of their match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchCounts {
    /// The line was seen being written and its socket identified.
    pub exact: u64,
    /// Aligned in order.
    pub ordered: u64,
    /// One of several candidates.
    pub window: u64,
    /// No socket.
    pub none: u64,
}

macro_rules! vocabulary {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_meta])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word that stands for it in reports.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

vocabulary! {
    /// Who ended the attempt.
    pub enum Side {
        /// The backend's host or process.
        Backend = "backend",
        /// nginx itself.
        Nginx = "nginx",
        /// nginx's client.
        Client = "client",
        /// Something between the two hosts.
        Network = "network",
        /// Not established.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// By what means.
    pub enum Means {
        /// A FIN arrived.
        Fin = "fin",
        /// An RST arrived.
        Rst = "rst",
        /// nginx closed the socket.
        Close = "close",
        /// The connect was refused.
        Refused = "refused",
        /// A timer ran out.
        Timeout = "timeout",
        /// No route, host or network unreachable.
        Unreachable = "unreachable",
        /// No socket was involved.
        None = "none",
    }
}

vocabulary! {
    /// Where in the attempt.
    pub enum Phase {
        /// Before the TCP handshake was done.
        Connect = "connect",
        /// In the TLS handshake.
        Tls = "tls",
        /// While the request was being sent.
        Send = "send",
        /// The request was sent, no response byte had come.
        Wait = "wait",
        /// Part of the response header had come.
        Header = "header",
        /// In the response body.
        Body = "body",
        /// No request was in flight when the end came.
        Idle = "idle",
        /// On an upgraded connection.
        Upgraded = "upgraded",
    }
}

vocabulary! {
    /// How sure the verdict is.
    pub enum Confidence {
        /// Every fact that the cause requires was seen.
        Certain = "certain",
        /// The facts fit; one of them is inferred.
        Likely = "likely",
        /// The facts allow it.
        Possible = "possible",
    }
}

vocabulary! {
    /// How strongly the line is tied to its connection.
    pub enum Match {
        /// The line was seen being written and its socket identified.
        Exact = "exact",
        /// Aligned in order.
        Ordered = "ordered",
        /// One of several candidates.
        Window = "window",
        /// No socket: none by nature, or no evidence of it.
        None = "none",
    }
}

vocabulary! {
    /// Why the attempt failed.
    pub enum Cause {
        /// A kept-alive connection that the backend had closed, or was closing.
        StaleKeepalive = "stale-keepalive",
        /// The backend closes after a constant number of requests.
        RequestLimit = "request-limit",
        /// A signal ended the backend's process.
        BackendKilled = "backend-killed",
        /// The kernel ended it for want of memory.
        BackendOom = "backend-oom",
        /// It crashed.
        BackendCrashed = "backend-crashed",
        /// It exited.
        BackendExited = "backend-exited",
        /// The backend stopped and began again.
        BackendRestart = "backend-restart",
        /// One of its workers exited, others served on.
        WorkerRecycled = "worker-recycled",
        /// Its own limit on a request's time.
        WorkerTimeout = "worker-timeout",
        /// The backend gave up on a request above a size.
        RequestTooLarge = "request-too-large",
        /// The backend closed in the middle of its response.
        ResponseAborted = "response-aborted",
        /// Plain bytes to a port that speaks TLS, or the reverse.
        ProtocolMismatch = "protocol-mismatch",
        /// The TLS handshake failed.
        TlsFailure = "tls-failure",
        /// The backend closed without answering.
        ClosedWithoutAnswer = "closed-without-answer",
        /// Nobody listened.
        ConnectRefused = "connect-refused",
        /// No answer to the connect.
        ConnectTimeout = "connect-timeout",
        /// No way to the backend.
        Unreachable = "unreachable",
        /// The backend did not take its connections in time.
        BacklogFull = "backlog-full",
        /// nginx's read timer.
        ReadTimeout = "read-timeout",
        /// nginx's send timer.
        SendTimeout = "send-timeout",
        /// nginx refused the response.
        ResponseRejected = "response-rejected",
        /// The client left first.
        ClientAbort = "client-abort",
        /// nginx's worker ended.
        NginxShutdown = "nginx-shutdown",
        /// Every peer was disabled.
        NoLiveUpstreams = "no-live-upstreams",
        /// nginx's host had nothing left to connect with.
        NginxResources = "nginx-resources",
        /// A reset that the backend did not send.
        PathReset = "path-reset",
        /// The path to the backend went silent.
        PathTimeout = "path-timeout",
        /// Not established.
        Unexplained = "unexplained",
    }
}

/// One upstream error line and its verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Number from 1, in the order of time; `show` takes it.
    pub id: u64,
    /// When, RFC 3339 with nanoseconds, UTC. Exact if the line was seen being
    /// written, else the line's own second.
    pub time: String,
    /// The line, taken apart.
    pub line: LineSummary,
    /// Backend address, e.g. `127.0.0.1:9101`, `[::1]:9101`; the upstream's name
    /// where there was no peer.
    pub upstream: String,
    /// Who.
    pub side: Side,
    /// How.
    pub means: Means,
    /// Where in the attempt.
    pub phase: Phase,
    /// Why.
    pub cause: Cause,
    /// How sure.
    pub confidence: Confidence,
    /// How the line was tied to the connection.
    #[serde(rename = "match")]
    pub matched: Match,
    /// Connections that it may be, if the line was not seen being written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidates: Option<u32>,
    /// nginx tried again; null if not established.
    pub retried: Option<bool>,
    /// The client got an answer from a backend; null if not established.
    pub served: Option<bool>,
    /// Attempts of the same client request share this number: the id of its first incident.
    pub request_group: u64,
    /// Master's pid of the nginx instance that logged it, where the capture saw several.
    #[serde(default)]
    pub instance: Option<u32>,
    /// The connection, if one was found.
    pub connection: Option<ConnectionSummary>,
    /// What the verdict rests on, a sentence each.
    pub evidence: Vec<String>,
    /// What to change, if this cause has a remedy.
    pub advice: Option<String>,
}

/// The line's parts. Text from clients and backends is untrusted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LineSummary {
    /// Path of the log.
    pub file: String,
    /// Offset of the line.
    pub offset: u64,
    /// `error`, `crit`, ...
    pub level: String,
    /// Worker's pid as the line gives it.
    pub pid: u32,
    /// Client connection number.
    pub connection: Option<u64>,
    /// The message without context.
    pub message: String,
    /// errno in it.
    pub errno: Option<u32>,
    /// `while ...`
    pub action: Option<String>,
    /// Client address.
    pub client: Option<String>,
    /// Server name.
    pub server: Option<String>,
    /// Request line.
    pub request: Option<String>,
    /// The `upstream:` value.
    pub upstream: Option<String>,
    /// Host header.
    pub host: Option<String>,
}

/// What the kernel saw of the connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionSummary {
    /// Socket cookie.
    pub cookie: u64,
    /// nginx's end.
    pub local: String,
    /// The backend's end.
    pub remote: String,
    /// Worker on the host.
    pub worker_pid: u32,
    /// From connect() to the end as nginx saw it; if the connection is older than the
    /// capture, from the capture's beginning.
    pub age_ms: f64,
    /// Requests sent on it, the failed one included; null if not known (TLS, mid-life).
    pub requests: Option<u32>,
    /// If the connection is older than the capture, or not all of nginx's calls on it were
    /// seen: so many at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_at_least: Option<u32>,
    /// It had served a request before; null if not known.
    pub reused: Option<bool>,
    /// Silence before the last request if one was in flight, else before the close.
    pub idle_ms: Option<f64>,
    /// First byte of the last request to the end as nginx saw it; null if none was sent.
    pub in_flight_ms: Option<f64>,
    /// Bytes of the last request; null if not known (nginx's calls were not seen).
    pub request_bytes: Option<u64>,
    /// Bytes of the last response; null if not known.
    pub response_bytes: Option<u64>,
    /// A FIN came from the backend's side.
    pub fin_received: bool,
    /// An RST came from the backend's side.
    pub rst_received: bool,
    /// This host sent an RST.
    pub rst_sent: bool,
    /// nginx closed before any FIN or RST came.
    pub closed_by_nginx: bool,
    /// Open before the capture began.
    pub first_seen_mid_life: bool,
    /// nginx's sends and receives were not seen: times of them are right to a few
    /// milliseconds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub calls_unseen: bool,
    /// Gaps in what was seen of nginx's sends and receives on it: the number of requests is
    /// not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed_calls: u32,
    /// Such a gap lies near its end: times of sends and receives are right to a few
    /// milliseconds there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub filled_in: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Connections of one upstream by how they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closes {
    /// By the backend while no request was in flight.
    pub backend_idle: u64,
    /// By the backend with a request in flight.
    pub backend_in_flight: u64,
    /// By the backend at the end of a response: `Connection: close`, a limit on requests,
    /// a response that ends with the connection.
    pub backend_after_response: u64,
    /// By nginx while idle (its timeout, its limits, its pool's eviction).
    pub nginx_idle: u64,
    /// By nginx right after a response (not kept alive).
    pub nginx_after_response: u64,
    /// By nginx with a request in flight (its timers, its clients).
    pub nginx_in_flight: u64,
    /// Refused.
    pub refused: u64,
    /// Never established for another reason.
    pub not_connected: u64,
}

/// A constant of the backend, inferred from its closes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct InferredTimeout {
    /// The mode.
    pub ms: f64,
    /// Width of the band that holds the mode's samples.
    pub spread_ms: f64,
    /// Closes that it rests on.
    pub samples: u64,
}

/// A limit on requests per connection, inferred from closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InferredLimit {
    /// Requests after which the backend closes.
    pub requests: u32,
    /// Closes that it rests on.
    pub samples: u64,
}

/// A limit on a request's size, inferred from requests that failed while all smaller
/// ones were answered. It lies above `answered_bytes`, and not above the whole size of
/// the request of which `bytes` were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InferredSize {
    /// The smallest request that failed: bytes sent of it, head and body, until it did.
    pub bytes: u64,
    /// The largest request that was answered, within 25 %.
    pub answered_bytes: u64,
    /// Requests that failed so.
    pub samples: u64,
}

/// Percentiles in milliseconds, each the middle of its bucket: within 12.5 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 95th.
    pub p95: f64,
    /// 99th.
    pub p99: f64,
}

/// One backend address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpstreamSummary {
    /// `127.0.0.1:9101`, `[::1]:9101`.
    pub address: String,
    /// Name of the upstream block that lists it, where known.
    pub name: Option<String>,
    /// connect() calls.
    pub connections: u64,
    /// Requests sent; null where they cannot be told from TLS handshakes or from what
    /// HTTP/2 sends between requests.
    pub requests: Option<u64>,
    /// Share of requests that went over a connection used before; null without requests,
    /// or where these are not known.
    pub reused_ratio: Option<f64>,
    /// Incidents.
    pub incidents: u64,
    /// How its connections ended.
    pub closes: Closes,
    /// The backend's idle timeout.
    pub idle_timeout: Option<InferredTimeout>,
    /// The backend's limit on requests per connection.
    pub request_limit: Option<InferredLimit>,
    /// The backend's limit on a request's time.
    pub work_timeout: Option<InferredTimeout>,
    /// The backend's limit on a request's size.
    pub size_threshold: Option<InferredSize>,
    /// connect() to established.
    pub connect_ms: Option<Percentiles>,
    /// Request's first byte to response's first byte; null where requests are not known.
    pub first_byte_ms: Option<Percentiles>,
}

/// What to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// Backend address or upstream name.
    pub upstream: String,
    /// What to do.
    pub text: String,
    /// On what observation.
    pub because: String,
    /// Incidents that it would have prevented or explained.
    pub incidents: u64,
}
