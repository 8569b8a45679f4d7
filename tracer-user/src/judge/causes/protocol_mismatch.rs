//! `protocol-mismatch`: TLS to a port that speaks plain, or plain to a port that speaks
//! TLS. Requires: in the first case OpenSSL's word that what came is no TLS. In the second
//! an answer that is exactly an alert of TLS (7 bytes, as GnuTLS sends it; nginx passes it
//! on as HTTP/0.9), or an upstream of which every request was the first of its connection
//! and ended at once without an answer, some of them sooner than a backend can have worked
//! on them: servers on OpenSSL (openssl, node, Python) close so. A backend that fails at
//! the first byte of each request does too, so that is likely only. Of one on this host, a
//! single request is enough if its process read just the 5 bytes that begin a record of
//! TLS, and the backend has answered nothing. (nginx as a backend
//! answers 400, which is no error to the nginx before it.)

use super::{Case, Remedy, Verdict, how_it_ended, in_flight, sentences};
use crate::judge::end::{TLS_ALERT, is_tls_alert, refused_at_once};
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence};
use crate::report::words::counted;

/// What OpenSSL says of bytes that are no TLS.
const NO_TLS: [&str; 4] = [
    "wrong version number",
    "http request",
    "packet length too long",
    "record layer failure",
];

/// Of these, what it says of the first bytes of a connection only.
const FIRST_BYTES: [&str; 2] = ["wrong version number", "http request"];

/// What a line and its connection say by themselves.
pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    tls_to_plain(case).or_else(|| answered_by_alert(case))
}

fn tls_to_plain(case: &Case<'_>) -> Option<Verdict> {
    let message = case.line.summary.message.as_str();
    let early = message == "upstream prematurely sent response";
    let said = NO_TLS.iter().find(|reason| message.contains(**reason));
    if case.line.kind != MessageKind::TlsHandshakeFailed || !(early || said.is_some()) {
        return None;
    }
    let what = said.map_or_else(
        || "the backend sent bytes before nginx had begun the handshake".to_owned(),
        |reason| format!("what the backend sent is no TLS (OpenSSL: {reason})"),
    );
    let scheme = match case.line.module {
        "grpc" => ("grpcs://", "grpc://"),
        "uwsgi" => ("suwsgi://", "uwsgi://"),
        _ => ("https://", "http://"),
    };
    let pass = case.directive("pass");
    let at_the_first_bytes = early || said.is_some_and(|reason| FIRST_BYTES.contains(reason));
    Some(Verdict {
        cause: Cause::ProtocolMismatch,
        confidence: if at_the_first_bytes {
            Confidence::Certain
        } else {
            Confidence::Likely
        },
        evidence: vec![what.clone()],
        advice: Some(Remedy {
            text: format!(
                "use {} instead of {} in {pass} (the traffic is then readable on the way), or \
                 name the backend's port for TLS",
                scheme.1, scheme.0
            ),
            because: what,
        }),
    })
}

fn answered_by_alert(case: &Case<'_>) -> Option<Verdict> {
    let parsed = matches!(
        case.line.kind,
        MessageKind::NotHttp | MessageKind::ResponseRejected
    );
    let connection = case.connection()?;
    if !parsed || case.line.tls || !is_tls_alert(connection) {
        return None;
    }
    let exact = case.line.kind == MessageKind::NotHttp && connection.response_bytes == TLS_ALERT;
    let what = format!(
        "the answer to the first request is no response, but has the size of an alert of TLS ({})",
        counted(connection.response_bytes, "byte", "bytes")
    );
    Some(plain_to_tls(
        case,
        if exact {
            Confidence::Certain
        } else {
            Confidence::Likely
        },
        sentences([Some(what.clone()), in_flight(case)]),
        what,
    ))
}

/// What all requests of the upstream say together.
pub(super) fn by_history(case: &Case<'_>) -> Option<Verdict> {
    let header_read = read_a_record_header(case);
    let requests = case.constants.never_answered;
    if requests.is_none() && !header_read {
        return None;
    }
    // One that fails while it is sent may have failed for its size.
    let ended = matches!(
        case.line.kind,
        MessageKind::PrematureClose | MessageKind::ReceiveFailed
    );
    let connection = case.connection()?;
    let first = connection.exchanges == 1
        && connection.response_bytes == 0
        && !connection.first_seen_mid_life;
    let refused = refused_at_once(connection) || header_read && first;
    if !ended || case.line.tls || !refused {
        return None;
    }
    let read = header_read.then(|| {
        "the backend's process read the first 5 bytes of the request, as many as begin a record \
         of TLS, and closed"
            .to_owned()
    });
    let never = requests.map(|requests| {
        format!(
            "no request to {} was ever answered: each of {} ended at once, as the first of its \
             connection",
            case.line.upstream,
            counted(requests, "request", "requests")
        )
    });
    let what = never.clone().or_else(|| read.clone())?;
    Some(plain_to_tls(
        case,
        Confidence::Likely,
        sentences([how_it_ended(case), in_flight(case), read, never]),
        what,
    ))
}

/// Did the backend's process, which never answered anything, read just what tells a server
/// on OpenSSL the length of a record?
fn read_a_record_header(case: &Case<'_>) -> bool {
    case.constants.answered_bytes == 0
        // It did not just read all that there was.
        && case
            .connection()
            .is_some_and(|connection| connection.request_bytes > RECORD_HEADER)
        && case.peer_close().is_some_and(|close| {
            close.exit.is_none()
                && close
                    .received_bytes
                    .checked_sub(u64::from(close.unread_bytes))
                    == Some(RECORD_HEADER)
        })
}

/// Bytes (RFC 8446, 5.1).
const RECORD_HEADER: u64 = 5;

fn plain_to_tls(
    case: &Case<'_>,
    confidence: Confidence,
    evidence: Vec<String>,
    because: String,
) -> Verdict {
    let text = match case.line.module {
        module @ ("proxy" | "grpc" | "uwsgi") => {
            let scheme = match module {
                "grpc" => "grpcs://",
                "uwsgi" => "suwsgi://",
                _ => "https://",
            };
            format!(
                "if the backend speaks TLS on that port (`openssl s_client -connect {}` shows \
                 it), use {scheme} in {}; it costs handshakes, so keep connections alive",
                case.line.upstream,
                case.directive("pass")
            )
        }
        _ => "look whether the backend's port speaks another protocol, such as TLS".to_owned(),
    };
    Verdict {
        cause: Cause::ProtocolMismatch,
        confidence,
        evidence,
        advice: Some(Remedy { text, because }),
    }
}
