//! Who gave a connection of a backend's side up, and what was left: a part of the records
//! of both roles, [`crate::peer::PeerClose`] and [`crate::accepted::Accepted`].

use crate::record::{DecodeError, Field, wire};

wire! {
    /// The process that closed a socket, or ended with it open.
    pub struct Closer, size 36, last may_be_copy at 35 {
        /// The process, as the initial pid namespace numbers it.
        pub pid: u32,
        /// Its parent.
        pub parent_pid: u32,
        /// If it was ending: its exit code as wait() gives it.
        pub exit_code: u32,
        /// Bytes from the other side that it had not read.
        pub unread_bytes: u32,
        /// Name of its main thread, zero-padded.
        pub comm: [u8; 16],
        /// 1 if the process was ending, and nobody called close().
        pub exiting: u8,
        /// 1 if the kernel had chosen the process to free memory.
        pub out_of_memory: u8,
        /// 1 if a process had taken the connection from the listener's queue.
        pub accepted: u8,
        /// 1 if the process may have been starting another program, and its parent have closed:
        /// this kernel does not tell.
        pub may_be_copy: u8,
    }
}

impl Closer {
    /// Judges the flags.
    ///
    /// # Errors
    /// If one is not as the programs write it.
    pub(crate) fn check(&self) -> Result<(), DecodeError> {
        let flags = [
            self.exiting,
            self.out_of_memory,
            self.accepted,
            self.may_be_copy,
        ];
        if flags.iter().any(|flag| *flag > 1) {
            return Err(DecodeError::Value("flag"));
        }
        Ok(())
    }
}

impl Field for Closer {
    const ZERO: Self = Self::ZERO;

    #[inline]
    fn take(bytes: &mut &[u8]) -> Self {
        Self {
            pid: Field::take(bytes),
            parent_pid: Field::take(bytes),
            exit_code: Field::take(bytes),
            unread_bytes: Field::take(bytes),
            comm: Field::take(bytes),
            exiting: Field::take(bytes),
            out_of_memory: Field::take(bytes),
            accepted: Field::take(bytes),
            may_be_copy: Field::take(bytes),
        }
    }
}
