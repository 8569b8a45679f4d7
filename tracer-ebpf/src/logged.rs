//! The uprobe's sighting of a log line: when, by which thread, for which client
//! connection. The line's text comes from the file.

use crate::record::{DecodeError, Kind, wire};

wire! {
    /// One call of nginx's `ngx_log_error_core`.
    pub struct Logged, size 48, last reserved at 44 {
        /// [`Kind::Logged`]
        pub kind: u32,
        /// [`Logged::SIZE`]
        pub size: u32,
        /// When the function was entered, nanoseconds of CLOCK_MONOTONIC.
        pub ns: u64,
        /// Client connection number (`*N` in the line), 0 for none.
        pub connection: u64,
        /// Process, as the initial pid namespace numbers it.
        pub pid: u32,
        /// Thread.
        pub tid: u32,
        /// errno given to the function, 0 for none.
        pub errno: u32,
        /// 1 emerg to 8 debug (`ngx_log.h`).
        pub level: u32,
        /// errno could not be read, or the connection number: bits 0 and 1.
        pub unread: u32,
        /// Zero.
        pub reserved: u32,
    }
}

impl Logged {
    /// Decodes a record from the ring buffer.
    ///
    /// # Errors
    /// If kind, size or level is not one that the programs write.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record = Self::read(bytes)?;
        Kind::Logged.check(record.kind, record.size, Self::SIZE)?;
        if !(1..=8).contains(&record.level) {
            return Err(DecodeError::Value("level"));
        }
        Ok(record)
    }
}
