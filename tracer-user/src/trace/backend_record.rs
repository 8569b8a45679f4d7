//! The records of a backend that runs on the capturing host: how its side of a
//! connection ended, its processes, its listening sockets. Conventions are those of
//! [`super::record`].

use std::net::IpAddr;

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
