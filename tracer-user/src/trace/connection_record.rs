//! Records of nginx's upstream connections: each one's life, the sightings of lines and
//! what a worker did after a failure.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

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
    /// No program saw nginx's sends and receives. What only these tell is absent; times of
    /// sends and receives are right to a tick of the kernel's; one exchange stands for all
    /// before the last that has no answer; bytes of an exchange are known only if it was
    /// the connection's first or came after the backend's end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub calls_unseen: bool,
    /// Without its calls it cannot be told whether nginx had sent something after the last
    /// data came when the FIN arrived: both in one tick.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub order_unknown: bool,
    /// Gaps in what the programs saw nginx send and receive, as sequence numbers show them:
    /// each stands for one call or more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed_calls: u32,
    /// Such a gap lies in the last exchange or the one before: their times are right to a
    /// tick of the kernel's, and exchanges within one gap count as one.
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

/// A send is timed when its call returns: over loopback what answers it can come some
/// microseconds earlier, and a worker may be made to wait in between.
const SEND_RETURNS_NS: u64 = 1_000_000;

impl Connection {
    /// Did the RST answer the last request? All of the request's bytes, and no others, were
    /// on their way when it came.
    #[must_use]
    pub fn reset_answers_request(&self) -> bool {
        let (Some(rst), Some(started)) = (self.rst_received_ns, self.request_started_ns) else {
            return false;
        };
        let counted = !self.calls_unseen && !self.filled_in;
        let whole = self.request_bytes > 0
            && self.unacked_at_rst.map(u64::from) == Some(self.request_bytes);
        counted
            && whole
            && self.first_byte_ns.is_none()
            && rst.saturating_add(SEND_RETURNS_NS) >= started
    }
}
