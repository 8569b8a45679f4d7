//! A client that speaks HTTP/2 in the clear with prior knowledge (RFC 9113), as far as
//! leaving needs it: requests, the cancelling of one, and the end of the connection.
//! Header fields are sent as literals (RFC 7541, 6.2.2), received ones are not decoded.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Request;
use crate::behaviour::{HEADER, Means};
use crate::clock::PATIENCE;
use crate::http2::{Frame, PREFACE, flag, kind};

/// Error code CANCEL.
const CANCEL: u32 = 8;

/// One connection to an nginx that listens with `http2`.
#[derive(Debug)]
pub struct Http2Client {
    stream: TcpStream,
    next: u32,
}

/// One request on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamId(u32);

/// What came for a request so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The response's head.
    pub head: bool,
    /// Bytes of its body.
    pub body: usize,
    /// It came to its end.
    pub complete: bool,
}

impl Http2Client {
    /// Connects.
    ///
    /// # Errors
    /// If nginx does not accept.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self { stream, next: 1 };
        client.stream.write_all(PREFACE)?;
        client.write(kind::SETTINGS, 0, 0, &[])?;
        Ok(client)
    }

    /// Sends a request without a body.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn send(&mut self, request: &Request) -> Result<StreamId> {
        let mut fields = vec![
            (":method", request.method.to_string()),
            (":scheme", "http".to_owned()),
            (":path", request.target.clone()),
            (":authority", "lab.test".to_owned()),
        ];
        let name = HEADER.to_ascii_lowercase();
        if let Some(behaviour) = request.behaviour {
            fields.push((&name, behaviour.to_string()));
        }
        let mut block = Vec::new();
        for (name, value) in fields {
            // Without indexing, a new name, no Huffman coding.
            block.push(0);
            for text in [name, &value] {
                length(&mut block, text.len());
                block.extend_from_slice(text.as_bytes());
            }
        }
        let stream = self.next;
        self.next += 2;
        let flags = flag::END_STREAM | flag::END_HEADERS;
        self.write(kind::HEADERS, flags, stream, &block)?;
        Ok(StreamId(stream))
    }

    /// Reads until what came for the request satisfies `enough`.
    ///
    /// # Errors
    /// If the connection or the request ends before.
    pub fn receive(
        &mut self,
        stream: StreamId,
        enough: impl Fn(Progress) -> bool,
    ) -> Result<Progress> {
        let mut progress = Progress::default();
        while !enough(progress) {
            let frame = self.read()?;
            match frame.kind {
                kind::SETTINGS if frame.flags & flag::ACK == 0 => {
                    self.write(kind::SETTINGS, flag::ACK, 0, &[])?;
                }
                kind::PING if frame.flags & flag::ACK == 0 => {
                    self.write(kind::PING, flag::ACK, 0, &frame.payload)?;
                }
                _ if frame.stream != stream.0 => {}
                kind::RST_STREAM => bail!("nginx reset the stream: {:?}", frame.payload),
                kind::HEADERS => progress.head = true,
                kind::DATA => progress.body += frame.payload.len(),
                _ => {}
            }
            let ends = matches!(frame.kind, kind::HEADERS | kind::DATA);
            if ends && frame.stream == stream.0 && frame.flags & flag::END_STREAM != 0 {
                progress.complete = true;
                if !enough(progress) {
                    bail!("the response ended with {progress:?}");
                }
            }
        }
        Ok(progress)
    }

    /// Gives up one request: RST_STREAM.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn cancel(&mut self, stream: StreamId) -> Result<()> {
        self.write(kind::RST_STREAM, 0, stream.0, &CANCEL.to_be_bytes())
    }

    /// Leaves, with a FIN or an RST.
    ///
    /// # Errors
    /// If SO_LINGER cannot be set.
    pub fn abort(self, means: Means) -> Result<()> {
        if means.resets() {
            let linger = Some(Duration::ZERO);
            rustix::net::sockopt::set_socket_linger(&self.stream, linger).context("SO_LINGER")?;
        }
        Ok(())
    }

    fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<()> {
        Frame::new(kind, flags, stream, payload).write(&mut self.stream)
    }

    fn read(&mut self) -> Result<Frame> {
        Frame::read(&mut self.stream)
    }
}

/// An integer with a prefix of seven bits (RFC 7541, 5.1), the eighth bit clear.
fn length(block: &mut Vec<u8>, number: usize) {
    const PREFIX: usize = 127;
    let Some(mut rest) = number.checked_sub(PREFIX) else {
        block.extend(u8::try_from(number));
        return;
    };
    block.push(127);
    // Ends: each turn takes seven bits away.
    loop {
        let low = u8::try_from(rest & 127).unwrap_or_default();
        rest >>= 7;
        if rest == 0 {
            block.push(low);
            return;
        }
        block.push(low | 128);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_coded_as_the_standard_shows() {
        for (number, bytes) in [
            (10, vec![10]),
            (126, vec![126]),
            (127, vec![127, 0]),
            (1337, vec![127, 0b1011_1010, 0b0000_1001]),
        ] {
            let mut block = Vec::new();
            length(&mut block, number);
            assert_eq!(block, bytes, "{number}");
        }
    }
}
