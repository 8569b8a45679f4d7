//! Per-upstream counters: what makes rates and percentiles possible without an
//! event per request. Kept per processor; user space adds them up once a second.

use crate::histogram::BUCKETS;
use crate::record::wire;

/// Slots; slot 0 takes the upstreams that found none.
pub const SLOTS: usize = 256;

wire! {
    /// An upstream's identity: address, port, network namespace.
    pub struct UpstreamKey, size 24, last netns at 20 {
        /// Address, network order; IPv4 in the first four bytes.
        pub address: [u8; 16],
        /// Port, host order.
        pub port: u16,
        /// [`crate::connection::FAMILY_IPV4`] or [`crate::connection::FAMILY_IPV6`].
        pub family: u16,
        /// Inode number of the network namespace.
        pub netns: u32,
    }
}

wire! {
    /// Counters of one upstream since the capture began.
    pub struct UpstreamCounters, size 1592, last request_bytes at 1080 {
        /// connect() calls.
        pub connects: u64,
        /// Connections that never became established.
        pub connect_failures: u64,
        /// Exchanges begun.
        pub exchanges: u64,
        /// Connections that ended with the peer's FIN first.
        pub fin_first: u64,
        /// Connections that ended with an RST received first.
        pub rst_first: u64,
        /// Connections that nginx closed first.
        pub nginx_first: u64,
        /// Zero.
        pub reserved: u64,
        /// Time from connect() to established, microseconds.
        pub connect_us: [u32; BUCKETS],
        /// Time from a request's first byte to its response's first byte, microseconds.
        pub first_byte_us: [u32; BUCKETS],
        /// Bytes of requests.
        pub request_bytes: [u32; BUCKETS],
    }
}
