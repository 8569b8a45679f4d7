//! A connection that a process of this host accepted at one of the ports asked for: what
//! the capture on a backend's host (`--role backend`) tells of it, once, at its end.

use crate::closer::Closer;
use crate::record::{DecodeError, Kind, wire};

wire! {
    /// The accepting side of a connection. IPv4 addresses stand in their mapped form.
    pub struct Accepted, size 184, last reserved at 182 {
        /// [`Kind::Accepted`]
        pub kind: u32,
        /// [`Accepted::SIZE`]
        pub size: u32,
        /// Cookie of the accepted socket.
        pub cookie: u64,
        /// Handshake done, nanoseconds of CLOCK_MONOTONIC as all times here; 0 if the
        /// connection was open before the capture.
        pub established_ns: u64,
        /// The other side's FIN arrived.
        pub fin_received_ns: u64,
        /// Its RST arrived.
        pub rst_received_ns: u64,
        /// This host sent an RST.
        pub rst_sent_ns: u64,
        /// The process closed it, or ended with it open, before an RST or a timeout
        /// had ended it.
        pub closed_ns: u64,
        /// The record left.
        pub ended_ns: u64,
        /// Bytes from the other side that had reached the socket.
        pub received_bytes: u64,
        /// Bytes that the process had written for the other side.
        pub sent_bytes: u64,
        /// The last of the former came, right to a tick of the kernel; 0 if there are none.
        pub last_received_ns: u64,
        /// Bytes were last sent, likewise.
        pub last_sent_ns: u64,
        /// The other side's address, network order.
        pub remote: [u8; 16],
        /// The accepting side's.
        pub local: [u8; 16],
        /// The other side's port, host order.
        pub remote_port: u16,
        /// The port that it was accepted at.
        pub local_port: u16,
        /// Inode number of the network namespace.
        pub netns: u32,
        /// The kernel's reason for an RST sent.
        pub rst_sent_reason: u32,
        /// `sk_err` when the connection ended by itself.
        pub socket_error: u32,
        /// Process that gave the socket up, and what it left; pid 0 if nobody did, or a
        /// thread of the kernel's for somebody unknown.
        pub closer: Closer,
        /// 1 once the record has left.
        pub sent: u8,
        /// 1 if the connection was open before the capture began.
        pub first_seen_mid_life: u8,
        /// Zero.
        pub reserved: [u8; 2],
    }
}

impl Accepted {
    /// Decodes a record from the ring buffer or the iterator.
    ///
    /// # Errors
    /// If kind, size, cookie or a flag is not one that the programs write.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record = Self::read(bytes)?;
        Kind::Accepted.check(record.kind, record.size, Self::SIZE)?;
        if record.cookie == 0 {
            return Err(DecodeError::Value("cookie"));
        }
        record.closer.check()?;
        let flags = [record.sent, record.first_seen_mid_life];
        if flags.iter().any(|flag| *flag > 1) {
            return Err(DecodeError::Value("flag"));
        }
        Ok(record)
    }
}
