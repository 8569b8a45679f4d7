//! The records of a trace: what a capture writes and the judge reads, one JSON
//! object a line. `docs/trace-format.md` says the same for readers of other
//! languages.
//!
//! Times are nanoseconds of CLOCK_MONOTONIC unless a name says otherwise; an
//! [`Option`] is absent where the event never happened. Fields may be added;
//! readers skip those they do not know.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use super::backend_record::{
    Accepted, AcceptedEnd, BackendExit, BackendProcess, Exit, Listener, PeerClose,
};
pub use super::connection_record::{
    Call, Connection, ConnectionEnd, Continuation, IdleEnd, Logged, Next,
};
pub use super::nginx_record::{
    Clients, Configuration, ErrorLog, Instance, Line, Nginx, Process, ProxyLocation, TimeZone,
    UpstreamBlock, Worker,
};

/// Name of the format in the first record.
pub const FORMAT: &str = "whoclosed.trace";
/// Newest version of the format that this program writes and reads.
pub const VERSION: u32 = 1;

/// One line of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Record {
    /// The first record: what this file is.
    Trace(Header),
    /// Host, nginx instances, hooks.
    Capture(Box<Capture>),
    /// One reading of both clocks.
    Anchor(Anchor),
    /// An upstream connection, at its end or as it stood at the capture's end.
    Connection(Box<Connection>),
    /// The uprobe's sighting of a log line.
    Logged(Logged),
    /// What a worker did after a failed attempt.
    Continuation(Continuation),
    /// A log line.
    Line(Line),
    /// A worker's start or end.
    Process(Process),
    /// An nginx instance that appeared during the capture, or whose configuration was
    /// loaded anew.
    Instance(Box<Instance>),
    /// The backend's side of an upstream connection, if a process on this host held it.
    PeerClose(Box<PeerClose>),
    /// A process that had held a backend's side of connections ended.
    BackendExit(BackendExit),
    /// A process that holds a backend's side of connections.
    BackendProcess(BackendProcess),
    /// A connection accepted at a port that a capture on a backend's host was asked for.
    Accepted(Box<Accepted>),
    /// A backend on this host did not take its connections from the queue in time.
    Listener(Listener),
    /// One upstream's counters over the time since its last such record.
    Upstream(Upstream),
    /// Something was lost.
    Loss(Loss),
    /// The capture's end.
    End(End),
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// First record of every trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Program and version that wrote it.
    pub writer: String,
}

/// Whose side of connections a capture watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// nginx's.
    #[default]
    Nginx,
    /// The accepting side, on a backend's host.
    Backend,
}

impl Role {
    fn is_nginx(&self) -> bool {
        *self == Self::Nginx
    }
}

/// Where and how the capture ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Capture {
    /// Whose side it watched.
    #[serde(default, skip_serializing_if = "Role::is_nginx")]
    pub role: Role,
    /// The kernel's name for its time since it was started: the same in two traces means
    /// one clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Ports whose accepted connections are recorded, in the role of a backend.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Backends' sides on this host were left alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_local_backends: bool,
    /// Host name.
    pub host: String,
    /// Kernel release and machine.
    pub kernel: String,
    /// When the programs were attached.
    pub start_ns: u64,
    /// How long the capture was asked to run.
    pub duration_ns: u64,
    /// nginx instances found.
    pub nginx: Vec<Nginx>,
    /// Each hook and what became of it.
    pub hooks: Vec<Hook>,
    /// The programs notice which sends and receives of nginx none of them saw, and say so of
    /// each connection (`missed_calls`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gaps_noticed: bool,
}

/// A program and its attach point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Tracepoint or function.
    pub name: String,
    /// Was it attached, or another in its place?
    pub attached: bool,
    /// What was attached in its place, where this kernel has not the hook itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why not, in one line; with `by`, why not itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// So ends the name of a hook's second program, which takes what the first one misses.
pub const SECOND_PROGRAM: &str = "(second program)";
/// The same of one that takes what both miss.
pub const THIRD_PROGRAM: &str = "(third program)";
/// And of one that takes what these miss.
pub const FOURTH_PROGRAM: &str = "(fourth program)";

impl Hook {
    /// Of nginx's sends or receives: what took its place, if anything did.
    #[must_use]
    pub fn of_calls_by(&self) -> Option<&str> {
        let is_of_calls = ["sock_send_length", "sock_recv_length"].contains(&self.name.as_str());
        self.by.as_deref().filter(|_| is_of_calls && self.attached)
    }

    /// Of a second program or a further one: without it the first one still sees most.
    #[must_use]
    pub fn is_spare(&self) -> bool {
        [SECOND_PROGRAM, THIRD_PROGRAM, FOURTH_PROGRAM]
            .iter()
            .any(|which| self.name.ends_with(which))
    }
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// CLOCK_MONOTONIC.
    pub monotonic_ns: u64,
    /// CLOCK_REALTIME, nanoseconds since 1970 UTC.
    pub realtime_ns: i64,
}

/// A histogram: lower bound of each non-empty bucket and its count.
pub type Histogram = Vec<(u64, u64)>;

/// An upstream's counters over the time since its last such record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// When they were read.
    pub ns: u64,
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// connect() calls.
    pub connects: u64,
    /// Connections that never became established.
    pub connect_failures: u64,
    /// Exchanges begun.
    pub exchanges: u64,
    /// Connections that ended with the peer's FIN first.
    pub fin_first: u64,
    /// With an RST received first.
    pub rst_first: u64,
    /// With nginx's close first.
    pub nginx_first: u64,
    /// connect() to established, microseconds.
    pub connect_us: Histogram,
    /// Request's first byte to response's first byte, microseconds.
    pub first_byte_us: Histogram,
    /// Bytes of requests.
    pub request_bytes: Histogram,
}

/// Something was lost since the last such record of its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// When it was noticed.
    pub ns: u64,
    /// When losses had been looked for before: it happened since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ns: Option<u64>,
    /// What: a counter's name.
    pub what: String,
    /// How many.
    pub count: u64,
}

/// Why a capture ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Its time was over.
    Duration,
    /// SIGINT, SIGTERM or SIGHUP.
    Signal,
    /// The trace could not be written any more.
    Failure,
}

/// The last record of a whole trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When the capture stopped looking, before it drained.
    pub ns: u64,
    /// Why.
    pub reason: EndReason,
    /// Records written of each kind.
    pub records: BTreeMap<String, u64>,
}
