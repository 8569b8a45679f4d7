//! Whether a connection can be the one that a line speaks of: what the line says must
//! show on it, before the line, and nginx must have done nothing with it after the line
//! but close it. The next close alone proves nothing where records were lost.

use std::rc::Rc;

use super::line::UpstreamLine;
use super::socket::Socket;
use super::without_calls::{first_byte_ns, is_end_inferred, off_by_ns, with_end_met};
use crate::nginx::message::{MessageKind, SocketEvidence};
use crate::trace::record::{Connection, Logged};

/// Between nginx's log call and its close() there is no work but the log's own write().
const SOON_NS: u64 = 500_000_000;
/// The same, where the connection's state leaves a doubt.
const AT_ONCE_NS: u64 = 500_000;

/// `proxy_read_timeout` unless it is set, and some more.
pub(super) const PASSES_ON_NS: u64 = 65_000_000_000;

pub(super) const AT_ONCE: &str = "connect() failed before a SYN was sent";

pub(super) const ANOTHERS: &str =
    "the connection that the worker closed after the line is not the line's own";

/// Why a line speaks of no TCP connection that the kernel could have shown.
pub(super) fn no_socket(line: &UpstreamLine) -> Option<&'static str> {
    if line.kind.socket() == SocketEvidence::NoSocket {
        return Some("no connection was involved");
    }
    if line.unix {
        return Some("the upstream is a unix socket, which whoclosed does not watch");
    }
    None
}

/// Is the connection that was closed next the one that the line speaks of?
pub(super) fn fitting(line: &UpstreamLine, logged: &Logged, connection: Rc<Connection>) -> Socket {
    let by_itself = shows_by_itself(line) && !is_end_inferred(&connection);
    if fits(line, logged, &connection, by_itself) {
        return Socket::Found(connection);
    }
    // A failure that is only assumed ties the close to no line.
    if let Some(completed) = with_end_met(&connection)
        && fits(line, logged, &completed, false)
    {
        return Socket::Assumed(completed);
    }
    if line.kind == MessageKind::ConnectFailedAtOnce {
        return Socket::NoneByNature(AT_ONCE);
    }
    Socket::Missing(ANOTHERS)
}

/// `by_itself`: the failure on the connection's own record makes it the line's, also where
/// nginx did something else before it closed.
fn fits(line: &UpstreamLine, logged: &Logged, connection: &Connection, by_itself: bool) -> bool {
    let same_peer = line.peer.is_none_or(|peer| peer == connection.remote);
    same_peer
        && connection.opened_ns <= logged.ns
        // nginx writes no line about a connection that it found ended in its pool.
        && connection.idle_end.is_none()
        && (by_itself
            || closed_at_once(logged.ns, connection)
            || said_goodbye(line, logged.ns, connection))
        && (logged.ns..=logged.ns.saturating_add(closes_within(line))).contains(&connection.ended_ns)
        && (line.tls
            || line.kind == MessageKind::NotHttp
            || untouched_after(logged.ns, connection))
        && shows_failure(line, logged.ns, connection)
}

/// What is no HTTP is passed on until the backend closes, or nginx's timer runs out.
fn closes_within(line: &UpstreamLine) -> u64 {
    if line.kind == MessageKind::NotHttp {
        PASSES_ON_NS
    } else {
        SOON_NS
    }
}

/// The kernel's own word: between this line and the close the thread did nothing on
/// another socket.
fn closed_at_once(ns: u64, connection: &Connection) -> bool {
    connection.line_ns.is_some_and(|line_ns| ns <= line_ns)
}

/// Was the last that was sent on the connection nginx's close_notify, between the line
/// and the close (`ngx_ssl_shutdown`)? It makes the kernel's program forget the line.
fn said_goodbye(line: &UpstreamLine, ns: u64, connection: &Connection) -> bool {
    line.tls
        && connection
            .last_sent_ns
            .is_some_and(|sent| (ns..=connection.ended_ns).contains(&sent))
}

/// Is the failure itself on the connection's record, so that nginx may have sent the
/// client what it still had before it closed (`ngx_event_pipe` goes on after a failed
/// readv() or a bad chunk)? A timer leaves nothing there.
fn shows_by_itself(line: &UpstreamLine) -> bool {
    let in_body = matches!(
        line.summary.action.as_deref(),
        Some("reading upstream" | "sending to client")
    );
    match line.kind {
        MessageKind::PrematureClose
        | MessageKind::ReceiveFailed
        | MessageKind::SendFailed
        | MessageKind::NotHttp => true,
        MessageKind::ResponseRejected => in_body,
        _ => false,
    }
}

/// Over TLS nginx may send a close_notify before it closes.
fn untouched_after(ns: u64, connection: &Connection) -> bool {
    [
        connection.request_started_ns,
        connection.last_sent_ns,
        connection.last_received_ns,
        connection.eof_read_ns,
        connection.failed_call_ns,
    ]
    .into_iter()
    .flatten()
    .all(|event| event <= ns.saturating_add(off_by_ns(connection)))
}

/// Does the connection show, before the line, what the line reports?
fn shows_failure(line: &UpstreamLine, ns: u64, connection: &Connection) -> bool {
    let before = |event: Option<u64>| event.is_some_and(|event| event <= ns);
    let just_read = || {
        connection.last_received_ns.is_some_and(|event| {
            event <= ns.saturating_add(off_by_ns(connection)) && ns.saturating_sub(event) <= SOON_NS
        })
    };
    let same_errno = |seen: Option<u32>| {
        seen.zip(line.summary.errno)
            .is_none_or(|(seen, errno)| seen == errno)
    };
    let at_once = connection.ended_ns.saturating_sub(ns) <= AT_ONCE_NS;
    let action = line.summary.action.as_deref().unwrap_or_default();
    match line.kind {
        MessageKind::PrematureClose if !line.tls => before(connection.eof_read_ns),
        // What OpenSSL makes of it: a read of 0, a failed one, or a close_notify read.
        MessageKind::PrematureClose | MessageKind::PeerClosedInTlsHandshake => {
            before(connection.eof_read_ns) || before(connection.failed_call_ns) || just_read()
        }
        MessageKind::ReceiveFailed | MessageKind::SendFailed => {
            before(connection.failed_call_ns) && same_errno(connection.failed_call_errno)
        }
        MessageKind::TlsSendFailed => before(connection.failed_call_ns),
        // getsockopt(SO_ERROR) took the error: the socket had ended before the line.
        MessageKind::ConnectFailed => {
            (connection.socket_error.is_some() || before(connection.rst_received_ns))
                && same_errno(connection.socket_error)
        }
        MessageKind::ConnectFailedAtOnce => connection.established_ns.is_none(),
        // The line is written when the first bytes have been read.
        MessageKind::NotHttp => connection.first_byte_ns.is_some_and(|event| {
            event <= ns.saturating_add(off_by_ns(connection)) && ns.saturating_sub(event) <= SOON_NS
        }),
        MessageKind::TimedOut | MessageKind::ClientClosed | MessageKind::ShutdownTimeout => {
            connection.eof_read_ns.is_none()
                && connection.failed_call_ns.is_none()
                && (line.has_own_bytes() || at_once || waits(action, connection))
        }
        MessageKind::ResponseRejected | MessageKind::TlsReceiveFailed => {
            first_byte_ns(connection).is_some() && just_read()
        }
        _ => true,
    }
}

/// Does the connection wait for what nginx waited for? A pooled one waits for nothing.
fn waits(action: &str, connection: &Connection) -> bool {
    match action {
        "connecting to upstream" => connection.established_ns.is_none(),
        "sending request to upstream" | "reading response header from upstream" => {
            connection.exchanges > 0 && connection.first_byte_ns.is_none()
        }
        "reading upstream" | "sending to client" => connection.first_byte_ns.is_some(),
        _ => true,
    }
}
