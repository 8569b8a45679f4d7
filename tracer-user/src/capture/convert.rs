//! From the wire to the trace's records.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tracer_ebpf::Kind;
use tracer_ebpf::accepted::Accepted as WireAccepted;
use tracer_ebpf::backend::{
    BackendExit as WireBackendExit, BackendKey, BackendProcess as WireBackendProcess,
};
use tracer_ebpf::closer::Closer;
use tracer_ebpf::connection::{
    CALL_RECEIVE, CALL_SEND, Connection as Wire, END_CLOSED, END_DESTROYED, FAMILY_IPV4,
};
use tracer_ebpf::continuation::{
    Continuation as WireContinuation, NEXT_CONNECT, NEXT_OTHER_SEND, NEXT_REUSE,
};
use tracer_ebpf::logged::Logged as WireLogged;
use tracer_ebpf::peer::PeerClose as WirePeerClose;
use tracer_ebpf::upstream::UpstreamKey;

use crate::trace::record::{
    Accepted, AcceptedEnd, BackendExit, BackendProcess, Call, Connection, ConnectionEnd,
    Continuation, Exit, IdleEnd, Logged, Next, PeerClose, Record,
};

/// The record of these bytes from the ring buffer, if they are one.
#[must_use]
pub fn record(bytes: &[u8]) -> Option<Record> {
    Some(match Kind::of(bytes).ok()? {
        Kind::Connection => {
            let wire = Wire::decode(bytes).ok()?;
            Record::Connection(Box::new(connection(&wire, 0)))
        }
        Kind::Logged => Record::Logged(logged(&WireLogged::decode(bytes).ok()?)),
        Kind::Continuation => {
            let wire = WireContinuation::decode(bytes).ok()?;
            Record::Continuation(continuation(&wire)?)
        }
        Kind::PeerClose => {
            let wire = WirePeerClose::decode(bytes).ok()?;
            Record::PeerClose(Box::new(peer_close(&wire)))
        }
        Kind::BackendExit => {
            let wire = WireBackendExit::decode(bytes).ok()?;
            Record::BackendExit(backend_exit(&wire))
        }
        // Becomes a line only with what is known of its log.
        Kind::Written => return None,
        Kind::Accepted => {
            let wire = WireAccepted::decode(bytes).ok()?;
            Record::Accepted(Box::new(accepted(&wire, 0)))
        }
    })
}

/// An address of the wire.
#[must_use]
pub fn address(family: u16, bytes: &[u8; 16]) -> IpAddr {
    if family == FAMILY_IPV4 {
        let [a, b, c, d, ..] = *bytes;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        // A socket of family IPv6 may carry an IPv4 address; both ends' logs and
        // configurations write that one as IPv4.
        Ipv6Addr::from(*bytes).to_canonical()
    }
}

const fn happened(ns: u64) -> Option<u64> {
    if ns == 0 { None } else { Some(ns) }
}

const fn known(number: u32) -> Option<u32> {
    if number == 0 { None } else { Some(number) }
}

/// The text before the first zero byte.
fn name(bytes: &[u8; 16]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A connection record. `ended_ns` of a connection that is still open is set by the
/// caller to the time of reading.
#[must_use]
pub fn connection(wire: &Wire, read_ns: u64) -> Connection {
    let end = match wire.end {
        END_CLOSED => ConnectionEnd::Closed,
        END_DESTROYED => ConnectionEnd::Destroyed,
        _ => ConnectionEnd::Open,
    };
    // What the kernel's note of the last send gave, which one sent again has moved.
    let remembered = wire.calls_unseen != 0 || wire.filled_in != 0;
    let moved = remembered && wire.retransmits != 0;
    Connection {
        cookie: wire.cookie,
        netns: wire.netns,
        local: SocketAddr::new(address(wire.family, &wire.local), wire.local_port),
        remote: SocketAddr::new(address(wire.family, &wire.remote), wire.remote_port),
        pid: wire.pid,
        tid: wire.tid,
        comm: name(&wire.comm),
        cgroup: wire.cgroup,
        opened_ns: wire.opened_ns,
        established_ns: happened(wire.established_ns),
        last_sent_ns: happened(wire.last_sent_ns),
        last_received_ns: happened(wire.last_received_ns),
        last_arrival_ns: happened(wire.last_arrival_ns),
        request_started_ns: happened(wire.request_started_ns).filter(|_| !moved),
        first_byte_ns: happened(wire.first_byte_ns),
        fin_received_ns: happened(wire.fin_received_ns),
        rst_received_ns: happened(wire.rst_received_ns),
        rst_sent_ns: happened(wire.rst_sent_ns),
        eof_read_ns: happened(wire.eof_read_ns),
        failed_call_ns: happened(wire.failed_call_ns),
        failed_call: match wire.failed_call {
            CALL_SEND => Some(Call::Send),
            CALL_RECEIVE => Some(Call::Receive),
            _ => None,
        },
        failed_call_errno: known(wire.failed_call_errno),
        idle_end_seen_ns: happened(wire.idle_end_seen_ns),
        idle_end: match wire.idle_end {
            1 => Some(IdleEnd::Eof),
            2 => Some(IdleEnd::Error),
            3 => Some(IdleEnd::Bytes),
            _ => None,
        },
        closed_ns: happened(wire.closed_ns),
        line_ns: happened(wire.line_ns),
        ended_ns: if end == ConnectionEnd::Open {
            read_ns
        } else {
            wire.ended_ns
        },
        end,
        // Of an exchange that was under way when the capture began it is not known.
        idle_before_ns: (wire.exchanges > 1
            && (wire.first_seen_mid_life == 0
                || wire.calls_unseen != 0
                || wire.request_started_ns > wire.opened_ns)
            && !moved)
            .then_some(wire.idle_before_ns),
        sent_bytes: wire.sent_bytes,
        received_bytes: wire.received_bytes,
        request_bytes: wire.request_bytes,
        response_bytes: wire.response_bytes,
        exchanges: wire.exchanges,
        exchanges_at_end: wire.exchanges_at_end,
        awaiting_at_end: wire.awaiting_at_end != 0,
        retransmits: wire.retransmits,
        exchange_retransmits: wire.exchange_retransmits,
        socket_error: known(wire.socket_error),
        unacked_at_fin: happened(wire.fin_received_ns).map(|_| wire.unacked_at_fin),
        unacked_at_rst: happened(wire.rst_received_ns).map(|_| wire.unacked_at_rst),
        unread_at_close: known(wire.unread_at_close),
        unread_at_end: known(wire.unread_at_end),
        // 0 may not have been noted where the socket had an error when nginx closed.
        unacked_at_close: (wire.closed_ns != 0
            && wire.established_ns != 0
            && wire.rst_received_ns == 0
            && (wire.socket_error == 0 || wire.unacked_at_close != 0))
            .then_some(wire.unacked_at_close),
        handshake_ns: happened(wire.handshake_ns),
        rst_sent_reason: known(wire.rst_sent_reason),
        first_seen_mid_life: wire.first_seen_mid_life != 0,
        calls_unseen: wire.calls_unseen != 0,
        order_unknown: wire.order_unknown != 0,
        missed_calls: u32::from(wire.missed_calls),
        filled_in: wire.filled_in != 0,
    }
}

/// An exit code as wait() gives it (`linux/wait.h`: the status in the second byte, or
/// the signal in the low seven bits, above them whether it left a core).
const fn exit(code: u32, out_of_memory: bool) -> Exit {
    match code & 0x7f {
        0 => Exit::Code(code >> 8 & 0xff),
        9 if out_of_memory => Exit::OutOfMemory,
        signal => Exit::Signal(signal),
    }
}

/// How a process ended that was ending when it gave a connection up.
fn exit_of(closer: &Closer) -> Option<Exit> {
    (closer.exiting != 0).then(|| exit(closer.exit_code, closer.out_of_memory != 0))
}

/// The end of a backend's side.
#[must_use]
pub fn peer_close(wire: &WirePeerClose) -> PeerClose {
    PeerClose {
        cookie: wire.cookie,
        netns: wire.netns,
        ns: wire.ns,
        pid: wire.closer.pid,
        parent_pid: wire.closer.parent_pid,
        comm: name(&wire.closer.comm),
        exit: exit_of(&wire.closer),
        unread_bytes: wire.closer.unread_bytes,
        received_bytes: wire.received_bytes,
        accepted: wire.closer.accepted != 0,
        may_be_copy: wire.closer.may_be_copy != 0,
        host: None,
    }
}

/// An accepted connection; `read_ns` is when one that is still open was read.
#[must_use]
pub fn accepted(wire: &WireAccepted, read_ns: u64) -> Accepted {
    let end = match (wire.sent, wire.closed_ns) {
        (0, _) => AcceptedEnd::Open,
        (_, 0) => AcceptedEnd::Broken,
        _ => AcceptedEnd::Closed,
    };
    let open = end == AcceptedEnd::Open;
    let end_of = |bytes: &[u8; 16], port| SocketAddr::new(address(0, bytes), port);
    Accepted {
        cookie: wire.cookie,
        netns: wire.netns,
        local: end_of(&wire.local, wire.local_port),
        remote: end_of(&wire.remote, wire.remote_port),
        established_ns: happened(wire.established_ns),
        fin_received_ns: happened(wire.fin_received_ns),
        rst_received_ns: happened(wire.rst_received_ns),
        rst_sent_ns: happened(wire.rst_sent_ns),
        rst_sent_reason: known(wire.rst_sent_reason),
        closed_ns: happened(wire.closed_ns),
        ended_ns: if open { read_ns } else { wire.ended_ns },
        end,
        socket_error: known(wire.socket_error),
        received_bytes: Some(wire.received_bytes),
        sent_bytes: Some(wire.sent_bytes),
        last_received_ns: happened(wire.last_received_ns),
        last_sent_ns: happened(wire.last_sent_ns),
        unread_bytes: wire.closer.unread_bytes,
        pid: known(wire.closer.pid),
        parent_pid: wire.closer.parent_pid,
        comm: name(&wire.closer.comm),
        exit: exit_of(&wire.closer),
        accepted: wire.closer.accepted != 0,
        may_be_copy: wire.closer.may_be_copy != 0,
        first_seen_mid_life: wire.first_seen_mid_life != 0,
    }
}

/// The end of a backend's process.
#[must_use]
pub fn backend_exit(wire: &WireBackendExit) -> BackendExit {
    BackendExit {
        ns: wire.ns,
        pid: wire.pid,
        parent_pid: wire.parent_pid,
        comm: name(&wire.comm),
        exit: exit(wire.exit_code, wire.out_of_memory != 0),
    }
}

/// What a process has done with the connections of an upstream.
#[must_use]
pub fn backend_process(
    key: &BackendKey,
    wire: &WireBackendProcess,
    upstream: &UpstreamKey,
) -> BackendProcess {
    BackendProcess {
        address: address(upstream.family, &upstream.address),
        port: upstream.port,
        netns: upstream.netns,
        pid: key.pid,
        parent_pid: wire.parent_pid,
        comm: name(&wire.comm),
        first_ns: wire.first_ns,
        last_ns: wire.last_ns,
        connections: wire.connections,
    }
}

/// A sighting of a line.
#[must_use]
pub const fn logged(wire: &WireLogged) -> Logged {
    Logged {
        ns: wire.ns,
        pid: wire.pid,
        tid: wire.tid,
        level: wire.level,
        errno: wire.errno,
        connection: wire.connection,
    }
}

/// A continuation; none while its next step has not come.
#[must_use]
pub fn continuation(wire: &WireContinuation) -> Option<Continuation> {
    let next = match wire.next {
        NEXT_CONNECT => Next::Connect,
        NEXT_REUSE => Next::Reuse,
        NEXT_OTHER_SEND => Next::OtherSend,
        _ => return None,
    };
    Some(Continuation {
        failed_cookie: wire.failed_cookie,
        tid: wire.tid,
        closed_ns: wire.closed_ns,
        next,
        next_cookie: (next != Next::OtherSend).then_some(wire.next_cookie),
        next_ns: wire.next_ns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of the wire that says so much.
    fn wire(set: impl FnOnce(&mut Wire)) -> Wire {
        let mut wire = Wire::ZERO;
        wire.family = FAMILY_IPV4;
        wire.opened_ns = 1;
        wire.established_ns = 2;
        wire.exchanges = 2;
        wire.request_started_ns = 30;
        wire.idle_before_ns = 20;
        wire.closed_ns = 40;
        set(&mut wire);
        wire
    }

    #[test]
    fn a_send_that_was_sent_again_leaves_no_time_where_the_kernel_remembered_it() {
        for (remembered, retransmits, known) in [
            (false, 0, true),
            (false, 3, true),
            (true, 0, true),
            (true, 3, false),
        ] {
            for of_calls in [true, false] {
                let wire = wire(|wire| {
                    wire.retransmits = retransmits;
                    wire.calls_unseen = u8::from(remembered && of_calls);
                    wire.filled_in = u8::from(remembered && !of_calls);
                });
                let connection = connection(&wire, 50);
                let times = (connection.request_started_ns, connection.idle_before_ns);
                let expected = if known {
                    (Some(30), Some(20))
                } else {
                    (None, None)
                };
                assert_eq!(times, expected, "{remembered} {retransmits} {of_calls}");
            }
        }
    }

    #[test]
    fn what_was_not_acknowledged_is_unknown_where_an_error_came_first_and_nothing_was_noted() {
        for (socket_error, noted, expected) in [
            (0, 0, Some(0)),
            (0, 80, Some(80)),
            (110, 80, Some(80)),
            (110, 0, None),
        ] {
            let wire = wire(|wire| {
                wire.socket_error = socket_error;
                wire.unacked_at_close = noted;
            });
            let connection = connection(&wire, 50);
            assert_eq!(
                connection.unacked_at_close, expected,
                "{socket_error} {noted}"
            );
        }
    }

    #[test]
    fn an_exit_code_tells_status_signal_and_lack_of_memory_apart() {
        assert_eq!(exit(3 << 8, false), Exit::Code(3));
        assert_eq!(exit(0, true), Exit::Code(0));
        assert_eq!(exit(9, false), Exit::Signal(9));
        assert_eq!(exit(6 | 0x80, false), Exit::Signal(6));
        assert_eq!(exit(9, true), Exit::OutOfMemory);
    }
}
