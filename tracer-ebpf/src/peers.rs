//! The backend's end of an upstream connection, where a process of this host has it:
//! found by the addresses when the handshake is done, and noted when that process
//! ends it. No program on send or receive takes part.

use tracer_ebpf::Kind;
use tracer_ebpf::connection::Connection;
use tracer_ebpf::loss;
use tracer_ebpf::peer::{Expected, PeerClose, PeerKey};
use tracer_ebpf::settings;

use crate::kernel::{self, Socket};
use crate::threads::now;
use crate::{SETTINGS, backends, maps};

const ESTABLISHED: i32 = 1;
const SYN_RECV: i32 = 3;
const FIN_WAIT1: i32 = 4;
const CLOSE: i32 = 7;
const CLOSE_WAIT: i32 = 8;
const LAST_ACK: i32 = 9;

/// Loopback addresses mean another host in every network namespace.
#[inline(always)]
fn netns_of(address: &[u8; 16], socket: Socket) -> u32 {
    let address = u128::from_be_bytes(*address);
    let (high, low) = ((address >> 64) as u64, address as u64);
    let loopback = high == 0 && (low == 1 || low >> 24 == 0x00ff_ff7f);
    if loopback { socket.netns() } else { 0 }
}

/// nginx's side is established; on one host that comes before the backend's, which
/// waits for the handshake's last segment.
#[inline(always)]
pub(crate) fn expect(socket: Socket, connection: &Connection) {
    if crate::setting(&SETTINGS, settings::NO_LOCAL_BACKENDS) != 0 {
        return;
    }
    if let Some(key) = key_of_nginx(socket) {
        let expected = Expected {
            cookie: connection.cookie,
            upstream: connection.upstream,
            reserved: 0,
        };
        maps::expect_peer(&key, &expected);
    }
}

/// nginx's side has ended; the addresses may mean another connection from now on.
#[inline(always)]
pub(crate) fn forget(socket: Socket, connection: &Connection) {
    if connection.established_ns != 0
        && let Some(key) = key_of_nginx(socket)
    {
        maps::forget_peer(&key);
    }
}

#[inline(always)]
fn key_of_nginx(socket: Socket) -> Option<PeerKey> {
    let family = socket.tcp_family()?;
    let mut key = PeerKey::ZERO;
    socket.mapped_local_address(family, &mut key.nginx);
    socket.mapped_remote_address(family, &mut key.backend);
    key.nginx_port = socket.local_port();
    key.backend_port = socket.remote_port();
    key.netns = netns_of(&key.backend, socket);
    Some(key)
}

/// `inet_sock_set_state` of a socket that is no upstream connection.
#[inline(always)]
pub(crate) fn state_changed(socket: Socket, from: i32, to: i32) {
    match (from, to) {
        (SYN_RECV, ESTABLISHED) => attach(socket),
        (ESTABLISHED, FIN_WAIT1 | CLOSE) | (CLOSE_WAIT, LAST_ACK | CLOSE) => {
            ended(socket, from, to);
        }
        _ => {}
    }
}

/// The backend's side is established: is it one that is expected?
#[inline(always)]
pub(crate) fn attach(socket: Socket) {
    let backend_port = socket.local_port();
    if !maps::is_backend_port(backend_port) || maps::peer(socket).is_some() {
        return;
    }
    let Some(family) = socket.tcp_family() else {
        return;
    };
    let mut key = PeerKey::ZERO;
    socket.mapped_remote_address(family, &mut key.nginx);
    socket.mapped_local_address(family, &mut key.backend);
    key.nginx_port = socket.remote_port();
    key.backend_port = backend_port;
    key.netns = netns_of(&key.backend, socket);
    let Some(expected) = maps::expected_peer(&key) else {
        return;
    };
    let Some(peer) = maps::new_peer(socket) else {
        maps::lost(loss::PEER_STORAGE);
        return;
    };
    peer.kind = Kind::PeerClose as u32;
    peer.size = PeerClose::SIZE as u32;
    peer.netns = socket.netns();
    peer.cookie = expected.cookie;
    peer.upstream = expected.upstream;
}

/// From ESTABLISHED (nginx's FIN has not come) a socket goes to FIN_WAIT1 only by a
/// call of its owner, from CLOSE_WAIT (it has) likewise to LAST_ACK; to CLOSE either by one (unread bytes, linger of zero, a
/// listener that closes) or, with an error set before, by an RST, a timer or an
/// administrator (tcp_reset, tcp_write_err, tcp_abort): only the first is the
/// owner's, in whose context this runs.
#[inline(always)]
fn ended(socket: Socket, from: i32, to: i32) {
    let Some(peer) = maps::peer(socket) else {
        return;
    };
    if peer.ended != 0 || (to == CLOSE && socket.error() != 0) {
        return;
    }
    peer.ended = 1;
    peer.ns = now();
    kernel::describe_current(&mut peer.closer);
    backends::ended_one(&peer.closer, peer.upstream, peer.ns);
    if from != ESTABLISHED {
        return;
    }
    // Before the socket is taken from its file, and the queue of unread bytes counts
    // by sequence numbers, which its flush leaves as they are.
    peer.closer.unread_bytes = socket.unread();
    peer.received_bytes = socket.received_bytes();
    peer.closer.accepted = u8::from(socket.is_accepted());
    maps::send_peer_close(peer);
}
