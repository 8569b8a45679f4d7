//! A line of nginx's error log as nginx hands it to the kernel: for logs that are no
//! files and so cannot be read by anybody else, a container's stderr or a syslog server.
//! The record is followed by the text itself.

use crate::record::{DecodeError, Kind, wire};

/// Bytes of text that a record carries at most. A line has 2048 bytes at most, 4096 in
/// OpenResty; syslog's header before it fewer than 400.
pub const TEXT: usize = 4608;
/// Logs that can be watched at once.
pub const LOGS: usize = 64;
/// Key of [`Written::inode`] that stands for syslog.
pub const SYSLOG: u64 = 0;

wire! {
    /// One call of write() or send().
    pub struct Written, size 48, last reserved at 44 {
        /// [`Kind::Written`]
        pub kind: u32,
        /// [`Written::SIZE`]
        pub size: u32,
        /// When the call began, nanoseconds of CLOCK_MONOTONIC.
        pub ns: u64,
        /// Inode number of what it wrote to; [`SYSLOG`] for a datagram of syslog's form.
        pub inode: u64,
        /// Process, as the initial pid namespace numbers it.
        pub pid: u32,
        /// Its parent.
        pub parent_pid: u32,
        /// Thread.
        pub tid: u32,
        /// The descriptor.
        pub descriptor: u32,
        /// Bytes that the call was to write; [`TEXT`] of them follow at most.
        pub bytes: u32,
        /// Zero.
        pub reserved: u32,
    }
}

impl Written {
    /// Decodes a record from the ring buffer, and the text after it.
    ///
    /// # Errors
    /// If kind or size is not one that the programs write, or the text is not whole.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let (head, rest) = bytes
            .split_at_checked(Self::SIZE)
            .ok_or(DecodeError::Size {
                expected: Self::SIZE,
                found: bytes.len(),
            })?;
        let record = Self::read(head)?;
        Kind::Written.check(record.kind, record.size, Self::SIZE)?;
        let kept = (record.bytes as usize).min(TEXT);
        let text = rest.get(..kept).ok_or(DecodeError::Value("bytes"))?;
        Ok((record, text))
    }

    /// Is the text cut?
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.bytes as usize > TEXT
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    fn bytes(words: &[u32; 12], text: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend_from_slice(text);
        bytes
    }

    const HEAD: [u32; 12] = [9, 48, 7, 0, 5, 0, 10, 1, 11, 2, 4, 0];

    #[test]
    fn the_text_follows_the_record_and_may_be_padded() {
        // The ring buffer hands out whole words.
        let bytes = bytes(&HEAD, b"line\0\0\0\0");
        let (record, text) = Written::decode(&bytes).unwrap();
        assert_eq!(text, b"line");
        assert_eq!(
            (
                record.ns,
                record.inode,
                record.pid,
                record.tid,
                record.descriptor
            ),
            (7, 5, 10, 11, 2)
        );
        assert!(!record.is_cut());
    }

    #[test]
    fn a_record_without_its_whole_text_is_none() {
        let whole = bytes(&HEAD, b"line");
        for length in 0..whole.len() {
            assert!(Written::decode(&whole[..length]).is_err(), "{length}");
        }
        let mut other = HEAD;
        other[0] = 2;
        assert_eq!(
            Written::decode(&bytes(&other, b"line")),
            Err(DecodeError::Kind(2))
        );
    }

    #[test]
    fn of_a_longer_text_the_front_is_there() {
        let mut head = HEAD;
        head[10] = 5000;
        let bytes = bytes(&head, &[b'x'; TEXT]);
        let (record, text) = Written::decode(&bytes).unwrap();
        assert!(record.is_cut());
        assert_eq!(text.len(), TEXT);
    }
}
