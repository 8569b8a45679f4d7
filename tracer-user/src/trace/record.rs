//! The records of a trace: what a capture writes and the judge reads, one JSON
//! object a line. `docs/trace-format.md` says the same for readers of other
//! languages.
//!
//! Times are nanoseconds of CLOCK_MONOTONIC unless a name says otherwise; an
//! [`Option`] is absent where the event never happened. Fields may be added;
//! readers skip those they do not know.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

pub use super::backend_record::{
    Accepted, AcceptedEnd, BackendExit, BackendProcess, Exit, Listener, PeerClose,
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
}

/// A program and its attach point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Tracepoint or function.
    pub name: String,
    /// Was it attached?
    pub attached: bool,
    /// Why not, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One nginx instance: a master with its workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Nginx {
    /// Master's pid on the host.
    pub master_pid: u32,
    /// Flavour and version as the binary carries it, e.g. `nginx/1.22.1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Path of the binary as the master sees it.
    pub binary: String,
    /// Path of the configuration file as the master sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_path: Option<String>,
    /// Workers at the start.
    pub workers: Vec<Worker>,
    /// Error logs followed.
    pub error_logs: Vec<ErrorLog>,
    /// What of the configuration bears on verdicts; absent if it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
    /// Why the configuration is absent or in part unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_problem: Option<String>,
    /// Whether lines of this instance are seen being written (the uprobe is attached).
    pub log_calls_seen: bool,
    /// Time zone that nginx stamps its lines in.
    pub time_zone: TimeZone,
    /// Inode number of its network namespace, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
}

/// An instance as it is from some moment on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// When that was noticed.
    pub ns: u64,
    /// The instance.
    pub nginx: Nginx,
}

/// A worker process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Pid on the host.
    pub pid: u32,
    /// Pid in nginx's own pid namespace: the one in its log lines.
    pub inner_pid: u32,
}

/// An error log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorLog {
    /// Path as nginx sees it.
    pub path: String,
    /// Level that the configuration gives it (`error` if none), where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
}

/// A time zone's rules, so that a report made elsewhere reads local times right.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeZone {
    /// Name, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Contents of the zone file (RFC 9636), base64; absent means UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tzif: Option<String>,
}

/// nginx's settings that bear on verdicts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// Upstream blocks.
    pub upstreams: Vec<UpstreamBlock>,
    /// Places that proxy, with the settings in force there.
    pub locations: Vec<ProxyLocation>,
    /// Settings of the main and events contexts, as written: `worker_connections`,
    /// `worker_rlimit_nofile`, `worker_processes`, `worker_shutdown_timeout`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub main: BTreeMap<String, String>,
}

/// An `upstream` block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpstreamBlock {
    /// Its name.
    pub name: String,
    /// `server` parameters as written, e.g. `127.0.0.1:9101`, `app.example:80`.
    pub servers: Vec<String>,
    /// `keepalive N`; absent if not set (a default by version may apply).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<u64>,
    /// `keepalive_timeout` in milliseconds; absent if not set (60 s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_timeout_ms: Option<u64>,
    /// `keepalive_requests`; absent if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_requests: Option<u64>,
}

/// A place in the configuration that passes requests on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProxyLocation {
    /// `server_name`, first one, may be empty.
    pub server_name: String,
    /// `location` parameters as written, outermost first, joined by a space.
    pub location: String,
    /// Argument of `proxy_pass` (or fastcgi_pass and so on) as written.
    pub pass: String,
    /// Whose directive that is: `proxy`, `fastcgi`, `grpc`; `stream` for `proxy_pass` of
    /// a server of that part; absent in older traces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub module: String,
    /// Directive settings in force there by inheritance, as written, e.g.
    /// `proxy_read_timeout` to `5s`, `proxy_next_upstream` to `error timeout`.
    pub settings: BTreeMap<String, String>,
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// CLOCK_MONOTONIC.
    pub monotonic_ns: u64,
    /// CLOCK_REALTIME, nanoseconds since 1970 UTC.
    pub realtime_ns: i64,
}

/// How a connection's record came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionEnd {
    /// It was still open when the capture ended.
    #[default]
    Open,
    /// nginx closed it.
    Closed,
    /// The kernel destroyed the socket after a reset, a failed connect or a close
    /// with unread bytes.
    Destroyed,
}

/// A socket call of nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// send, write, writev, sendfile.
    Send,
    /// recv, read, readv.
    Receive,
}

/// What nginx found when it peeked at an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdleEnd {
    /// End of stream.
    Eof,
    /// An error (a reset).
    Error,
    /// Bytes that nobody asked for.
    Bytes,
}

/// One upstream connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// The kernel's socket cookie: identity.
    pub cookie: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// nginx's end; port 0 if none was chosen.
    pub local: SocketAddr,
    /// The backend's end.
    pub remote: SocketAddr,
    /// Worker process that called connect(), on the host.
    pub pid: u32,
    /// Its thread.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Id of its cgroup.
    pub cgroup: u64,
    /// connect() began.
    pub opened_ns: u64,
    /// Handshake done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub established_ns: Option<u64>,
    /// nginx last sent a byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sent_ns: Option<u64>,
    /// nginx last received a byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_received_ns: Option<u64>,
    /// The last data arrived, if nginx read it more than two of the kernel's ticks later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_arrival_ns: Option<u64>,
    /// First byte of the last exchange's request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_started_ns: Option<u64>,
    /// First byte of the last exchange's response, as nginx read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_ns: Option<u64>,
    /// FIN arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fin_received_ns: Option<u64>,
    /// RST arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rst_received_ns: Option<u64>,
    /// RST sent by nginx's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rst_sent_ns: Option<u64>,
    /// nginx read the end of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eof_read_ns: Option<u64>,
    /// A send or receive of nginx first failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_call_ns: Option<u64>,
    /// Which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_call: Option<Call>,
    /// With which errno.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_call_errno: Option<u32>,
    /// nginx's peek at the idle connection found it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_end_seen_ns: Option<u64>,
    /// What that peek found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_end: Option<IdleEnd>,
    /// nginx closed the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_ns: Option<u64>,
    /// The last line about a client connection that the closing thread logged before,
    /// if it did nothing on another socket in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_ns: Option<u64>,
    /// The record left the kernel.
    pub ended_ns: u64,
    /// How.
    pub end: ConnectionEnd,
    /// Silence before the last exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_before_ns: Option<u64>,
    /// Bytes sent in all.
    pub sent_bytes: u64,
    /// Bytes received in all.
    pub received_bytes: u64,
    /// Bytes of the last request.
    pub request_bytes: u64,
    /// Bytes of the last response.
    pub response_bytes: u64,
    /// Exchanges begun.
    pub exchanges: u32,
    /// Exchanges begun when the first FIN or RST arrived.
    pub exchanges_at_end: u32,
    /// The FIN or RST arrived while a request had no response byte yet.
    pub awaiting_at_end: bool,
    /// Segments retransmitted.
    pub retransmits: u32,
    /// Segments retransmitted since the last exchange began.
    pub exchange_retransmits: u32,
    /// Socket error at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_error: Option<u32>,
    /// Bytes not acknowledged when the FIN arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unacked_at_fin: Option<u32>,
    /// Bytes not acknowledged when the RST arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unacked_at_rst: Option<u32>,
    /// Bytes that nginx had not read when it closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread_at_close: Option<u32>,
    /// Bytes that nginx had not read when the first FIN or RST arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread_at_end: Option<u32>,
    /// Bytes not acknowledged when nginx closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unacked_at_close: Option<u32>,
    /// A TLS handshake was done: exchanges and bytes count from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_ns: Option<u64>,
    /// The kernel's reason number for an RST sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rst_sent_reason: Option<u32>,
    /// It was open before the capture began: `opened_ns` and `established_ns` say when the
    /// capture took it over, and its exchanges before count as one if there was any.
    pub first_seen_mid_life: bool,
}

/// The uprobe's sighting of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// When nginx's log function was entered.
    pub ns: u64,
    /// Process on the host.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// 1 emerg to 8 debug.
    pub level: u32,
    /// errno, 0 for none.
    pub errno: u32,
    /// Client connection number, 0 for none.
    pub connection: u64,
}

/// What a worker did next after it closed a failed upstream connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continuation {
    /// The failed connection.
    pub failed_cookie: u64,
    /// The worker's thread.
    pub tid: u32,
    /// When it was closed.
    pub closed_ns: u64,
    /// What came next.
    pub next: Next,
    /// The connection that came next, if it was an upstream one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cookie: Option<u64>,
    /// When.
    pub next_ns: u64,
}

/// The next step of [`Continuation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// Opened another upstream connection.
    Connect,
    /// Sent a request on a kept-alive upstream connection.
    Reuse,
    /// Sent bytes on a socket that is no upstream connection: the client's.
    OtherSend,
}

/// A log line as the file holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The file's path as nginx sees it.
    pub file: String,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Master's pid of the instance whose log it is.
    pub master_pid: u32,
    /// When the capture read it.
    pub read_ns: u64,
    /// The line without its end; further physical lines of the same record follow
    /// after LF.
    pub text: String,
    /// The line was not UTF-8: `text` holds each byte as the code point of its number.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub latin1: bool,
    /// The process that wrote it, on the host, where the kernel saw it being written:
    /// for logs that are no files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// A worker process that started or ended during the capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// When it was noticed.
    pub ns: u64,
    /// Master's pid.
    pub master_pid: u32,
    /// The worker.
    pub worker: Worker,
    /// Started (true) or gone (false).
    pub started: bool,
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
    /// SIGINT or SIGTERM.
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
