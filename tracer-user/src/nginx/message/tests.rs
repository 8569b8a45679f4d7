//! Kinds of real lines, and of lines made from the messages in nginx's source.
//!
//! `errors.log` was written by Debian's nginx 1.22.1 at level info, in front of scripted
//! backends and clients; only paths were changed, and the line with the kernel's release
//! left out. `errors.kinds` holds for each record the kind and the upstream that the
//! script intended, and the script's name for the case.

use super::*;
use crate::nginx::line::{UpstreamPeer, parse, starts_record};

const LOG: &str = include_str!("../../../tests/fixtures/nginx/errors.log");
const KINDS: &str = include_str!("../../../tests/fixtures/nginx/errors.kinds");

/// The log's records, physical lines joined.
fn records() -> Vec<String> {
    let mut records: Vec<String> = Vec::new();
    for line in LOG.split_terminator('\n') {
        match records.last_mut() {
            Some(record) if !starts_record(line.as_bytes()) => {
                record.push('\n');
                record.push_str(line);
            }
            _ => records.push(line.to_owned()),
        }
    }
    records
}

fn upstream_word(line: &LogLine<'_>) -> String {
    match line.upstream_address().map(|address| address.peer) {
        Some(UpstreamPeer::Peer(address)) => address.to_string(),
        Some(UpstreamPeer::Unix(path)) => format!("unix:{path}"),
        Some(UpstreamPeer::Name(name)) => format!("name:{name}"),
        None => "-".to_owned(),
    }
}

#[test]
fn real_lines_have_the_kind_and_upstream_that_the_backend_caused() {
    let records = records();
    let kinds: Vec<&str> = KINDS.lines().collect();
    assert_eq!(records.len(), kinds.len());
    for (record, expected) in records.iter().zip(kinds) {
        let mut columns = expected.split('\t');
        let (kind, upstream) = (columns.next().unwrap(), columns.next().unwrap());
        let line = parse(record).unwrap_or_else(|| panic!("not a record: {record}"));
        let found = classify(&line).map_or("-".to_owned(), |kind| format!("{kind:?}"));
        assert_eq!(found, kind, "{expected}: {record}");
        // `?` marks requests that nginx rejected, with a forged upstream in them.
        if upstream != "?" {
            assert_eq!(upstream_word(&line), upstream, "{expected}: {record}");
        }
    }
}

#[test]
fn real_lines_are_cut_only_where_the_script_made_them_too_long() {
    for (record, case) in records().iter().zip(KINDS.lines()) {
        let line = parse(record).unwrap();
        assert_eq!(
            line.truncated,
            case.contains("\tcut in "),
            "{case}: {record}"
        );
    }
}

fn kind_at(level: &str, message: &str, tail: &str) -> Option<MessageKind> {
    let text = format!(
        "2026/11/22 18:22:06 [{level}] 7#7: *1 {message}, client: 127.0.0.1, server: a, \
         request: \"GET / HTTP/1.1\"{tail}, host: \"h\""
    );
    classify(&parse(&text).unwrap())
}

const HTTP: &str = ", upstream: \"http://127.0.0.1:81/\"";
const HTTPS: &str = ", upstream: \"https://127.0.0.1:81/\"";

#[test]
fn the_level_says_whose_socket_failed() {
    use MessageKind::{ReceiveFailed, SendFailed};
    for (level, message, expected) in [
        (
            "error",
            "recv() failed (104: Connection reset by peer) while sending to client",
            Some(ReceiveFailed),
        ),
        (
            "info",
            "recv() failed (104: Connection reset by peer) while sending to client",
            None,
        ),
        (
            "error",
            "readv() failed (104: Connection reset by peer) while reading upstream",
            Some(ReceiveFailed),
        ),
        (
            "error",
            "writev() failed (32: Broken pipe) while sending request to upstream",
            Some(SendFailed),
        ),
        (
            "error",
            "sendfile() failed (32: Broken pipe) while sending request to upstream",
            Some(SendFailed),
        ),
        (
            "info",
            "writev() failed (32: Broken pipe) while sending to client",
            None,
        ),
        (
            "alert",
            "writev() failed (105: No buffer space available) while sending to client",
            None,
        ),
        (
            "alert",
            "writev() failed (105: No buffer space available) while sending request to upstream",
            Some(SendFailed),
        ),
        (
            "error",
            "send() failed (104: Connection reset by peer) while proxying upgraded connection",
            Some(SendFailed),
        ),
        (
            "info",
            "send() failed (104: Connection reset by peer) while proxying upgraded connection",
            None,
        ),
    ] {
        assert_eq!(kind_at(level, message, HTTP), expected, "{level} {message}");
    }
    assert_eq!(
        kind_at("error", "recv() failed (104: Connection reset by peer)", ""),
        None
    );
}

#[test]
fn responses_given_up_differ_from_oddities() {
    use MessageKind::{Oddity, ResponseRejected};
    for (level, message, expected) in [
        (
            "error",
            "upstream sent duplicate header line: \"Content-Length: 1\", previous value: \"Content-Length: 2\"",
            ResponseRejected,
        ),
        (
            "warn",
            "upstream sent duplicate header line: \"Date: 1\", previous value: \"Date: 2\", ignored",
            Oddity,
        ),
        (
            "error",
            "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
            ResponseRejected,
        ),
        (
            "error",
            "upstream sent unknown \"Transfer-Encoding\": \"gzip\"",
            ResponseRejected,
        ),
        (
            "error",
            "upstream sent HTTP/1.0 response with early hints",
            ResponseRejected,
        ),
        ("info", "upstream sent too big early hints", Oddity),
        ("warn", "upstream sent data after final chunk", Oddity),
        (
            "error",
            "upstream prematurely closed FastCGI request",
            ResponseRejected,
        ),
        (
            "error",
            "upstream prematurely closed stream",
            ResponseRejected,
        ),
        (
            "error",
            "upstream violated stream flow control, received 9 data frame with window 1",
            ResponseRejected,
        ),
        (
            "alert",
            "invalid header after joining FastCGI records",
            ResponseRejected,
        ),
        ("info", "key: \"/k\" was not found by memcached", Oddity),
        ("alert", "setsockopt(SO_KEEPALIVE) failed, ignored", Oddity),
    ] {
        let message = format!("{message} while reading response header from upstream");
        assert_eq!(kind_at(level, &message, HTTP), Some(expected), "{message}");
    }
}

#[test]
fn tls_lines_of_the_client_are_not_the_upstreams() {
    use MessageKind::{TlsReceiveFailed, TlsSendFailed};
    let read = "SSL_read() failed (SSL: error:0A000119:SSL routines::decryption failed or bad record mac) while reading upstream";
    assert_eq!(kind_at("error", read, HTTPS), Some(TlsReceiveFailed));
    assert_eq!(kind_at("crit", read, HTTPS), Some(TlsReceiveFailed));
    assert_eq!(kind_at("crit", read, HTTP), None);
    assert_eq!(kind_at("info", read, HTTPS), None);
    let write = "SSL_write() failed (32: Broken pipe) while sending request to upstream";
    assert_eq!(kind_at("error", write, HTTPS), Some(TlsSendFailed));
    let to_client = "SSL_write() failed (SSL: error:1:x) while sending to client";
    assert_eq!(kind_at("crit", to_client, HTTPS), None);
    let old = "SSL_write() failed (SSL:) (32: Broken pipe) while sending request to upstream";
    assert_eq!(kind_at("error", old, HTTPS), Some(TlsSendFailed));
}

#[test]
fn only_client_aborts_that_close_the_upstream_count() {
    use MessageKind::ClientClosed;
    for (message, expected) in [
        (
            "epoll_wait() reported that client prematurely closed connection, so upstream connection is closed too",
            Some(ClientClosed),
        ),
        (
            "kevent() reported that client prematurely closed connection, so upstream connection is closed too",
            Some(ClientClosed),
        ),
        (
            "client prematurely closed connection, so upstream connection is closed too (104: Connection reset by peer)",
            Some(ClientClosed),
        ),
        // In the body, which nginx hands on as it comes.
        ("client prematurely closed connection", Some(ClientClosed)),
        (
            "recv() failed (104: Connection reset by peer)",
            Some(ClientClosed),
        ),
        (
            "epoll_wait() reported that client prematurely closed connection",
            None,
        ),
        ("client timed out (110: Connection timed out)", None),
        ("client canceled stream 3", None),
    ] {
        let message = format!("{message} while sending request to upstream");
        assert_eq!(kind_at("info", &message, HTTP), expected, "{message}");
    }
    // Before there is an upstream, and after the answer has begun.
    for (message, upstream) in [
        ("client prematurely closed connection", ""),
        (
            "client prematurely closed connection while reading upstream",
            HTTP,
        ),
    ] {
        assert_eq!(kind_at("info", message, upstream), None, "{message}");
    }
}

#[test]
fn resources_and_names_are_the_upstreams_only_in_its_service() {
    use MessageKind::{NotResolved, Oddity, Resources};
    for (level, message, expected) in [
        (
            "alert",
            "256 worker_connections are not enough while connecting to upstream",
            Some(Resources),
        ),
        (
            "warn",
            "256 worker_connections are not enough, reusing connections while connecting to upstream",
            Some(Oddity),
        ),
        ("alert", "256 worker_connections are not enough", None),
        (
            "alert",
            "socket() failed (24: Too many open files) while connecting to upstream",
            Some(Resources),
        ),
        (
            "error",
            "app.test could not be resolved (3: Host not found)",
            Some(NotResolved),
        ),
        (
            "error",
            "invalid port in upstream \"a:99999\"",
            Some(NotResolved),
        ),
        ("error", "no port in upstream \"a\"", Some(NotResolved)),
        ("error", "invalid URL prefix in \"x\"", Some(NotResolved)),
        (
            "error",
            "open() \"/x in upstream \"y\" failed (2: No such file or directory)",
            None,
        ),
        ("error", "directory index of \"/srv/\" is forbidden", None),
        (
            "warn",
            "a client request body is buffered to a temporary file /srv/1",
            None,
        ),
    ] {
        assert_eq!(kind_at(level, message, ""), expected, "{message}");
    }
    let resolver = "2026/11/22 18:22:06 [error] 7#7: connect() failed (111: Connection refused) \
                    while resolving, resolver: 127.0.0.1:53";
    assert_eq!(classify(&parse(resolver).unwrap()), None);
}

#[test]
fn a_failed_call_in_a_cut_line_still_counts() {
    let text = format!(
        "2026/11/22 18:22:06 [error] 7#7: *1 recv() failed (104: Connection reset by peer) while \
         reading response header from upstream, client: 127.0.0.1, server: a, request: \"GET /{}",
        "q".repeat(2000)
    );
    let line = parse(&text[..2047]).unwrap();
    assert!(line.truncated && line.upstream.is_none());
    assert_eq!(classify(&line), Some(MessageKind::ReceiveFailed));
}

#[test]
fn bookkeeping_is_no_incident_and_kinds_name_their_socket() {
    assert!(!MessageKind::PeerDisabled.is_incident());
    assert!(!MessageKind::Oddity.is_incident());
    assert!(MessageKind::NoLiveUpstreams.is_incident());
    for (kind, evidence) in [
        (
            MessageKind::ConnectFailedAtOnce,
            SocketEvidence::ConnectAtOnce,
        ),
        (MessageKind::ConnectFailed, SocketEvidence::FailedCall),
        (MessageKind::PrematureClose, SocketEvidence::FailedCall),
        (MessageKind::TimedOut, SocketEvidence::NextClose),
        (MessageKind::ClientClosed, SocketEvidence::NextClose),
        (
            MessageKind::ResponseRejected,
            SocketEvidence::ParsedThenClose,
        ),
        (MessageKind::NoLiveUpstreams, SocketEvidence::NoSocket),
    ] {
        assert_eq!(kind.socket(), evidence, "{kind:?}");
    }
}
