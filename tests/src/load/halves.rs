//! What a client does besides asking and reading: switching protocols, as WebSockets do,
//! and doing things by halves.

use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};

use super::{Client, Request};
use crate::http::{Head, head_length};

impl Client {
    /// Sends a request's head and so many bytes of its body.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn send_part(&mut self, request: &Request, body: usize) -> Result<()> {
        let bytes = request.bytes();
        let missing = request.body.saturating_sub(body);
        self.stream
            .write_all(&bytes[..bytes.len() - missing])
            .context("cannot send")
    }

    /// Asks for the protocol `echo` and waits until it is spoken.
    ///
    /// # Errors
    /// If it is refused.
    pub fn upgrade(&mut self, request: &Request) -> Result<()> {
        let mut bytes = request.bytes();
        bytes.truncate(bytes.len() - 2);
        bytes.extend_from_slice(b"Connection: upgrade\r\nUpgrade: echo\r\n\r\n");
        self.stream.write_all(&bytes).context("cannot ask")?;
        let mut bytes = Vec::new();
        while head_length(&bytes)?.is_none() {
            ensure!(self.read(&mut bytes)? > 0, "closed instead of upgraded");
        }
        let line = Head::parse(&bytes)?.first_line;
        ensure!(line.contains(" 101 "), "not upgraded: {line}");
        Ok(())
    }

    /// Sends bytes and waits until they have come back.
    ///
    /// # Errors
    /// If they do not.
    pub fn echo(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("cannot send")?;
        let mut echo = vec![0; bytes.len()];
        self.stream.read_exact(&mut echo).context("no echo")?;
        ensure!(echo == bytes, "another echo");
        Ok(())
    }

    /// Reads to the end, be it a FIN or an RST.
    ///
    /// # Errors
    /// If it does not come in time.
    pub fn drain(&mut self) -> Result<()> {
        let mut bytes = Vec::new();
        while self.read(&mut bytes)? > 0 {
            bytes.clear();
        }
        Ok(())
    }
}
