//! A backend that speaks gRPC's protocol, HTTP/2 in the clear, as far as ending calls
//! and connections needs it. Header fields that come are not decoded: what it does is
//! told when it is started, not by requests. Its records are the truth.

use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::sockopt::set_socket_linger;

use crate::backend::IPV4;
use crate::behaviour::Means;
use crate::clock::now_ns;
use crate::http2::{Frame, PREFACE, flag, kind};

/// `:status: 200`, entry 8 of the static table (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;
/// Error code NO_ERROR.
const NO_ERROR: u32 = 0;

/// What it does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Answers it, after so many pings.
    Answer {
        /// Each is acknowledged before the next.
        pings: u32,
    },
    /// Ends the connection instead, with nothing of nginx's on its way.
    Close(Means),
    /// Ends it at once: the end may cross nginx's acknowledgement of its settings.
    Vanish,
    /// Says that it will take no more calls, this one among them, and ends the connection.
    GoAway,
    /// Ends it after the head and a part of the answer.
    CloseInAnswer(Means),
    /// Resets the stream with this error code; the connection stays.
    Reset(u32),
    /// Does nothing.
    Stall,
}

/// A call, and what it was going to do with it.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// When the call had come whole.
    pub at_ns: u64,
    /// What was done with it then.
    pub call: Call,
}

/// What one connection did.
#[derive(Clone, Debug)]
pub struct Record {
    /// nginx's end.
    pub nginx: SocketAddr,
    /// Calls that came whole.
    pub calls: u64,
    /// The same, one by one.
    pub done: Vec<Done>,
    /// The backend ended it.
    pub ended_ns: Option<u64>,
}

struct Open {
    record: Record,
    /// None once it has ended it.
    stream: Option<TcpStream>,
}

/// A running backend. Dropping it ends its connections and threads.
pub struct GrpcBackend {
    address: SocketAddr,
    open: Arc<Mutex<Vec<Open>>>,
    stopped: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for GrpcBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrpcBackend")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl GrpcBackend {
    /// Starts it; every connection's calls are treated as `script` says, and those after
    /// its end as its last.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start(script: &[Call]) -> Result<Self> {
        let listener = TcpListener::bind(IPV4).context("cannot listen")?;
        let address = listener.local_addr()?;
        let open = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<[Call]> = script.into();
        let shared = Arc::clone(&open);
        let stopped = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stopped);
        let listening = thread::Builder::new()
            .name(format!("grpc {address}"))
            .spawn(move || {
                for stream in listener.incoming() {
                    let (shared, script) = (Arc::clone(&shared), Arc::clone(&script));
                    let Ok(stream) = stream else { return };
                    if told.load(Ordering::Acquire) {
                        return;
                    }
                    thread::spawn(move || {
                        // It ends as nginx or the script ends it.
                        let _ = serve(stream, &shared, &script);
                    });
                }
            })?;
        Ok(Self {
            address,
            open,
            stopped,
            listening: Some(listening),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its connections, in the order of their coming.
    #[must_use]
    pub fn connections(&self) -> Vec<Record> {
        lock(&self.open)
            .iter()
            .map(|open| open.record.clone())
            .collect()
    }

    /// Ends every connection, as servers do with idle ones: a GOAWAY, or none, and a FIN.
    ///
    /// # Errors
    /// If a connection has gone already.
    pub fn end_all(&self, goodbye: bool) -> Result<()> {
        for open in lock(&self.open).iter_mut() {
            // Its thread has the other descriptor, and learns of the end by it.
            let Some(mut stream) = open.stream.take() else {
                continue;
            };
            if goodbye {
                go_away(&mut stream, open.record.calls)?;
            }
            open.record.ended_ns = Some(now_ns());
            stream.shutdown(Shutdown::Both)?;
        }
        Ok(())
    }
}

impl Drop for GrpcBackend {
    fn drop(&mut self) {
        let _ = self.end_all(false);
        self.stopped.store(true, Ordering::Release);
        // Wakes the thread that listens; without it that would be waited for in vain.
        if TcpStream::connect(self.address).is_ok()
            && let Some(listening) = self.listening.take()
        {
            let _ = listening.join();
        }
    }
}

fn lock(open: &Mutex<Vec<Open>>) -> MutexGuard<'_, Vec<Open>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last stream of so many calls: clients use odd numbers.
fn last_stream(calls: u64) -> u32 {
    u32::try_from(calls * 2).map_or(0, |even| even.saturating_sub(1))
}

fn go_away(stream: &mut TcpStream, calls: u64) -> Result<()> {
    let payload = [last_stream(calls).to_be_bytes(), NO_ERROR.to_be_bytes()].concat();
    Frame::new(kind::GOAWAY, 0, 0, &payload).write(stream)
}

fn serve(mut stream: TcpStream, all: &Mutex<Vec<Open>>, script: &[Call]) -> Result<()> {
    stream.set_nodelay(true)?;
    let record = Record {
        nginx: stream.peer_addr()?,
        calls: 0,
        done: Vec::new(),
        ended_ns: None,
    };
    let index = {
        let mut all = lock(all);
        all.push(Open {
            record,
            stream: Some(stream.try_clone()?),
        });
        all.len() - 1
    };
    let mut preface = [0; 24];
    stream.read_exact(&mut preface)?;
    if preface != PREFACE {
        bail!("no preface of HTTP/2");
    }
    Frame::new(kind::SETTINGS, 0, 0, &[]).write(&mut stream)?;
    let mut at = 0;
    loop {
        let frame = Frame::read(&mut stream)?;
        match frame.kind {
            kind::SETTINGS if frame.flags & flag::ACK == 0 => {
                Frame::new(kind::SETTINGS, flag::ACK, 0, &[]).write(&mut stream)?;
            }
            kind::HEADERS | kind::DATA if frame.flags & flag::END_STREAM != 0 => {
                let call = script.get(at).or(script.last()).copied();
                let call = call.unwrap_or(Call::Stall);
                if let Some(open) = lock(all).get_mut(index) {
                    open.record.calls += 1;
                    open.record.done.push(Done {
                        at_ns: now_ns(),
                        call,
                    });
                }
                at += 1;
                let ends = act(&mut stream, frame.stream, call)?;
                if ends {
                    if let Some(open) = lock(all).get_mut(index) {
                        open.record.ended_ns = Some(now_ns());
                        open.stream = None;
                    }
                    // With the other descriptor of the socket here.
                    return Ok(());
                }
            }
            _ => {}
        }
    }
}

/// Does with a call what it is told to; true: that ends the connection.
fn act(stream: &mut TcpStream, id: u32, call: Call) -> Result<bool> {
    match call {
        Call::Answer { pings } => {
            for number in 0..pings {
                ping(stream, number)?;
            }
            head(stream, id)?;
            Frame::new(kind::DATA, 0, id, &message(16)).write(stream)?;
            let mut trailers = Vec::new();
            field(&mut trailers, "grpc-status", "0");
            let flags = flag::END_STREAM | flag::END_HEADERS;
            Frame::new(kind::HEADERS, flags, id, &trailers).write(stream)?;
            Ok(false)
        }
        Call::Close(means) => close(stream, means),
        Call::Vanish => Ok(true),
        Call::GoAway => {
            // All streams below this one.
            go_away(stream, u64::from(id / 2))?;
            close(stream, Means::Fin)
        }
        Call::CloseInAnswer(means) => {
            head(stream, id)?;
            let half = message(4096);
            Frame::new(kind::DATA, 0, id, &half[..2048]).write(stream)?;
            close(stream, means)
        }
        Call::Reset(code) => {
            Frame::new(kind::RST_STREAM, 0, id, &code.to_be_bytes()).write(stream)?;
            Ok(false)
        }
        Call::Stall => Ok(false),
    }
}

/// Before nginx's settings are acknowledged, and its own acknowledgement is there, an end
/// may leave bytes unread, and so be an RST: they are read first.
fn close(stream: &mut TcpStream, means: Means) -> Result<bool> {
    ping(stream, u32::MAX)?;
    if means.resets() {
        set_socket_linger(&*stream, Some(Duration::ZERO)).context("SO_LINGER")?;
    }
    Ok(true)
}

fn ping(stream: &mut TcpStream, number: u32) -> Result<()> {
    let payload = [0u32.to_be_bytes(), number.to_be_bytes()].concat();
    Frame::new(kind::PING, 0, 0, &payload).write(stream)?;
    loop {
        let frame = Frame::read(stream)?;
        if frame.kind == kind::PING && frame.payload == payload {
            return Ok(());
        }
        if frame.kind == kind::SETTINGS && frame.flags & flag::ACK == 0 {
            Frame::new(kind::SETTINGS, flag::ACK, 0, &[]).write(stream)?;
        }
    }
}

fn head(stream: &mut TcpStream, id: u32) -> Result<()> {
    let mut block = vec![STATUS_200];
    field(&mut block, "content-type", "application/grpc");
    Frame::new(kind::HEADERS, flag::END_HEADERS, id, &block).write(stream)
}

/// A field without indexing and Huffman coding, shorter than 127 bytes both.
fn field(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        block.extend(u8::try_from(text.len()));
        block.extend_from_slice(text.as_bytes());
    }
}

/// gRPC's framing of a message of so many bytes.
fn message(bytes: u16) -> Vec<u8> {
    let mut message = vec![0, 0, 0];
    message.extend_from_slice(&bytes.to_be_bytes());
    message.resize(message.len() + usize::from(bytes), b'x');
    message
}
