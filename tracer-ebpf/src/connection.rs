//! The connection record: all that the kernel saw of one upstream connection,
//! accumulated in the socket's own storage and sent once.

use crate::record::{DecodeError, Kind, wire};

/// `AF_INET` of `linux/socket.h`.
pub const FAMILY_IPV4: u16 = 2;
/// `AF_INET6` of `linux/socket.h`.
pub const FAMILY_IPV6: u16 = 10;

/// [`Connection::end`]: still open (only in records read from living sockets).
pub const END_OPEN: u8 = 0;
/// [`Connection::end`]: nginx closed the socket; the record left at that moment.
pub const END_CLOSED: u8 = 1;
/// [`Connection::end`]: the kernel destroyed the socket (a failed connect, a reset
/// connection that nginx then closed, a close with unread bytes).
pub const END_DESTROYED: u8 = 2;

/// [`Connection::failed_call`]: no call of nginx failed.
pub const CALL_NONE: u8 = 0;
/// [`Connection::failed_call`] and [`Connection::last_call`]: a send.
pub const CALL_SEND: u8 = 1;
/// [`Connection::failed_call`] and [`Connection::last_call`]: a receive.
pub const CALL_RECEIVE: u8 = 2;

wire! {
    /// One upstream connection.
    ///
    /// Times are nanoseconds of CLOCK_MONOTONIC, 0 where the event never happened.
    /// "Exchange" is one request with its response: it begins with the first byte
    /// sent after a byte was received (or the first ever). Flights of a TLS handshake
    /// that was seen are no exchanges; their bytes are not counted either.
    ///
    /// Of a connection that was open before the capture began (`first_seen_mid_life`)
    /// `opened_ns` and `established_ns` say when it was taken over. Its times before are
    /// right to a tick of the kernel's; its exchanges before count as one if there
    /// was any, which stands for all of them, with their bytes. So it is where nginx's
    /// calls are not seen (`calls_unseen`), for the connection's whole life.
    pub struct Connection, size 344, last first_read_sequence at 340 {
        /// [`Kind::Connection`]
        pub kind: u32,
        /// [`Connection::SIZE`]
        pub size: u32,
        /// The kernel's socket cookie; the connection's identity.
        pub cookie: u64,
        /// Inode number of the network namespace.
        pub netns: u32,
        /// Slot of this connection's upstream in the counters.
        pub upstream: u32,
        /// Local address, network order; IPv4 in the first four bytes.
        pub local: [u8; 16],
        /// Remote address, network order; IPv4 in the first four bytes.
        pub remote: [u8; 16],
        /// Local port, host order; 0 until the kernel has chosen one.
        pub local_port: u16,
        /// Remote port, host order.
        pub remote_port: u16,
        /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
        pub family: u16,
        /// Zero.
        pub reserved_family: u16,
        /// Process that called connect(), as the initial pid namespace numbers it.
        pub pid: u32,
        /// Thread that called connect().
        pub tid: u32,
        /// Name of that thread, zero-padded.
        pub comm: [u8; 16],
        /// Id of its cgroup (v2); 0 of a connection first seen mid-life.
        pub cgroup: u64,
        /// connect() began.
        pub opened_ns: u64,
        /// The handshake was done.
        pub established_ns: u64,
        /// nginx last sent a byte.
        pub last_sent_ns: u64,
        /// nginx last received a byte.
        pub last_received_ns: u64,
        /// The last data arrived, right to a tick of the kernel's; only if nginx read it
        /// more than two ticks later.
        pub last_arrival_ns: u64,
        /// First byte of the last exchange's request.
        pub request_started_ns: u64,
        /// First byte of the last exchange's response, as nginx read it.
        pub first_byte_ns: u64,
        /// The peer's FIN arrived.
        pub fin_received_ns: u64,
        /// The peer's (or a third party's) RST arrived.
        pub rst_received_ns: u64,
        /// This host sent an RST.
        pub rst_sent_ns: u64,
        /// nginx read the end of the stream (a receive of 0 bytes).
        pub eof_read_ns: u64,
        /// A send or receive of nginx first failed.
        pub failed_call_ns: u64,
        /// nginx found an idle connection ended (a peek that gave 0, an error or bytes).
        pub idle_end_seen_ns: u64,
        /// nginx closed the socket.
        pub closed_ns: u64,
        /// The record left the kernel.
        pub ended_ns: u64,
        /// The last line about a client connection that the closing thread logged before,
        /// if it did nothing on another socket in between.
        pub line_ns: u64,
        /// A TLS handshake was done, as the first request told.
        pub handshake_ns: u64,
        /// Silence before the last exchange, in nanoseconds; 0 for the first.
        pub idle_before_ns: u64,
        /// Bytes sent in all.
        pub sent_bytes: u64,
        /// Bytes received in all.
        pub received_bytes: u64,
        /// Bytes of the last exchange's request.
        pub request_bytes: u64,
        /// Bytes of the last exchange's response.
        pub response_bytes: u64,
        /// Exchanges begun.
        pub exchanges: u32,
        /// Exchanges begun when the FIN or RST arrived, whichever came first; one whose
        /// first send had not returned yet is among them.
        pub exchanges_at_end: u32,
        /// Segments retransmitted.
        pub retransmits: u32,
        /// Segments retransmitted since the last exchange began.
        pub exchange_retransmits: u32,
        /// errno of the failed call.
        pub failed_call_errno: u32,
        /// The socket's error when it ended (`sk_err`): 111 refused, 104 reset, 110 timed out.
        pub socket_error: u32,
        /// Bytes written and not acknowledged when the FIN arrived.
        pub unacked_at_fin: u32,
        /// Bytes written and not acknowledged when the RST arrived.
        pub unacked_at_rst: u32,
        /// Bytes that nginx had not read when it closed.
        pub unread_at_close: u32,
        /// The kernel's reason for an RST sent (6.10 and later), else 0.
        pub rst_sent_reason: u32,
        /// Bytes that nginx had not read when the first FIN or RST arrived.
        pub unread_at_end: u32,
        /// TCP sequence number of the first byte that nginx writes, and that is counted.
        pub first_sequence: u32,
        /// Bytes written and not acknowledged when nginx closed.
        pub unacked_at_close: u32,
        /// [`CALL_NONE`], [`CALL_SEND`] or [`CALL_RECEIVE`].
        pub failed_call: u8,
        /// The last successful call that moved bytes.
        pub last_call: u8,
        /// TCP state (of `net/tcp_states.h`) before the last change.
        pub last_state: u8,
        /// [`END_OPEN`], [`END_CLOSED`] or [`END_DESTROYED`].
        pub end: u8,
        /// 1 if the connection was open before the capture began.
        pub first_seen_mid_life: u8,
        /// 1 if a first byte was counted for the last exchange.
        pub answered: u8,
        /// 1 if the FIN or RST came in the middle of an exchange without an answer.
        pub awaiting_at_end: u8,
        /// Set once the record has left.
        pub sent: u8,
        /// Result of the last peek at an idle connection: 0 nothing seen, 1 end, 2 error, 3 bytes.
        pub idle_end: u8,
        /// 1 where nginx's calls are not seen: what only they tell is missing, and the rest
        /// is what the kernel itself remembers of the connection (`remembered.rs`).
        pub calls_unseen: u8,
        /// 1 if, without its calls, it cannot be told whether nginx had sent something after
        /// the last data came when the FIN arrived.
        pub order_unknown: u8,
        /// Not 0 if a send or receive that no program saw lies near: 2 in the last exchange,
        /// 1 in the one before. Times and bytes are the kernel's memory of them then.
        pub filled_in: u8,
        /// Gaps in what the programs saw nginx send and receive, as sequence numbers show
        /// them: the kernel skips a program that it has interrupted on that processor.
        pub missed_calls: u16,
        /// Zero.
        pub reserved: u16,
        /// TCP sequence number of the first byte that nginx reads, and that is counted.
        pub first_read_sequence: u32,
    }
}

impl Connection {
    /// Decodes a record from the ring buffer or from a living socket's storage.
    ///
    /// # Errors
    /// If kind, size, family or one of the small enumerations is not one that the
    /// programs write.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record = Self::read(bytes)?;
        Kind::Connection.check(record.kind, record.size, Self::SIZE)?;
        if !matches!(record.family, FAMILY_IPV4 | FAMILY_IPV6) {
            return Err(DecodeError::Value("family"));
        }
        if record.end > END_DESTROYED {
            return Err(DecodeError::Value("end"));
        }
        if record.failed_call > CALL_RECEIVE || record.last_call > CALL_RECEIVE {
            return Err(DecodeError::Value("call"));
        }
        if record.cookie == 0 {
            return Err(DecodeError::Value("cookie"));
        }
        Ok(record)
    }
}
