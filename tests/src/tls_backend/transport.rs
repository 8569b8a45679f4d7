//! The bytes of one connection of a backend, plain or under TLS. Waiting for them is the
//! backend's: nothing here reads from a socket that has nothing.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;

use rustls::{ProtocolVersion, ServerConnection};

use super::{Tls, Version};

/// A socket and, over TLS, its session.
pub(crate) struct Transport {
    stream: TcpStream,
    session: Option<Box<ServerConnection>>,
    /// What was decrypted and not read yet.
    plain: Vec<u8>,
    /// nginx said farewell.
    ended: bool,
}

impl Transport {
    pub(crate) fn new(stream: TcpStream, tls: Option<&Tls>) -> Result<Self> {
        let session = match tls {
            None => None,
            Some(tls) => {
                let session = ServerConnection::new(tls.config.clone());
                Some(Box::new(session.map_err(Error::other)?))
            }
        };
        Ok(Self {
            stream,
            session,
            plain: Vec::new(),
            ended: false,
        })
    }

    /// The socket.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether there are bytes to [`Transport::peek`] at without the socket.
    pub(crate) fn has_bytes(&self) -> bool {
        !self.plain.is_empty()
    }

    /// Looks at bytes that arrived; none if what arrived was none of the application's.
    /// Zero at their end.
    pub(crate) fn peek(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        if self.session.is_none() {
            return self.stream.peek(buffer).map(Some);
        }
        if self.plain.is_empty() && !self.ended {
            self.step()?;
        }
        let length = self.plain.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.plain[..length]);
        Ok((length > 0 || self.ended).then_some(length))
    }

    /// Reads bytes that arrived; none if what arrived was none of the application's. Zero
    /// at their end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        if self.session.is_none() {
            return self.stream.read(buffer).map(Some);
        }
        let read = self.peek(buffer)?;
        self.plain.drain(..read.unwrap_or(0));
        Ok(read)
    }

    /// Takes bytes that were peeked at.
    pub(crate) fn consume(&mut self, length: usize) -> Result<()> {
        if self.session.is_some() {
            self.plain.drain(..length);
            return Ok(());
        }
        self.stream.read_exact(&mut vec![0; length])
    }

    /// Takes whatever bytes are on the socket, as they are.
    pub(crate) fn discard(&mut self) -> Result<usize> {
        self.stream.read(&mut [0; 64 * 1024])
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(session) = &mut self.session else {
            return self.stream.write_all(bytes);
        };
        // The library takes no more than 64 KiB that are not sent.
        for piece in bytes.chunks(16 * 1024) {
            session.writer().write_all(piece)?;
            send(session, &mut self.stream)?;
        }
        Ok(())
    }

    /// One read from the socket and what the library makes of it. [`ErrorKind::InvalidData`]
    /// if that was a fault: an alert has been sent then, unless it was nginx's.
    pub(crate) fn step(&mut self) -> Result<()> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        if session.read_tls(&mut self.stream)? == 0 {
            self.ended = true;
            return Ok(());
        }
        let state = session.process_new_packets();
        let sent = send(session, &mut self.stream);
        let state = state.map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
        sent?;
        let before = self.plain.len();
        let more = state.plaintext_bytes_to_read();
        self.plain.resize(before + more, 0);
        session.reader().read_exact(&mut self.plain[before..])?;
        self.ended |= state.peer_has_closed();
        Ok(())
    }

    /// Whether nginx's bytes have come to their end.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Whether a handshake is under way.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.is_handshaking())
    }

    /// The version agreed on.
    pub(crate) fn version(&self) -> Option<Version> {
        match self.session.as_ref()?.protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some(Version::Tls12),
            ProtocolVersion::TLSv1_3 => Some(Version::Tls13),
            _ => None,
        }
    }

    /// Sends a close_notify.
    pub(crate) fn farewell(&mut self) -> Result<()> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        session.send_close_notify();
        send(session, &mut self.stream)
    }
}

/// Sends what the library wants sent.
fn send(session: &mut ServerConnection, stream: &mut TcpStream) -> Result<()> {
    while session.wants_write() {
        session.write_tls(stream)?;
    }
    Ok(())
}
