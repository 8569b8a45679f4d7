//! The records of a backend that runs on the capturing host: how its side of a
//! connection ended, its processes, its listening sockets. Conventions are those of
//! [`super::record`].

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// exit() with this status.
    Code(u32),
    /// This signal.
    Signal(u32),
    /// SIGKILL from the kernel, which had no memory left (for the host or the cgroup).
    OutOfMemory,
}

/// The backend's side of an upstream connection, as it ended before nginx's side did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerClose {
    /// Cookie of nginx's side: the [`Connection`](super::record::Connection) that this belongs to.
    pub cookie: u64,
    /// Inode number of the backend's network namespace.
    pub netns: u32,
    /// When.
    pub ns: u64,
    /// Process that closed, on the host.
    pub pid: u32,
    /// Its parent.
    pub parent_pid: u32,
    /// Name of its main thread.
    pub comm: String,
    /// The process was ending: nobody called close(). How it ended; absent if it
    /// closed by a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Bytes from nginx that it had not read: the kernel then sends an RST.
    pub unread_bytes: u32,
    /// Bytes from nginx that had reached its host.
    pub received_bytes: u64,
    /// A process had taken the connection from the listening socket's queue.
    pub accepted: bool,
    /// It closed by a call, or was starting another program then and had a copy only: the
    /// kernel, before Linux 5.15, does not tell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_be_copy: bool,
    /// Name of the backend's host, if another capture, made there, saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// How the record of an accepted connection came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceptedEnd {
    /// It was still open when the capture ended.
    #[default]
    Open,
    /// Its process closed it, or ended with it open.
    Closed,
    /// An RST of the other side's, a timeout or an administrator had ended it before its
    /// process gave it up.
    Broken,
}

/// A connection that a process of a backend's host accepted, as that host saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Cookie of the accepted socket, of this host's kernel.
    pub cookie: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The accepting end.
    pub local: SocketAddr,
    /// The other end: nginx's, if it is one of nginx's.
    pub remote: SocketAddr,
    /// Handshake done; absent if it was open before the capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub established_ns: Option<u64>,
    /// The other side's FIN arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fin_received_ns: Option<u64>,
    /// Its RST arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rst_received_ns: Option<u64>,
    /// This host sent an RST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rst_sent_ns: Option<u64>,
    /// The kernel's reason number for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rst_sent_reason: Option<u32>,
    /// Its process closed it, or ended with it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_ns: Option<u64>,
    /// The record left the kernel.
    pub ended_ns: u64,
    /// How.
    pub end: AcceptedEnd,
    /// Socket error, if it was broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_error: Option<u32>,
    /// Bytes that had reached the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_bytes: Option<u64>,
    /// Bytes that its process had written for the other side, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
    /// The last bytes from the other side came, right to a tick of the kernel's clock,
    /// 10 ms at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_received_ns: Option<u64>,
    /// Bytes were last sent to it, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sent_ns: Option<u64>,
    /// Bytes that its process had not read when it closed.
    #[serde(default)]
    pub unread_bytes: u32,
    /// Process that gave it up, on the host; absent while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its parent.
    #[serde(default)]
    pub parent_pid: u32,
    /// Name of its main thread.
    #[serde(default)]
    pub comm: String,
    /// The process was ending: nobody called close(). How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// A process had taken the connection from the listening socket's queue.
    #[serde(default)]
    pub accepted: bool,
    /// As [`PeerClose::may_be_copy`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_be_copy: bool,
    /// It was open before the capture began.
    #[serde(default)]
    pub first_seen_mid_life: bool,
}

/// A process that had held a backend's side of connections ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendExit {
    /// When.
    pub ns: u64,
    /// The process, on the host.
    pub pid: u32,
    /// Its parent.
    pub parent_pid: u32,
    /// Name of its main thread.
    pub comm: String,
    /// How.
    pub exit: Exit,
}

/// A process that holds a backend's side of connections. Written again as the numbers
/// grow; the last record counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendProcess {
    /// The backend's address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Inode number of nginx's network namespace.
    pub netns: u32,
    /// The process, on the host.
    pub pid: u32,
    /// Its parent.
    pub parent_pid: u32,
    /// Name of its main thread.
    pub comm: String,
    /// It first ended one of these connections.
    pub first_ns: u64,
    /// It last did.
    pub last_ns: u64,
    /// How many it ended.
    pub connections: u64,
}

/// A listening socket of a backend on this host, whose queue was full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// When it was looked at.
    pub ns: u64,
    /// Where it listens.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Connections that wait to be accepted.
    pub queued: u32,
    /// How many may wait.
    pub limit: u32,
}
