//! Whether a connection can be the one that a line speaks of where the line was not seen
//! being written: what the line says must show on it, at the line's time. nginx closes
//! the connection in the same turn of its event loop in which it writes the line, and
//! stamps the line with the second in which that turn began.

use std::net::SocketAddr;

use super::clock::Clock;
use super::closes::CLOSE_WAITS_NS;
use super::end::{ended_before_request, is_tls_alert};
use super::line::{READING_HEADER, UpstreamLine};
use super::timers::ran_out;
use super::without_calls::first_byte_ns;
use crate::nginx::message::MessageKind;
use crate::trace::record::{Call, Connection};

const NS_PER_S: i64 = 1_000_000_000;
const NS_PER_MS: i64 = 1_000_000;

/// A stamp may be later than what it is about by the steps of two clocks.
const EARLY_NS: i64 = 5 * NS_PER_MS;
/// A turn of the event loop lasts no longer, but on a machine that stalls.
const TURN_NS: i64 = 100 * NS_PER_MS;
const LONG_TURN_NS: i64 = NS_PER_S;
const LONGEST_TURN_NS: i64 = 3 * NS_PER_S;
/// The log is read in turns; that it was read to its end is known a little later.
const READ_SLACK_NS: u64 = 50_000_000;
/// Between the line and the close there is nothing to do, but a worker may be made to wait.
const CLOSES_WITHIN_NS: u64 = 500_000_000;
/// The same for what comes before the line.
const CLOSED_WITHIN_NS: u64 = 2_000_000_000;
/// Silence before a close that no timer of nginx's made.
const NO_TIMER_NS: u64 = 50_000_000;

/// What speaks for a pair: nginx writes a line about every connection that ends so.
const ALWAYS_SAID: i32 = 100;
/// nginx writes a line about most that end so.
const OFTEN_SAID: i32 = 40;
/// Against it: what is unusual, what is rare.
const UNUSUAL: i32 = -25;
const RARE: i32 = -60;

/// How the facts of a connection meet a line's kind: when what the line reports happened,
/// and what speaks for or against it.
struct Shown {
    ns: u64,
    weight: i32,
}

/// What speaks for this line being about this connection; none if it cannot be.
pub(super) fn agreement(
    line: &UpstreamLine,
    connection: &Connection,
    clock: &Clock,
) -> Option<i32> {
    if !same_peer(line, connection.remote) || connection.idle_end.is_some() {
        return None;
    }
    let shown = shown(line, connection)?;
    // A failure comes before the line, the close after it.
    let failed_later = shown.ns > line.read_ns && shown.ns != connection.ended_ns;
    if failed_later || connection.ended_ns > line.read_ns.saturating_add(CLOSES_WITHIN_NS) {
        return None;
    }
    let mut weight = shown.weight + in_its_second(line, shown.ns, clock)?;
    if connection.ended_ns > line.read_ns.saturating_add(READ_SLACK_NS) {
        weight += RARE;
    }
    if let Some(since) = line.since_ns {
        let before = since.saturating_sub(connection.ended_ns);
        weight += match before {
            0..=READ_SLACK_NS => 0,
            _ if before < CLOSED_WITHIN_NS => RARE,
            _ => return None,
        };
    }
    Some(weight)
}

/// When a connection that agrees with this line was closed.
pub(super) fn closed_within(line: &UpstreamLine) -> (u64, u64) {
    let since = line.since_ns.unwrap_or(0);
    let earliest = line.read_ns.saturating_sub(CLOSE_WAITS_NS);
    (
        earliest.max(since.saturating_sub(CLOSED_WITHIN_NS)),
        line.read_ns.saturating_add(CLOSES_WITHIN_NS),
    )
}

fn same_peer(line: &UpstreamLine, remote: SocketAddr) -> bool {
    line.peer
        .is_none_or(|peer| peer == SocketAddr::new(remote.ip().to_canonical(), remote.port()))
}

/// What the line's stamp says to a moment; none if it forbids it.
fn in_its_second(line: &UpstreamLine, ns: u64, clock: &Clock) -> Option<i32> {
    let (Some(stamp), Some(wall_ns)) = (line.stamp_s, clock.realtime_ns(ns)) else {
        return Some(0);
    };
    let after = wall_ns - stamp.checked_mul(NS_PER_S)?;
    let late = after - NS_PER_S;
    match () {
        () if after < -NS_PER_S => None,
        () if after < -EARLY_NS => Some(RARE),
        () if late < 0 => Some(0),
        () if late < TURN_NS => Some(UNUSUAL),
        () if late < LONG_TURN_NS => Some(RARE),
        () if late < LONGEST_TURN_NS => Some(2 * RARE),
        () => None,
    }
}

fn shown(line: &UpstreamLine, connection: &Connection) -> Option<Shown> {
    let errno = line.summary.errno;
    let same_errno = |seen: Option<u32>| seen.zip(errno).is_none_or(|(seen, errno)| seen == errno);
    match line.kind {
        MessageKind::PrematureClose if !line.tls => end_of_stream(line, connection),
        MessageKind::PrematureClose | MessageKind::PeerClosedInTlsHandshake => {
            end_over_tls(line, connection)
        }
        MessageKind::ReceiveFailed => failed_call(connection, Call::Receive)
            .filter(|_| same_errno(connection.failed_call_errno)),
        MessageKind::SendFailed => {
            failed_call(connection, Call::Send).filter(|_| same_errno(connection.failed_call_errno))
        }
        MessageKind::TlsSendFailed => failed_call(connection, Call::Send),
        MessageKind::ConnectFailed => {
            connect_failed(connection).filter(|_| same_errno(connection.socket_error))
        }
        MessageKind::ConnectFailedAtOnce => connect_failed_at_once(connection),
        MessageKind::TimedOut => closed_by_nginx(line, connection),
        MessageKind::ClientClosed | MessageKind::ShutdownTimeout => {
            closed_by_nginx(line, connection).map(|shown| Shown {
                weight: shown.weight.min(0),
                ..shown
            })
        }
        MessageKind::ResponseRejected | MessageKind::TlsReceiveFailed => {
            closed_after_reading(line, connection)
        }
        MessageKind::TlsHandshakeFailed | MessageKind::TlsCertificate => {
            closed_in_handshake(line.kind, connection)
        }
        // nginx passes on what is no HTTP: see `Unseen`.
        MessageKind::NotHttp
        | MessageKind::Oddity
        | MessageKind::NoLiveUpstreams
        | MessageKind::PeerDisabled
        | MessageKind::Resources
        | MessageKind::NotResolved => None,
    }
}

/// A read of the end of the stream, in a place that fits what nginx was doing.
fn end_of_stream(line: &UpstreamLine, connection: &Connection) -> Option<Shown> {
    let ns = connection.eof_read_ns?;
    let in_body = in_body(line);
    // Over HTTP/2 what came last may have been answered by an acknowledgement.
    if in_body && connection.first_byte_ns.is_none() && !line.has_own_bytes() {
        return None;
    }
    let weight = match (connection.response_bytes, in_body) {
        // Nothing of an answer: there is always a line.
        (0, _) => ALWAYS_SAID,
        // A part of one, or a whole one that ends with the connection.
        (_, true) => OFTEN_SAID,
        (_, false) => 0,
    };
    Some(Shown { ns, weight })
}

/// OpenSSL makes the same of a read of 0, a failed one and a close_notify read.
fn end_over_tls(line: &UpstreamLine, connection: &Connection) -> Option<Shown> {
    if line.kind == MessageKind::PeerClosedInTlsHandshake && connection.handshake_ns.is_some() {
        return None;
    }
    if let Some(ns) = connection.eof_read_ns.or(connection.failed_call_ns) {
        return Some(Shown {
            ns,
            weight: OFTEN_SAID,
        });
    }
    // A close_notify stands among the bytes.
    let ns = connection.last_received_ns?;
    (connection.ended_ns.saturating_sub(ns) < CLOSED_WITHIN_NS).then_some(Shown {
        ns,
        weight: UNUSUAL,
    })
}

fn failed_call(connection: &Connection, call: Call) -> Option<Shown> {
    if connection.failed_call.is_some_and(|failed| failed != call) {
        return None;
    }
    Some(Shown {
        ns: connection.failed_call_ns?,
        weight: ALWAYS_SAID,
    })
}

/// getsockopt(SO_ERROR) gave an error: of a connect, or of a kept-alive connection that
/// was about to be used.
fn connect_failed(connection: &Connection) -> Option<Shown> {
    let failed = connection.failed_call_ns.is_some() || connection.eof_read_ns.is_some();
    if failed || connection.socket_error.is_none() && connection.rst_received_ns.is_none() {
        return None;
    }
    Some(Shown {
        ns: connection.ended_ns,
        weight: ALWAYS_SAID,
    })
}

/// connect() itself failed: the socket lived for the time of a call.
fn connect_failed_at_once(connection: &Connection) -> Option<Shown> {
    let never = connection.established_ns.is_none() && connection.rst_received_ns.is_none();
    let lived = connection.ended_ns.saturating_sub(connection.opened_ns);
    (never && lived < NO_TIMER_NS).then_some(Shown {
        ns: connection.ended_ns,
        weight: OFTEN_SAID,
    })
}

fn in_body(line: &UpstreamLine) -> bool {
    matches!(
        line.summary.action.as_deref(),
        Some("reading upstream" | "sending to client")
    )
}

/// nginx ended it, by a timer or for its client's sake, while it waited for what the line
/// says.
fn closed_by_nginx(line: &UpstreamLine, connection: &Connection) -> Option<Shown> {
    if connection.eof_read_ns.is_some()
        || connection.failed_call_ns.is_some()
        || connection.socket_error.is_some()
    {
        return None;
    }
    let quiet = connection
        .last_received_ns
        .max(connection.last_sent_ns)
        .unwrap_or(connection.opened_ns);
    let silence = connection.ended_ns.saturating_sub(quiet);
    let established = connection.established_ns.is_some();
    let answered = connection.first_byte_ns.is_some();
    let asked = connection.exchanges > 0;
    let waits = match line.summary.action.as_deref().unwrap_or_default() {
        "connecting to upstream" => !established,
        "SSL handshaking to upstream" => established && connection.handshake_ns.is_none(),
        "sending request to upstream" => asked && (line.has_own_bytes() || !answered),
        READING_HEADER => {
            // Part of a header looks like a whole answer, after which nginx keeps the
            // connection for a while and closes it without a line: but for its silence.
            let ran_out = line.timer_ns.is_some_and(|timer| ran_out(timer, silence));
            asked && (line.has_own_bytes() || !answered || ran_out)
        }
        "reading upstream" | "sending to client" => answered || asked && line.has_own_bytes(),
        _ => established,
    };
    if !waits {
        return None;
    }
    let timer = line.kind == MessageKind::TimedOut;
    let in_header = line.summary.action.as_deref() == Some(READING_HEADER);
    let weight = match () {
        () if timer && silence < NO_TIMER_NS => RARE,
        () if line.has_own_bytes() && !answered => OFTEN_SAID,
        () if line.has_own_bytes() => 0,
        () if in_header && answered => UNUSUAL,
        () if line.timer_ns.is_some_and(|timer| !ran_out(timer, silence)) => RARE,
        // Closed without an answer: a timer's doing, a client's or a shutdown's.
        () if !answered => OFTEN_SAID,
        () => 0,
    };
    Some(Shown {
        ns: connection.ended_ns,
        weight,
    })
}

fn is_goaway(line: &UpstreamLine) -> bool {
    let message = line.summary.message.as_str();
    message.starts_with("upstream sent goaway ")
}

/// nginx read something that it refused, and closed.
fn closed_after_reading(line: &UpstreamLine, connection: &Connection) -> Option<Shown> {
    let ns = connection.last_received_ns?;
    first_byte_ns(connection)?;
    let at_once = connection.ended_ns.saturating_sub(ns) < CLOSED_WITHIN_NS;
    // A GOAWAY that came while the connection was idle is read after the next request.
    let late = ended_before_request(connection) && !is_goaway(line);
    if !at_once || late || connection.failed_call_ns.is_some() {
        return None;
    }
    // More of it was there, or was still to come: nginx had not finished with it.
    let more = connection.unread_at_close.is_some_and(|bytes| bytes > 0)
        || connection.rst_sent_ns.is_some();
    let weight = match () {
        () if connection.eof_read_ns.is_some() => RARE,
        () if more => OFTEN_SAID,
        () => 0,
    };
    Some(Shown { ns, weight })
}

/// nginx gave a handshake up, or a certificate right after it.
fn closed_in_handshake(kind: MessageKind, connection: &Connection) -> Option<Shown> {
    connection.established_ns?;
    if kind == MessageKind::TlsHandshakeFailed && connection.handshake_ns.is_some() {
        return None;
    }
    if connection.exchanges > HANDSHAKE_FLIGHTS {
        return None;
    }
    let ns = connection
        .last_received_ns
        .max(connection.last_sent_ns)
        .unwrap_or(connection.opened_ns);
    (connection.ended_ns.saturating_sub(ns) < CLOSED_WITHIN_NS).then_some(Shown {
        ns: connection.ended_ns,
        weight: 0,
    })
}

/// Exchanges that a handshake makes where it is not told from requests, and a request.
const HANDSHAKE_FLIGHTS: u32 = 4;

/// Is this the connection whose bytes, an alert of TLS, nginx took for no HTTP and passed
/// on? Tells how far its first byte is from the line's second.
pub(super) fn alert_agrees(
    line: &UpstreamLine,
    connection: &Connection,
    clock: &Clock,
) -> Option<i32> {
    let first = connection.first_byte_ns?;
    (same_peer(line, connection.remote)
        && connection.idle_end.is_none()
        && first <= line.read_ns
        && is_tls_alert(connection))
    .then_some(in_its_second(line, first, clock)?)
}
