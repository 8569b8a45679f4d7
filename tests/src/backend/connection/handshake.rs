//! The beginning of a connection over TLS.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::time::Instant;

use rustix::event::PollFlags;

use super::{Ending, Server};
use crate::backend::{Ended, Why};
use crate::behaviour::Means;
use crate::clock::{PATIENCE, now_ns};
use crate::tls_backend::{Handshaking, Session};

impl Server<'_> {
    /// Handshakes as told, where the backend speaks TLS.
    pub(super) fn handshake(&mut self) -> Result<(), Ending> {
        let Some(tls) = &self.shared.tls else {
            return Ok(());
        };
        match tls.handshaking {
            Handshaking::Finish => {}
            Handshaking::Stall => return Err(self.until_peer_leaves()),
            Handshaking::EndAfterHello(means) => {
                self.swallow()?;
                return Err(Ending::close(means, Why::InHandshake));
            }
            Handshaking::EndAfterFlight(means) => {
                self.step()?;
                self.swallow()?;
                return Err(Ending::close(means, Why::InHandshake));
            }
        }
        while self.transport.is_handshaking() {
            self.step()?;
        }
        let version = self.transport.version();
        self.record_session(|session| {
            session.done_ns = Some(now_ns());
            session.version = version;
        });
        Ok(())
    }

    /// Takes nginx's next flight without understanding it.
    fn swallow(&mut self) -> Result<(), Ending> {
        let swallowed = self.await_bytes().and_then(|()| self.transport.discard());
        let peer = |error| Ending::peer(&error, Why::PeerInHandshake);
        if swallowed.map_err(peer)? == 0 {
            return Err(Ending::peer(
                &ErrorKind::UnexpectedEof.into(),
                Why::PeerInHandshake,
            ));
        }
        Ok(())
    }

    /// One flight of nginx's, and the answer to it.
    fn step(&mut self) -> Result<(), Ending> {
        match self.await_bytes().and_then(|()| self.transport.step()) {
            Ok(()) if self.transport.ended() => Err(Ending {
                how: Ended::PeerClosed,
                why: Why::PeerInHandshake,
            }),
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                self.record_session(|session| session.failed = Some(error.to_string()));
                Err(Ending::close(Means::Fin, Why::HandshakeFailed))
            }
            Err(error) => Err(Ending::peer(&error, Why::PeerInHandshake)),
        }
    }

    /// Whether a close_notify is to go before the end.
    pub(super) fn says_farewell(&self, how: Ended) -> bool {
        matches!(how, Ended::Closed(Means::Fin | Means::HalfClose))
            && self.shared.tls.as_ref().is_some_and(|tls| tls.farewell)
            && !self.transport.is_handshaking()
    }

    /// Sends the FIN behind an alert and waits until nginx goes. Else what nginx still
    /// sends would be answered by an RST, and whether that came before nginx had read the
    /// alert were a matter of chance.
    pub(super) fn linger(&self) {
        let _ = self.transport.stream().shutdown(Shutdown::Write);
        let _ = self.wait(PollFlags::RDHUP, Some(Instant::now() + PATIENCE));
    }

    fn record_session(&self, change: impl FnOnce(&mut Session)) {
        self.record(|connection| change(connection.tls.get_or_insert_default()));
    }
}
