//! Clients of nginx: single connections that a test steers, and many requests at once.

mod halves;
mod http2;

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

pub use http2::{Http2Client, Progress, StreamId};

use crate::behaviour::{Behaviour, HEADER, Means};
use crate::clock::{PATIENCE, now_ns};
use crate::http::{Head, chunks, head_length};

/// A request's method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// nginx may try another connection when it fails.
    Get,
    /// nginx may not, once it was sent.
    Post,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "GET",
            Self::Post => "POST",
        })
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub target: String,
    /// What the backend is to do with it; none: the backend's habit.
    pub behaviour: Option<Behaviour>,
    /// Bytes of body.
    pub body: usize,
}

impl Request {
    /// A GET of this target.
    #[must_use]
    pub fn get(target: impl Into<String>) -> Self {
        Self {
            method: Method::Get,
            target: target.into(),
            behaviour: None,
            body: 0,
        }
    }

    /// A POST to this target with a body of so many bytes.
    #[must_use]
    pub fn post(target: impl Into<String>, body: usize) -> Self {
        Self {
            method: Method::Post,
            target: target.into(),
            behaviour: None,
            body,
        }
    }

    /// The same, telling the backend what to do.
    #[must_use]
    pub fn asking(mut self, behaviour: Behaviour) -> Self {
        self.behaviour = Some(behaviour);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = format!(
            "{} {} HTTP/1.1\r\nHost: lab.test\r\n",
            self.method, self.target
        );
        if let Some(behaviour) = self.behaviour {
            text += &format!("{HEADER}: {behaviour}\r\n");
        }
        if self.body > 0 || self.method == Method::Post {
            text += &format!("Content-Length: {}\r\n", self.body);
        }
        text += "\r\n";
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len() + self.body, b'p');
        bytes
    }
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Bytes of body that came.
    pub body: usize,
    /// The body came to its announced end.
    pub complete: bool,
    /// nginx keeps the connection.
    pub kept: bool,
}

/// One connection to nginx.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    address: SocketAddr,
    local: SocketAddr,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// If nginx does not accept.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let local = stream.local_addr()?;
        Ok(Self {
            stream,
            address,
            local,
        })
    }

    /// The client's own end.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// nginx's end.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.address
    }

    /// Sends a request and waits for nothing.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn send(&mut self, request: &Request) -> Result<()> {
        self.stream
            .write_all(&request.bytes())
            .with_context(|| format!("cannot send {} {}", request.method, request.target))
    }

    /// Reads the response to what was sent.
    ///
    /// # Errors
    /// If not even a whole head comes.
    pub fn receive(&mut self) -> Result<Response> {
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(end) = head_length(&bytes)? {
                break end;
            }
            if self.read(&mut bytes)? == 0 {
                anyhow::bail!("{} closed before a whole response head", self.address);
            }
        };
        let head = Head::parse(&bytes[..head_end])?;
        let status = head
            .first_line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok());
        let status = status.with_context(|| format!("no status in {:?}", head.first_line))?;
        let length = head.content_length()?;
        let (body, complete) = loop {
            let body = &bytes[head_end..];
            if head.chunked() {
                let chunks = chunks(body)?;
                if chunks.complete {
                    break (chunks.payload, true);
                }
            } else if length.is_some_and(|length| body.len() >= length) {
                break (body.len(), true);
            }
            if self.read(&mut bytes)? == 0 {
                let body = &bytes[head_end..];
                let payload = if head.chunked() {
                    chunks(body)?.payload
                } else {
                    body.len()
                };
                break (payload, length.is_none() && !head.chunked());
            }
        };
        Ok(Response {
            status,
            body,
            complete,
            kept: complete && !head.closes(),
        })
    }

    /// Reads until at least so many bytes of the response, its head included, are here.
    ///
    /// # Errors
    /// If it ends before.
    pub fn receive_part(&mut self, bytes: usize) -> Result<()> {
        let mut received = Vec::new();
        while received.len() < bytes {
            if self.read(&mut received)? == 0 {
                anyhow::bail!("{} closed after {} bytes", self.address, received.len());
            }
        }
        Ok(())
    }

    /// Reads the first bytes of whatever comes, which need be no response: nginx passes
    /// on what is no HTTP without a head. Zero at the end.
    ///
    /// # Errors
    /// If nothing comes.
    pub fn receive_anything(&mut self) -> Result<usize> {
        self.read(&mut Vec::new())
    }

    /// Sends a request and reads its response.
    ///
    /// # Errors
    /// As [`Client::send`] and [`Client::receive`].
    pub fn ask(&mut self, request: &Request) -> Result<Response> {
        self.send(request)?;
        self.receive()
    }

    /// Waits until the other end closes, whatever it sends before, and says when it did.
    ///
    /// # Errors
    /// If it does not in time.
    pub fn await_close(mut self, patience: Duration) -> Result<u64> {
        self.stream.set_read_timeout(Some(patience))?;
        let mut bytes = Vec::new();
        while self.read(&mut bytes)? > 0 {}
        Ok(now_ns())
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

    /// Bytes read; 0 at the end, be it a FIN or an RST.
    fn read(&mut self, bytes: &mut Vec<u8>) -> Result<usize> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(read) => {
                    bytes.extend_from_slice(&buffer[..read]);
                    return Ok(read);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(0),
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("no response from {} in time", self.address));
                }
            }
        }
    }
}

/// What became of one of many requests.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// It.
    pub request: Request,
    /// Just before it was sent, CLOCK_MONOTONIC.
    pub sent_ns: u64,
    /// When its response had been read.
    pub finished_ns: u64,
    /// Its response, or why there is none.
    pub response: Result<Response, String>,
}

impl Outcome {
    /// The client got a whole answer of status 200.
    #[must_use]
    pub fn served(&self) -> bool {
        self.response
            .as_ref()
            .is_ok_and(|response| response.status == 200 && response.complete)
    }
}

/// Sends all requests over `concurrency` clients, each on one connection that it
/// keeps as long as nginx does, or on one a request. Outcomes are in the order of
/// the requests.
#[must_use]
pub fn run(
    address: SocketAddr,
    requests: &[Request],
    concurrency: usize,
    reuse: bool,
) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(vec![None; requests.len()]);
    thread::scope(|scope| {
        for _ in 0..concurrency.max(1) {
            scope.spawn(|| {
                let mut client = None;
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(request) = requests.get(at) else {
                        break;
                    };
                    let outcome = one(&mut client, address, request);
                    if !reuse {
                        client = None;
                    }
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(outcome);
                }
            });
        }
    });
    outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .into_iter()
        .flatten()
        .collect()
}

fn one(client: &mut Option<Client>, address: SocketAddr, request: &Request) -> Outcome {
    let sent_ns = now_ns();
    let response = (|| {
        let mut connected = match client.take() {
            Some(connected) => connected,
            None => Client::connect(address)?,
        };
        let response = connected.ask(request)?;
        if response.kept {
            *client = Some(connected);
        }
        anyhow::Ok(response)
    })()
    .map_err(|error| format!("{error:#}"));
    Outcome {
        request: request.clone(),
        sent_ns,
        finished_ns: now_ns(),
        response,
    }
}

#[cfg(test)]
mod tests;
