//! What a worker did next after it closed a failed upstream connection: opened or
//! reused another one (a retry), or wrote to some other socket (the client got
//! nginx's answer). One per failed attempt.

use crate::record::{DecodeError, Kind, wire};

/// [`Continuation::next`]: nothing yet.
pub const NEXT_NONE: u32 = 0;
/// [`Continuation::next`]: the thread called connect() for another upstream connection.
pub const NEXT_CONNECT: u32 = 1;
/// [`Continuation::next`]: the thread sent a request on a kept-alive upstream connection.
pub const NEXT_REUSE: u32 = 2;
/// [`Continuation::next`]: the thread sent bytes on a socket that is no upstream connection.
pub const NEXT_OTHER_SEND: u32 = 3;

wire! {
    /// The sequel of one failed attempt, and the slot of the thread table in which
    /// the programs keep it until the thread's next failure or until user space reads it.
    pub struct Continuation, size 64, last reserved at 60 {
        /// [`Kind::Continuation`]
        pub kind: u32,
        /// [`Continuation::SIZE`]
        pub size: u32,
        /// Cookie of the connection that failed and was closed; 0 for an empty slot.
        pub failed_cookie: u64,
        /// Cookie of the upstream connection that came next, where `next` says so.
        pub next_cookie: u64,
        /// The worker's thread.
        pub tid: u32,
        /// One of the `NEXT_` constants.
        pub next: u32,
        /// When the failed connection was closed, nanoseconds of CLOCK_MONOTONIC.
        pub closed_ns: u64,
        /// When the next step was seen.
        pub next_ns: u64,
        /// The thread's last line about a client connection, if it has done nothing on
        /// another socket since; else 0.
        pub line_ns: u64,
        /// 1 between an error line of this thread and the close that follows it.
        pub armed: u32,
        /// Zero.
        pub reserved: u32,
    }
}

impl Continuation {
    /// Decodes a record from the ring buffer or from the thread table.
    ///
    /// # Errors
    /// If kind, size or step is not one that the programs write.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record = Self::read(bytes)?;
        Kind::Continuation.check(record.kind, record.size, Self::SIZE)?;
        if record.next > NEXT_OTHER_SEND {
            return Err(DecodeError::Value("next"));
        }
        Ok(record)
    }
}
