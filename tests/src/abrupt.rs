//! A backend that speaks no protocol: it reads the beginning of what comes, keeps on
//! record whose connection that was, and does one thing to it. For nginx's modules whose
//! protocols the lab's own backend does not speak.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::SockRef;

use crate::clock::{PATIENCE, wait_for};

/// What it does to a connection once it has read something.
#[derive(Clone, Debug)]
pub enum Deed {
    /// Closes it with FIN.
    Fin,
    /// Closes it with RST.
    Rst,
    /// Writes this, then closes it with FIN.
    Write(Vec<u8>),
    /// Nothing, until the other side closes it.
    Wait,
}

/// One connection, as this end knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The backend's end.
    pub local: SocketAddr,
    /// nginx's end.
    pub remote: SocketAddr,
    /// Bytes that came before the deed.
    pub read: usize,
}

/// A running backend. Its thread ends with the process.
#[derive(Debug)]
pub struct Abrupt {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Abrupt {
    /// Listens on `address` and does `deed` to every connection.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start(address: SocketAddr, deed: Deed) -> Result<Self> {
        let listener =
            TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let records = Arc::clone(&seen);
        thread::Builder::new()
            .name("abrupt".into())
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    // A connection that failed before it did anything is on no record.
                    let _ = serve(stream, &deed, &records);
                }
            })?;
        Ok(Self { address, seen })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until there was a connection; the only one.
    ///
    /// # Errors
    /// If there was none, or more than one.
    pub fn only(&self) -> Result<Seen> {
        wait_for("a connection", PATIENCE, || {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            match seen.as_slice() {
                [] => Ok(None),
                [only] => Ok(Some(*only)),
                more => anyhow::bail!("{} connections: {more:?}", more.len()),
            }
        })
    }
}

fn serve(mut stream: TcpStream, deed: &Deed, records: &Mutex<Vec<Seen>>) -> Result<()> {
    let read = stream.read(&mut [0; 64 * 1024])?;
    // On record before the deed.
    records
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Seen {
            local: stream.local_addr()?,
            remote: stream.peer_addr()?,
            read,
        });
    match deed {
        Deed::Fin => {}
        Deed::Rst => SockRef::from(&stream).set_linger(Some(Duration::ZERO))?,
        Deed::Write(bytes) => stream.write_all(bytes)?,
        Deed::Wait => while stream.read(&mut [0; 4096])? > 0 {},
    }
    Ok(())
}
