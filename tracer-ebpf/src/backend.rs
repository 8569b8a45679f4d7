//! Processes of this host that hold backends' sides of upstream connections: what each
//! has ended so far, and its own end.

use crate::record::{DecodeError, Kind, wire};

/// How many processes are kept in mind: those that last ended a connection.
pub const PROCESSES: usize = 4096;

wire! {
    /// A process and one upstream that it serves.
    pub struct BackendKey, size 8, last upstream at 4 {
        /// The process, as the initial pid namespace numbers it.
        pub pid: u32,
        /// Slot of the upstream in the counters.
        pub upstream: u32,
    }
}

wire! {
    /// What a process has done with the connections of one upstream.
    pub struct BackendProcess, size 48, last comm at 32 {
        /// It first ended its side of one, nanoseconds of CLOCK_MONOTONIC.
        pub first_ns: u64,
        /// It last did.
        pub last_ns: u64,
        /// How many it ended, whichever side began.
        pub connections: u64,
        /// Its parent.
        pub parent_pid: u32,
        /// Zero.
        pub reserved: u32,
        /// Name of its main thread, zero-padded.
        pub comm: [u8; 16],
    }
}

wire! {
    /// Such a process ended.
    pub struct BackendExit, size 48, last comm at 32 {
        /// [`Kind::BackendExit`]
        pub kind: u32,
        /// [`BackendExit::SIZE`]
        pub size: u32,
        /// When, nanoseconds of CLOCK_MONOTONIC.
        pub ns: u64,
        /// The process, as the initial pid namespace numbers it.
        pub pid: u32,
        /// Its parent.
        pub parent_pid: u32,
        /// Its exit code as wait() gives it.
        pub exit_code: u32,
        /// 1 if the kernel had chosen the process to free memory.
        pub out_of_memory: u32,
        /// Name of its main thread, zero-padded.
        pub comm: [u8; 16],
    }
}

impl BackendExit {
    /// Decodes a record from the ring buffer.
    ///
    /// # Errors
    /// If kind, size, process or flag is not one that the programs write.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record = Self::read(bytes)?;
        Kind::BackendExit.check(record.kind, record.size, Self::SIZE)?;
        if record.pid == 0 {
            return Err(DecodeError::Value("pid"));
        }
        if record.out_of_memory > 1 {
            return Err(DecodeError::Value("flag"));
        }
        Ok(record)
    }
}
