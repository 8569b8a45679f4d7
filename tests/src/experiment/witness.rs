//! A second witness beside the backends: the requests that left on each connection, as
//! they were on the wire.
//!
//! A connection that its backend has closed carries a last request which nobody reads:
//! only the wire tells which one that was. A packet socket sees every segment on every
//! interface of this network namespace (packet(7)); a filter in the kernel leaves those
//! whose payload begins with a request. What is spoken over TLS, FastCGI or unix sockets
//! is not seen.

use std::collections::HashSet;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::clock::PATIENCE;

/// ETH_P_ALL in network byte order: only then outgoing packets are seen too.
const EVERY_PROTOCOL: i32 = 0x0300;
/// What is kept of a packet.
const KEPT: u32 = 4096;
/// Room for packets that are not looked at yet.
const ROOM: usize = 32 << 20;
/// Beginnings of requests.
const METHODS: [&[u8; 4]; 6] = [b"GET ", b"POST", b"HEAD", b"PUT ", b"DELE", b"PATC"];

/// A request on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) target: String,
}

/// Looks on until it is asked.
#[derive(Debug)]
pub(super) struct Witness {
    stop: Arc<AtomicBool>,
    looking: Option<JoinHandle<Result<Vec<Seen>>>>,
}

impl Witness {
    /// Sees every request from now on.
    ///
    /// # Errors
    /// Without the right to see packets (CAP_NET_RAW).
    pub(super) fn start() -> Result<Self> {
        let protocol = Some(Protocol::from(EVERY_PROTOCOL));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, protocol)
            .context("cannot make a packet socket, which needs root")?;
        socket.attach_filter(&requests())?;
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, ROOM)?;
        socket.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let looking = thread::Builder::new().name("witness".into()).spawn({
            let stop = Arc::clone(&stop);
            move || look(socket, &stop)
        })?;
        Ok(Self {
            stop,
            looking: Some(looking),
        })
    }

    /// What was seen, each connection and target once, in the order of the wire.
    ///
    /// # Errors
    /// If packets could not be read.
    pub(super) fn finish(mut self) -> Result<Vec<Seen>> {
        self.stop.store(true, Ordering::Relaxed);
        match self.looking.take().map(JoinHandle::join) {
            Some(Ok(seen)) => seen,
            _ => bail!("the witness panicked"),
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn look(mut socket: Socket, stop: &AtomicBool) -> Result<Vec<Seen>> {
    /// The kernel keeps what comes meanwhile.
    const PAUSE: Duration = Duration::from_millis(10);
    let mut once = HashSet::new();
    let mut seen = Vec::new();
    let mut buffer = vec![0; KEPT as usize];
    let mut ends = None;
    loop {
        // What others on this machine send may never leave the queue empty.
        if ends.is_some_and(|ends| Instant::now() >= ends) {
            return Ok(seen);
        }
        match socket.read(&mut buffer) {
            Ok(length) => {
                if let Some(request) = parse(&buffer[..length])
                    && once.insert(request.clone())
                {
                    seen.push(request);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if ends.is_some() {
                    return Ok(seen);
                }
                if stop.load(Ordering::Relaxed) {
                    ends = Some(Instant::now() + PATIENCE);
                } else {
                    thread::sleep(PAUSE);
                }
            }
            // An interface of a scenario went away.
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::NETDOWN.raw_os_error()) => {}
            Err(error) => return Err(error).context("cannot read packets"),
        }
    }
}

/// One line of a filter in classic BPF.
#[derive(Clone, Copy)]
enum Line {
    Do(u16, u32),
    IfEqual(u32, &'static str),
    Else(&'static str),
    Label(&'static str),
}

/// TCP in IPv4 or in IPv6 without extensions, with a payload that begins with a method.
fn requests() -> Vec<SockFilter> {
    use Line::{Do, Else, IfEqual, Label};
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_BYTE_AT_X: u16 = 0x50;
    const LOAD_WORD_AT_X: u16 = 0x40;
    const LOAD_X: u16 = 0x01;
    const LOAD_X_IPV4_HEADER: u16 = 0xb1;
    const AND: u16 = 0x54;
    const SHIFT_RIGHT: u16 = 0x74;
    const ADD_X: u16 = 0x0c;
    const TO_X: u16 = 0x07;
    const RETURN: u16 = 0x06;
    const TCP: u32 = 6;
    const IPV6_HEADER: u32 = 40;
    let mut lines = vec![
        Do(LOAD_BYTE, 0),
        Do(AND, 0xf0),
        IfEqual(0x40, "ipv4"),
        IfEqual(0x60, "ipv6"),
        Else("drop"),
        Label("ipv4"),
        Do(LOAD_X_IPV4_HEADER, 0),
        Do(LOAD_BYTE, 9),
        IfEqual(TCP, "tcp"),
        Else("drop"),
        Label("ipv6"),
        Do(LOAD_X, IPV6_HEADER),
        Do(LOAD_BYTE, 6),
        IfEqual(TCP, "tcp"),
        Else("drop"),
        // X is where TCP begins; the upper half of its byte 12 is its header's length
        // in words.
        Label("tcp"),
        Do(LOAD_BYTE_AT_X, 12),
        Do(SHIFT_RIGHT, 2),
        Do(AND, 0x3c),
        Do(ADD_X, 0),
        Do(TO_X, 0),
        Do(LOAD_WORD_AT_X, 0),
    ];
    lines.extend(METHODS.map(|method| IfEqual(u32::from_be_bytes(*method), "keep")));
    lines.extend([
        Label("drop"),
        Do(RETURN, 0),
        Label("keep"),
        Do(RETURN, KEPT),
    ]);
    assemble(&lines)
}

fn assemble(lines: &[Line]) -> Vec<SockFilter> {
    const IF_EQUAL: u16 = 0x15;
    const JUMP: u16 = 0x05;
    let mut labels = Vec::new();
    let mut instructions = Vec::new();
    for line in lines {
        match line {
            Line::Label(name) => labels.push((*name, instructions.len())),
            other => instructions.push(*other),
        }
    }
    let ahead = |at: usize, label: &str| {
        let found = labels.iter().find(|(name, _)| *name == label);
        found.map_or(0, |(_, place)| place - at - 1)
    };
    let assembled = instructions
        .iter()
        .enumerate()
        .map(|(at, line)| match line {
            Line::Do(code, k) => SockFilter::new(*code, 0, 0, *k),
            Line::IfEqual(k, label) => {
                let yes = u8::try_from(ahead(at, label)).unwrap_or(0);
                SockFilter::new(IF_EQUAL, yes, 0, *k)
            }
            Line::Else(label) | Line::Label(label) => {
                let all = u32::try_from(ahead(at, label)).unwrap_or(0);
                SockFilter::new(JUMP, 0, 0, all)
            }
        });
    assembled.collect()
}

/// The request at the beginning of an IP packet's payload.
fn parse(packet: &[u8]) -> Option<Seen> {
    let byte = |at: usize| packet.get(at).copied();
    let (tcp_at, from, to): (usize, IpAddr, IpAddr) = match byte(0)? >> 4 {
        4 => {
            let address = |at: usize| -> Option<IpAddr> {
                let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(bytes).into())
            };
            let header = usize::from(byte(0)? & 0xf) * 4;
            (header, address(12)?, address(16)?)
        }
        6 => {
            let address = |at: usize| -> Option<IpAddr> {
                let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(bytes).into())
            };
            (40, address(8)?, address(24)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes([byte(at)?, byte(at + 1)?]));
    let payload_at = tcp_at + usize::from(byte(tcp_at + 12)? >> 4) * 4;
    let payload = packet.get(payload_at..)?;
    if !METHODS.iter().any(|method| payload.starts_with(*method)) {
        return None;
    }
    let mut words = payload.split(|&byte| byte == b' ' || byte == b'\r');
    let target = words.nth(1)?;
    Some(Seen {
        from: (from, port(tcp_at)?).into(),
        to: (to, port(tcp_at + 2)?).into(),
        target: String::from_utf8_lossy(target).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet as captured: `GET /x` from 127.0.0.1:40000 to 127.0.0.2:80.
    fn ipv4(payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0];
        packet.extend([127, 0, 0, 1, 127, 0, 0, 2]);
        packet.extend(40_000_u16.to_be_bytes());
        packet.extend(80_u16.to_be_bytes());
        // Numbers, 8 words of header (12 bytes of options), window and so on.
        packet.extend([0; 8]);
        packet.extend([0x80, 0x18, 0, 0, 0, 0, 0, 0]);
        packet.extend([0; 12]);
        packet.extend(payload);
        packet
    }

    #[test]
    fn a_request_is_read_from_a_packet_of_either_family() {
        let seen = parse(&ipv4(b"GET /x/17 HTTP/1.1\r\n")).unwrap();
        assert_eq!(seen.from, "127.0.0.1:40000".parse().unwrap());
        assert_eq!(seen.to, "127.0.0.2:80".parse().unwrap());
        assert_eq!(seen.target, "/x/17");
        let mut six = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
        six.extend(Ipv6Addr::LOCALHOST.octets());
        six.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        six.extend(&ipv4(b"POST /y HTTP/1.1\r\n")[20..]);
        let seen = parse(&six).unwrap();
        assert_eq!(seen.from, "[::1]:40000".parse().unwrap());
        assert_eq!(seen.to, "[fd00::2]:80".parse().unwrap());
        assert_eq!(seen.target, "/y");
    }

    #[test]
    fn what_begins_with_no_request_is_left_alone_and_so_is_any_stump() {
        assert!(parse(&ipv4(b"HTTP/1.1 200 OK\r\n")).is_none());
        assert!(parse(&ipv4(b"\x16\x03\x01")).is_none());
        let whole = ipv4(b"GET /x/17 HTTP/1.1\r\n");
        for length in 0..whole.len() {
            let _ = parse(&whole[..length]);
        }
    }
}
