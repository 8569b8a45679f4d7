//! `path-timeout`: the path between nginx and the backend went silent. Requires: an
//! established connection, and either nginx's timer with a request that was sent again
//! and of which the backend's host had acknowledged nothing, or the kernel's own error
//! on it (ETIMEDOUT; EHOSTUNREACH and ENETUNREACH, reported by a router or by this host).
//! Of a connection on which nothing was ever acknowledged it is likely only: a host whose
//! queue of new connections is full drops the same.

use super::{Case, Remedy, Verdict, sentences};
use crate::judge::case::{errno, words};
use crate::judge::end::unacked_at_close;
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence};
use crate::report::words::counted;
use crate::trace::record::Connection;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let connection = case.connection();
    let silent = connection.filter(|connection| {
        case.line.kind == MessageKind::TimedOut && never_acknowledged(connection)
    });
    let error = kernels_error(case);
    if silent.is_none() && error.is_none() {
        return None;
    }
    let confidence = match connection {
        Some(connection)
            if connection.established_ns.is_some() && was_answered_once(connection) =>
        {
            Confidence::Certain
        }
        _ => Confidence::Likely,
    };
    let sent_again = connection.map(|connection| {
        let waited = connection
            .request_started_ns
            .zip(case.end_ns())
            .map_or_else(String::new, |(started, end)| {
                format!(" in {}", words(end.saturating_sub(started)))
            });
        format!(
            "{} sent again{waited}",
            counted(
                u64::from(connection.exchange_retransmits),
                "segment was",
                "segments were"
            )
        )
    });
    let acknowledged = silent.map(|connection| {
        format!(
            "the backend's host acknowledged none of the {} of the request",
            counted(connection.request_bytes, "byte", "bytes")
        )
    });
    let gave_up = error.map(|errno| {
        let why = match errno {
            errno::ETIMEDOUT => "no acknowledgement came (ETIMEDOUT)",
            errno::ENETUNREACH => "the network became unreachable (ENETUNREACH)",
            _ => "the host became unreachable (EHOSTUNREACH)",
        };
        format!("the kernel gave the connection up: {why}")
    });
    Some(Verdict {
        cause: Cause::PathTimeout,
        confidence,
        evidence: sentences([gave_up, acknowledged, sent_again]),
        advice: Some(Remedy {
            text: "look at the path: a packet filter, NAT or load balancer that forgot the \
                   connection and drops what comes on it, a host or link that is down. If it \
                   forgets idle connections, a shorter keepalive_timeout in the upstream block \
                   (costs: more handshakes) or proxy_socket_keepalive with a short \
                   net.ipv4.tcp_keepalive_time keeps clear of it"
                .to_owned(),
            because: format!("the path to {} went silent", case.line.upstream),
        }),
    })
}

/// Has the backend's host ever acknowledged or sent anything on it?
fn was_answered_once(connection: &Connection) -> bool {
    connection.received_bytes > 0
        || unacked_at_close(connection)
            .is_some_and(|unacked| u64::from(unacked) < connection.sent_bytes)
}

/// Was the last request sent again, and nothing of it acknowledged when nginx closed?
pub(super) fn never_acknowledged(connection: &Connection) -> bool {
    connection.established_ns.is_some()
        && connection.exchange_retransmits > 0
        && connection.request_bytes > 0
        && connection.response_bytes == 0
        && connection
            .unacked_at_close
            .is_some_and(|unacked| u64::from(unacked) >= connection.request_bytes)
}

/// The kernel's own error on an established connection. Over TLS the line hides it.
fn kernels_error(case: &Case<'_>) -> Option<u32> {
    let is_path =
        |errno: &u32| [errno::ETIMEDOUT, errno::ENETUNREACH, errno::EHOSTUNREACH].contains(errno);
    match case.line.kind {
        MessageKind::ReceiveFailed | MessageKind::SendFailed => Some(case.errno()).filter(is_path),
        // Found by getsockopt() on a kept-alive connection.
        MessageKind::ConnectFailed if case.connection()?.established_ns.is_some() => {
            Some(case.errno()).filter(is_path)
        }
        MessageKind::PrematureClose
        | MessageKind::TlsSendFailed
        | MessageKind::TlsReceiveFailed
        | MessageKind::PeerClosedInTlsHandshake => {
            case.connection()?.failed_call_errno.filter(is_path)
        }
        _ => None,
    }
}
