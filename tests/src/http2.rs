//! Frames of HTTP/2 (RFC 9113), as far as the lab's client and backend need them.

use std::io::{Read, Write};

use anyhow::{Context, Result};

/// What a client sends first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
}

/// Flags of frames.
pub(crate) mod flag {
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
}

/// One frame.
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.to_vec(),
        }
    }

    pub(crate) fn write(&self, to: &mut impl Write) -> Result<()> {
        let size = u32::try_from(self.payload.len()).context("frame too long")?;
        let mut frame = size.to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[self.kind, self.flags]);
        frame.extend_from_slice(&self.stream.to_be_bytes());
        frame.extend_from_slice(&self.payload);
        to.write_all(&frame).context("cannot send an HTTP/2 frame")
    }

    pub(crate) fn read(from: &mut impl Read) -> Result<Self> {
        let mut head = [0; 9];
        from.read_exact(&mut head)
            .context("no HTTP/2 frame in time")?;
        let [size_high, size_mid, size_low, kind, flags, s0, s1, s2, s3] = head;
        let size = u32::from_be_bytes([0, size_high, size_mid, size_low]);
        let mut payload = vec![0; usize::try_from(size)?];
        from.read_exact(&mut payload)
            .context("HTTP/2 frame cut short")?;
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        Ok(Self {
            kind,
            flags,
            stream,
            payload,
        })
    }
}
