//! The other end of an upstream connection where it is a process on this host: how
//! that process ended it.

use crate::closer::Closer;
use crate::record::{DecodeError, Kind, wire};

wire! {
    /// A connection as both ends can name it. IPv4 addresses stand in their mapped
    /// form, which sockets of a listener for both families have anyway.
    pub struct PeerKey, size 40, last netns at 36 {
        /// nginx's address, network order.
        pub nginx: [u8; 16],
        /// The backend's address, network order.
        pub backend: [u8; 16],
        /// nginx's port, host order.
        pub nginx_port: u16,
        /// The backend's port, host order.
        pub backend_port: u16,
        /// Inode number of the network namespace if the addresses are loopback, which
        /// every namespace has for itself; else 0.
        pub netns: u32,
    }
}

wire! {
    /// nginx's side of a connection whose other end may show up.
    pub struct Expected, size 16, last reserved at 12 {
        /// Cookie of nginx's socket.
        pub cookie: u64,
        /// Slot of its upstream in the counters.
        pub upstream: u32,
        /// Zero.
        pub reserved: u32,
    }
}

wire! {
    /// The backend's side, as its own process ended it before nginx did.
    pub struct PeerClose, size 80, last reserved at 77 {
        /// [`Kind::PeerClose`]
        pub kind: u32,
        /// [`PeerClose::SIZE`]
        pub size: u32,
        /// Cookie of nginx's socket.
        pub cookie: u64,
        /// When, nanoseconds of CLOCK_MONOTONIC.
        pub ns: u64,
        /// Bytes from nginx that had reached the socket.
        pub received_bytes: u64,
        /// Inode number of the backend's network namespace.
        pub netns: u32,
        /// Slot of nginx's side's upstream in the counters.
        pub upstream: u32,
        /// Process that closed, and what it left.
        pub closer: Closer,
        /// Set once the process has ended its side.
        pub ended: u8,
        /// Zero.
        pub reserved: [u8; 3],
    }
}

impl PeerClose {
    /// Decodes a record from the ring buffer.
    ///
    /// # Errors
    /// If kind, size, cookie or a flag is not one that the programs write.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record = Self::read(bytes)?;
        Kind::PeerClose.check(record.kind, record.size, Self::SIZE)?;
        if record.cookie == 0 {
            return Err(DecodeError::Value("cookie"));
        }
        record.closer.check()?;
        Ok(record)
    }
}
