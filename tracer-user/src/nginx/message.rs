//! What a record of the error log says: which of nginx's messages about an upstream it
//! is, and on which socket's fate that message rests.
//!
//! A kind gathers messages of one meaning, whatever the protocol (http, fastcgi, uwsgi,
//! scgi, memcached, grpc, stream). Names of functions are nginx's: `ngx_http_upstream_*`
//! stand in src/http/ngx_http_upstream.c, `ngx_ssl_*` in
//! src/event/ngx_event_openssl.c. Who closed and why is not decided here.

use super::line::{Level, LogLine};

#[cfg(test)]
mod tests;

/// A message about an upstream, by meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// `connect() to 127.0.0.1:81 failed (99: ...)`: the call itself failed, and the
    /// message names the peer. `ngx_event_connect_peer` (src/event/ngx_event_connect.c).
    ConnectFailedAtOnce,
    /// `connect() failed (111: ...)`: getsockopt(SO_ERROR) had an error for a connect
    /// in progress, or for a kept-alive connection about to be used again (104, 32).
    /// `ngx_http_upstream_test_connect`, `ngx_stream_proxy_test_connect`.
    ConnectFailed,
    /// `upstream timed out (110: ...)`, in any phase: nginx's own timer, the errno is a
    /// constant. `ngx_http_upstream_next`, `ngx_http_upstream_process_upstream`,
    /// `ngx_http_upstream_process_upgraded` (at info). Also stream's `connection
    /// timed out (110: ...)`.
    TimedOut,
    /// `upstream prematurely closed connection`: recv() or readv() returned 0; over TLS
    /// also after ECONNRESET or close_notify. `ngx_http_upstream_process_header` and
    /// the body's handlers.
    PrematureClose,
    /// `recv() failed`, `readv() failed`: the errno is the upstream socket's.
    /// `ngx_unix_recv`, `ngx_readv_chain`.
    ReceiveFailed,
    /// `writev() failed`, `send() failed`, `sendfile() failed`: the errno is the upstream
    /// socket's. `ngx_writev`, `ngx_unix_send`, `ngx_linux_sendfile`.
    SendFailed,
    /// `peer closed connection in SSL handshake`: end of stream, or ECONNRESET with
    /// ` (104: ...)`, during the handshake. `ngx_ssl_handshake`.
    PeerClosedInTlsHandshake,
    /// `SSL_do_handshake() failed (SSL: ...)`: an alert or bytes that are no TLS.
    /// `ngx_ssl_handshake`. Also `upstream prematurely sent response`: plain text before
    /// the handshake began (1.28.2, 1.29.5 and newer).
    TlsHandshakeFailed,
    /// `upstream SSL certificate verify error: (...)`, `upstream SSL certificate does
    /// not match "..."`: nginx refused the certificate.
    /// `ngx_http_upstream_ssl_handshake`.
    TlsCertificate,
    /// `SSL_write() failed (32: ...)`: writing to the socket failed. `ngx_ssl_write`.
    TlsSendFailed,
    /// `SSL_read() failed (SSL: ...)`: bytes that break the protocol; before 1.21.2 with
    /// OpenSSL 3 also `unexpected eof while reading`. `ngx_ssl_handle_recv`.
    TlsReceiveFailed,
    /// nginx gave the response up for what it said: `upstream sent too big header`,
    /// `upstream sent invalid header: "..."`, duplicate or invalid `Content-Length`,
    /// unknown `Transfer-Encoding`, `upstream sent invalid chunked response`,
    /// `upstream prematurely closed FastCGI stdout` (a record, no event of TCP),
    /// `upstream rejected request with error 2`, `upstream sent goaway with error 2`,
    /// `memcached sent invalid response: "..."` and so on.
    /// `ngx_http_upstream_process_header`, `ngx_http_proxy_process_header` and its
    /// siblings, the modules' input filters.
    ResponseRejected,
    /// `upstream sent no valid HTTP/1.0 header`: passed on as HTTP/0.9, so that it is
    /// a failure only if what came is no response at all, such as an alert of TLS.
    /// `ngx_http_proxy_process_status_line`.
    NotHttp,
    /// Logged, but the attempt goes on: `upstream sent more data than specified in
    /// "Content-Length" header`, whatever ends in `, ignored`, `an upstream response is
    /// buffered to a temporary file ...`, `FastCGI sent in stderr: "..."`, `key: "..."
    /// was not found by memcached`.
    Oddity,
    /// `[epoll_wait() reported that ]client prematurely closed connection, so upstream
    /// connection is closed too`, at info: the client left before the response's header.
    /// `ngx_http_upstream_check_broken_connection`. The short form without `so upstream
    /// ...` closes no upstream and is no such line, unless nginx was reading the request's
    /// body to hand it on (`ngx_http_do_read_client_request_body`, with request buffering
    /// off): then it says `client prematurely closed connection` or, of a reset, `recv()
    /// failed (104: ...)` at info. HTTP/2 and HTTP/3 log none.
    ClientClosed,
    /// `shutdown timeout`, at info: `worker_shutdown_timeout` ran out. Stream and mail
    /// alone write it; requests over http are cut without a line.
    /// `ngx_stream_proxy_process_connection`.
    ShutdownTimeout,
    /// `no live upstreams`: the balancer had no peer to offer.
    /// `ngx_http_upstream_connect`, `ngx_stream_proxy_connect`.
    NoLiveUpstreams,
    /// `upstream server temporarily disabled`, at warn: bookkeeping beside the line that
    /// tells the failure. `ngx_http_upstream_free_round_robin_peer`.
    PeerDisabled,
    /// nginx's host had nothing to connect with: `bind(...) failed`, `socket() failed`,
    /// `worker_connections are not enough`, `setsockopt(...) failed`, file descriptors.
    /// `ngx_event_connect_peer`, `ngx_get_connection` (src/core/ngx_connection.c).
    Resources,
    /// No address to connect to: `... could not be resolved (3: Host not found)`, `no
    /// resolver defined to resolve ...`, `no port in upstream "..."`, `invalid URL prefix
    /// in "..."`. `ngx_http_upstream_resolve_handler`, `ngx_http_upstream_init_request`.
    NotResolved,
}

/// Which socket a message speaks of, from the view of the thread that logs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketEvidence {
    /// The upstream socket on which the thread's last call failed or read the end of the
    /// stream, before the line.
    FailedCall,
    /// The upstream socket that the thread closes next; no call on it precedes the line.
    NextClose,
    /// The upstream socket from which the thread last received bytes and which it closes
    /// after the line.
    ParsedThenClose,
    /// The socket whose connect() just failed; it never had a handshake.
    ConnectAtOnce,
    /// None.
    NoSocket,
}

impl MessageKind {
    /// Does the line report a failed attempt?
    #[must_use]
    pub const fn is_incident(self) -> bool {
        !matches!(self, Self::Oddity | Self::PeerDisabled)
    }

    /// Which socket the line speaks of.
    #[must_use]
    pub const fn socket(self) -> SocketEvidence {
        match self {
            Self::ConnectFailedAtOnce => SocketEvidence::ConnectAtOnce,
            Self::ConnectFailed
            | Self::PrematureClose
            | Self::ReceiveFailed
            | Self::SendFailed
            | Self::PeerClosedInTlsHandshake
            | Self::TlsSendFailed => SocketEvidence::FailedCall,
            Self::TimedOut | Self::ClientClosed | Self::ShutdownTimeout => {
                SocketEvidence::NextClose
            }
            Self::TlsHandshakeFailed
            | Self::TlsCertificate
            | Self::TlsReceiveFailed
            | Self::NotHttp
            | Self::ResponseRejected => SocketEvidence::ParsedThenClose,
            Self::Oddity
            | Self::NoLiveUpstreams
            | Self::PeerDisabled
            | Self::Resources
            | Self::NotResolved => SocketEvidence::NoSocket,
        }
    }
}

/// What the line says of an upstream; `None` if it is about none, i.e. about the client,
/// access rules, files, nginx's own start and stop.
#[must_use]
pub fn classify(line: &LogLine<'_>) -> Option<MessageKind> {
    upstream_text(line).or_else(|| shared_text(line))
}

/// Messages whose text alone says that they are about an upstream.
fn upstream_text(line: &LogLine<'_>) -> Option<MessageKind> {
    let kind = match line.message {
        "upstream timed out" => MessageKind::TimedOut,
        "upstream prematurely closed connection" => MessageKind::PrematureClose,
        "no live upstreams" => MessageKind::NoLiveUpstreams,
        "upstream server temporarily disabled" => MessageKind::PeerDisabled,
        "upstream prematurely sent response" => MessageKind::TlsHandshakeFailed,
        "upstream sent no valid HTTP/1.0 header" => MessageKind::NotHttp,
        "connection upgrade in subrequest"
        | "invalid header after joining FastCGI records"
        | "no connection data found for keepalive http2 connection" => {
            MessageKind::ResponseRejected
        }
        "no upstream configuration" => MessageKind::NotResolved,
        message => return upstream_prefix(message, line),
    };
    Some(kind)
}

/// The same for messages with an argument.
fn upstream_prefix(message: &str, line: &LogLine<'_>) -> Option<MessageKind> {
    const PREFIXES: [(&str, MessageKind); 12] = [
        ("upstream sent ", MessageKind::ResponseRejected),
        ("upstream rejected request", MessageKind::ResponseRejected),
        ("upstream violated ", MessageKind::ResponseRejected),
        (
            "upstream prematurely closed FastCGI ",
            MessageKind::ResponseRejected,
        ),
        (
            "upstream prematurely closed stream",
            MessageKind::ResponseRejected,
        ),
        ("memcached sent invalid ", MessageKind::ResponseRejected),
        ("upstream SSL certificate ", MessageKind::TlsCertificate),
        ("FastCGI sent in stderr: ", MessageKind::Oddity),
        (
            "an upstream response is buffered to a temporary file",
            MessageKind::Oddity,
        ),
        ("key: \"", MessageKind::Oddity),
        ("no resolver defined to resolve ", MessageKind::NotResolved),
        ("invalid URL prefix in \"", MessageKind::NotResolved),
    ];
    let first = message.as_bytes().first();
    let &(prefix, kind) = PREFIXES
        .iter()
        .find(|(prefix, _)| prefix.as_bytes().first() == first && message.starts_with(prefix))?;
    Some(match kind {
        // nginx says at warn or info that it goes on all the same.
        MessageKind::ResponseRejected if line.level >= Level::Warn => MessageKind::Oddity,
        MessageKind::Oddity if prefix == "key: \"" => {
            return message
                .ends_with("\" was not found by memcached")
                .then_some(kind);
        }
        // The resolver serves others too, whose lines name no client.
        MessageKind::NotResolved if line.client.is_none() => return None,
        kind => kind,
    })
}

/// The client left; whole messages, for a client writes the path into others, such as
/// `open() "/srv/..." failed`.
const CLIENT_CLOSED: [&str; 3] = [
    "epoll_wait() reported that client prematurely closed connection, so upstream connection is closed too",
    "kevent() reported that client prematurely closed connection, so upstream connection is closed too",
    "client prematurely closed connection, so upstream connection is closed too",
];

/// Messages that nginx uses for other sockets as well.
fn shared_text(line: &LogLine<'_>) -> Option<MessageKind> {
    let message = line.message;
    if CLIENT_CLOSED.contains(&message) {
        return Some(MessageKind::ClientClosed);
    }
    if line.client.is_some() && (is_unresolved(message) || is_bad_upstream_url(line)) {
        return Some(MessageKind::NotResolved);
    }
    if !concerns_upstream(line) {
        return None;
    }
    match message {
        "connect() failed" => Some(MessageKind::ConnectFailed),
        "connection timed out" => Some(MessageKind::TimedOut),
        "shutdown timeout" => Some(MessageKind::ShutdownTimeout),
        "peer closed connection in SSL handshake" => Some(MessageKind::PeerClosedInTlsHandshake),
        "client prematurely closed connection" | "recv() failed" if is_upload(line) => {
            Some(MessageKind::ClientClosed)
        }
        "recv() failed" | "readv() failed" => {
            is_upstream_socket(line).then_some(MessageKind::ReceiveFailed)
        }
        "writev() failed" | "send() failed" | "sendfile() failed" => {
            is_upstream_socket(line).then_some(MessageKind::SendFailed)
        }
        "socket() failed" | "ioctl(FIONBIO) failed" => Some(MessageKind::Resources),
        _ => shared_prefix(line),
    }
}

/// The same for messages with an argument.
fn shared_prefix(line: &LogLine<'_>) -> Option<MessageKind> {
    let message = line.message;
    if message.starts_with("connect() to ") && message.ends_with(" failed") {
        Some(MessageKind::ConnectFailedAtOnce)
    } else if message.starts_with("SSL_do_handshake() failed") {
        Some(MessageKind::TlsHandshakeFailed)
    } else if message.starts_with("SSL_write() failed") {
        is_upstream_tls(line).then_some(MessageKind::TlsSendFailed)
    } else if message.starts_with("SSL_read() failed") {
        // A FIN without close_notify, before nginx 1.21.2 with OpenSSL 3.
        let kind = if message.contains("unexpected eof while reading") {
            MessageKind::PrematureClose
        } else {
            MessageKind::TlsReceiveFailed
        };
        is_upstream_tls(line).then_some(kind)
    } else if message.starts_with("setsockopt(") || message.starts_with("bind(") {
        let goes_on = message.ends_with(", ignored");
        let kind = if goes_on {
            MessageKind::Oddity
        } else {
            MessageKind::Resources
        };
        (goes_on || message.ends_with(" failed"))
            .then_some(kind)
            .filter(|_| is_upstream_socket(line))
    } else if is_out_of_connections(message) {
        Some(if message.ends_with("reusing connections") {
            MessageKind::Oddity
        } else {
            MessageKind::Resources
        })
    } else {
        message
            .starts_with("the new socket has number ")
            .then_some(MessageKind::Resources)
    }
}

/// `256 worker_connections are not enough`, also with `, reusing connections`.
fn is_out_of_connections(message: &str) -> bool {
    message
        .trim_start_matches(|byte: char| byte.is_ascii_digit())
        .starts_with(" worker_connections are not enough")
}

/// `app.example could not be resolved (3: Host not found)`. A name holds no quote; what
/// does is another message with a path in it.
fn is_unresolved(message: &str) -> bool {
    message
        .strip_suffix(')')
        .and_then(|message| message.split_once(" could not be resolved ("))
        .is_some_and(|(name, _)| !name.contains('"'))
}

/// Was the worker about to do something with an upstream? A TLS handshake with the
/// client and everything before it names neither an upstream nor such an action.
fn concerns_upstream(line: &LogLine<'_>) -> bool {
    line.client.is_some()
        && match line.action {
            Some("SSL handshaking") => false,
            Some(action) if action.contains("upstream") => true,
            // A cut line may have lost the field.
            _ => line.upstream.is_some() || line.truncated,
        }
}

/// Did a call on the upstream's socket fail, not on the client's? Both lines name the
/// upstream. `ngx_connection_error` (src/core/ngx_connection.c) logs ordinary errnos at
/// error for an upstream and at info for a client, odd ones at alert for both; there
/// the action decides as far as it can.
fn is_upstream_socket(line: &LogLine<'_>) -> bool {
    match line.level {
        Level::Error => true,
        Level::Emerg | Level::Alert | Level::Crit => !line
            .action
            .is_some_and(|action| action.ends_with(" client") || action.contains(" client ")),
        Level::Warn | Level::Notice | Level::Info | Level::Debug => false,
    }
}

/// Was the worker reading a client's body to hand it on? Of a client that leaves while
/// nginx waits for the answer, epoll tells, and the line says so.
fn is_upload(line: &LogLine<'_>) -> bool {
    line.level == Level::Info
        && line.upstream.is_some()
        && line.action == Some("sending request to upstream")
}

/// The same for TLS: `ngx_ssl_connection_error` logs what it does not know at crit for
/// both sides, and only an upstream that speaks TLS can have such an error.
fn is_upstream_tls(line: &LogLine<'_>) -> bool {
    is_upstream_socket(line)
        && line
            .upstream_address()
            .is_none_or(|upstream| upstream.is_tls() || upstream.scheme.is_empty())
}

/// `ngx_parse_url`'s complaint about an evaluated `proxy_pass`: `%s in upstream "%V"`.
fn is_bad_upstream_url(line: &LogLine<'_>) -> bool {
    line.level == Level::Error
        && line.message.ends_with('"')
        && line
            .message
            .split_once(" in upstream \"")
            .is_some_and(|(complaint, _)| !complaint.contains('"'))
}
