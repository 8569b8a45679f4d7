//! A connection that a process of this host accepted at one of the ports asked for: what
//! the capture on a backend's host (`--role backend`) tells of it, once, at its end.

use crate::record::{DecodeError, Kind, wire};

wire! {
    /// The accepting side of a connection. IPv4 addresses stand in their mapped form.
    pub struct Accepted, size 160, last reserved at 157 {
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
        /// Process that gave the socket up, as the initial pid namespace numbers it.
        pub pid: u32,
        /// Its parent.
        pub parent_pid: u32,
        /// If it was ending: its exit code as wait() gives it.
        pub exit_code: u32,
        /// Bytes that it had not read when it closed.
        pub unread_bytes: u32,
        /// The kernel's reason for an RST sent.
        pub rst_sent_reason: u32,
        /// `sk_err` when the connection ended by itself.
        pub socket_error: u32,
        /// Name of the process's main thread, zero-padded.
        pub comm: [u8; 16],
        /// 1 if the process was ending, and nobody called close().
        pub exiting: u8,
        /// 1 if the kernel had chosen the process to free memory.
        pub out_of_memory: u8,
        /// 1 if a process had taken the connection from the listener's queue.
        pub accepted: u8,
        /// 1 once the record has left.
        pub sent: u8,
        /// 1 if the connection was open before the capture began.
        pub first_seen_mid_life: u8,
        /// Zero.
        pub reserved: [u8; 3],
    }
}

impl Accepted {
    /// Decodes a record from the ring buffer or the iterator.
    ///
    /// # Errors
    /// If kind, size, cookie or a flag is not one that the programs write.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record = Self::read(bytes)?;
        if record.kind != Kind::Accepted as u32 {
            return Err(DecodeError::Kind(record.kind));
        }
        if record.size as usize != Self::SIZE {
            return Err(DecodeError::Size {
                expected: Self::SIZE,
                found: record.size as usize,
            });
        }
        if record.cookie == 0 {
            return Err(DecodeError::Value("cookie"));
        }
        let flags = [
            record.exiting,
            record.out_of_memory,
            record.accepted,
            record.sent,
            record.first_seen_mid_life,
        ];
        if flags.iter().any(|flag| *flag > 1) {
            return Err(DecodeError::Value("flag"));
        }
        Ok(record)
    }
}
