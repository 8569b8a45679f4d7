//! The events with which a connection ends: what came from the backend, how nginx met it,
//! and the close.

use super::super::words::{counted, signal_name};
use super::{Events, Whose, errno};
use crate::judge::without_calls::{is_end_inferred, is_failure_inferred, is_read_inferred};
use crate::trace::record::{Call, Connection, ConnectionEnd, Exit, IdleEnd, PeerClose};

pub(super) fn ending(list: &mut Events, connection: &Connection) {
    let unacknowledged = |bytes: Option<u32>| match bytes {
        Some(bytes) if bytes > 0 => {
            format!(
                ", {} not yet acknowledged",
                counted(bytes.into(), "byte", "bytes")
            )
        }
        _ => String::new(),
    };
    let fin = format!("FIN received{}", unacknowledged(connection.unacked_at_fin));
    list.add(connection.fin_received_ns, Whose::Backend, fin);
    let rst = format!("RST received{}", unacknowledged(connection.unacked_at_rst));
    // It cannot have come before what it answers.
    let rst_ns = match connection.rst_received_ns {
        Some(_) if connection.reset_answers_request() => connection
            .rst_received_ns
            .max(connection.request_started_ns),
        came => came,
    };
    list.add(rst_ns, Whose::Backend, rst);
    let found = match connection.idle_end {
        Some(IdleEnd::Eof) => "end of stream",
        Some(IdleEnd::Error) => "an error",
        Some(IdleEnd::Bytes) => "bytes that nobody asked for",
        None => "its end",
    };
    let what = format!("looks at the idle connection: {found}");
    list.add(connection.idle_end_seen_ns, Whose::Nginx, what);
    if connection.calls_unseen {
        return;
    }
    if is_end_inferred(connection) {
        // At the latest as it closed; before that, nobody saw when.
        let closed = connection.closed_ns.unwrap_or(connection.ended_ns);
        let met = "must have met the end; the call was not seen";
        list.add(
            Some(connection.line_ns.unwrap_or(closed)),
            Whose::Nginx,
            met,
        );
    }
    let read = connection
        .eof_read_ns
        .filter(|_| !is_read_inferred(connection));
    list.add(read, Whose::Nginx, "reads end of stream");
    let call = match connection.failed_call {
        Some(Call::Send) => "send",
        Some(Call::Receive) => "receive",
        None => "call",
    };
    let why = connection
        .failed_call_errno
        .map_or_else(|| "failed".to_owned(), errno);
    let failed = connection
        .failed_call_ns
        .filter(|_| !is_failure_inferred(connection));
    list.add(failed, Whose::Nginx, format!("{call} fails: {why}"));
}

/// How the backend's process ended its side.
pub(super) fn peer_ended(peer: &PeerClose) -> String {
    let on = peer.host.as_deref();
    let on = on.map_or_else(String::new, |host| format!(" on {host}"));
    let process = format!("process {} ({}){on}", peer.pid, peer.comm);
    let how = match peer.exit {
        None => format!("{process} closes the connection"),
        Some(Exit::Code(code)) => {
            format!("{process} exits with status {code}, which closes the connection")
        }
        Some(Exit::Signal(number)) => format!(
            "{process} was killed by {}, which closes the connection",
            signal_name(number).map_or_else(|| format!("signal {number}"), str::to_owned)
        ),
        Some(Exit::OutOfMemory) => {
            format!("{process} was killed because memory ran out, which closes the connection")
        }
    };
    let unread = match peer.unread_bytes {
        0 => String::new(),
        bytes => format!(" with {} unread", counted(bytes.into(), "byte", "bytes")),
    };
    let queued = if peer.accepted {
        ""
    } else {
        "; nobody had accepted it"
    };
    format!("{how}{unread}{queued}")
}

pub(super) fn closing(list: &mut Events, connection: &Connection) {
    let unread = match connection.unread_at_close {
        Some(bytes) if bytes > 0 => {
            format!(" with {} unread", counted(bytes.into(), "byte", "bytes"))
        }
        _ => String::new(),
    };
    list.add(
        connection.closed_ns,
        Whose::Nginx,
        format!("closes the connection{unread}"),
    );
    let reason = connection
        .rst_sent_reason
        .map_or_else(String::new, |number| {
            format!(", the kernel's reason {number}")
        });
    list.add(
        connection.rst_sent_ns,
        Whose::Kernel,
        format!("RST sent{reason}"),
    );
    match (connection.end, connection.closed_ns) {
        (ConnectionEnd::Open, None) => {
            list.add(
                Some(connection.ended_ns),
                Whose::Kernel,
                "still open when the capture ended",
            );
        }
        (_, None) => {
            let why = connection
                .socket_error
                .map_or_else(String::new, |e| format!(": {}", errno(e)));
            list.add(
                Some(connection.ended_ns),
                Whose::Kernel,
                format!("socket destroyed{why}"),
            );
        }
        _ => {}
    }
}
