//! The kernel's own table of TCP sockets (`/proc/net/tcp`, `/proc/net/tcp6`): by it
//! the lab knows that a segment has arrived, instead of hoping that it has.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};

/// That of the calling thread's network namespace.
const TABLE: &str = "/proc/thread-self/net/tcp";
const TABLE6: &str = "/proc/thread-self/net/tcp6";

/// State of a socket as the table numbers it (include/net/tcp_states.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(u8);

impl State {
    /// A connect waits for its answer.
    pub const SYN_SENT: Self = Self(2);
    /// Both directions are open.
    pub const ESTABLISHED: Self = Self(1);
    /// The other end's FIN has arrived.
    pub const CLOSE_WAIT: Self = Self(8);
    /// Waits for connections.
    pub const LISTEN: Self = Self(10);
}

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its own end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Its state.
    pub state: State,
    /// Bytes that arrived and are not read yet.
    pub unread: u32,
}

/// The sockets with these ends (own, other), in that order; none where the kernel
/// has none, or no longer. One pass over the table, which takes some milliseconds on
/// a host with a large one, serves them all.
///
/// # Errors
/// If the table cannot be read.
pub fn find(ends: &[(SocketAddr, SocketAddr)]) -> Result<Vec<Option<Socket>>> {
    let mut found = vec![None; ends.len()];
    for (path, ipv4) in [(TABLE, true), (TABLE6, false)] {
        if ends.iter().all(|(local, _)| local.is_ipv4() != ipv4) {
            continue;
        }
        let table = match fs::read_to_string(path) {
            // The kernel was built, or booted, without this family.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            table => table.with_context(|| format!("cannot read {path}"))?,
        };
        for socket in table.lines().filter_map(parse) {
            for (at, end) in ends.iter().enumerate() {
                if *end == (socket.local, socket.remote) {
                    found[at] = Some(socket);
                }
            }
        }
    }
    Ok(found)
}

/// All sockets whose other end is this.
///
/// # Errors
/// If the table cannot be read.
pub fn towards(remote: SocketAddr) -> Result<Vec<Socket>> {
    let path = if remote.is_ipv4() { TABLE } else { TABLE6 };
    let table = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let sockets = table.lines().filter_map(parse);
    Ok(sockets.filter(|socket| socket.remote == remote).collect())
}

/// Whether anybody has an open connection to this.
///
/// # Errors
/// If the table cannot be read.
pub fn is_used(remote: SocketAddr) -> Result<bool> {
    let open = |state| state == State::ESTABLISHED || state == State::CLOSE_WAIT;
    Ok(towards(remote)?.iter().any(|socket| open(socket.state)))
}

/// One line of the table; none for its heading.
fn parse(line: &str) -> Option<Socket> {
    let mut fields = line.split_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let remote = address(fields.next()?)?;
    let state = State(u8::from_str_radix(fields.next()?, 16).ok()?);
    let (_, unread) = fields.next()?.split_once(':')?;
    Some(Socket {
        local,
        remote,
        state,
        unread: u32::from_str_radix(unread, 16).ok()?,
    })
}

/// `0100007F:1F90`: the address as 32-bit words in the machine's own order
/// (net/ipv4/tcp_ipv4.c `get_tcp4_sock`), the port in the usual one.
fn address(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..words.len()).step_by(8) {
        let word = u32::from_str_radix(words.get(at..at + 8)?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let ip = if let Ok(four) = <[u8; 4]>::try_from(bytes.as_slice()) {
        IpAddr::V4(Ipv4Addr::from(four))
    } else {
        IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?))
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::clock::{PATIENCE, wait_for};

    #[cfg(target_endian = "little")]
    #[test]
    fn a_line_of_the_table_gives_both_ends_state_and_unread_bytes() {
        let line = "   3: 0100007F:1F90 0200007F:C350 08 00000000:0000001F 00:00000000 00000000 \
                    0 0 1 1 0 20 4 30 10 -1";
        let socket = parse(line).unwrap();
        assert_eq!(socket.local, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(socket.remote, "127.0.0.2:50000".parse().unwrap());
        assert_eq!(socket.state, State::CLOSE_WAIT);
        assert_eq!(socket.unread, 31);
        let six = address("00000000000000000000000001000000:1F90").unwrap();
        assert_eq!(six, "[::1]:8080".parse().unwrap());
        assert!(parse("  sl  local_address rem_address   st tx_queue rx_queue").is_none());
    }

    #[test]
    fn bytes_and_a_fin_are_seen_to_arrive() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, client_address) = listener.accept().unwrap();
            client.write_all(b"four").unwrap();
            let arrived = wait_for("the bytes", PATIENCE, || {
                let socket = find(&[(server.local_addr()?, client_address)])?[0];
                Ok(socket.filter(|socket| socket.unread == 4))
            });
            assert_eq!(arrived.unwrap().state, State::ESTABLISHED);
            drop(client);
            wait_for("the FIN", PATIENCE, || {
                let socket = find(&[(server.local_addr()?, client_address)])?[0];
                Ok(socket.filter(|socket| socket.state == State::CLOSE_WAIT))
            })
            .unwrap();
        }
    }
}
