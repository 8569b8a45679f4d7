//! A printer of lines: what nginx and Angie write for given fields, in each dialect.

use std::fmt::Write as _;

use super::*;
use crate::nginx::message::MessageKind;

/// Whose lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// nginx, OpenResty, Tengine, freenginx, Angie before 1.12.0.
    Nginx,
    /// Angie from 1.12.0 on.
    Angie,
    /// Angie with `format=json`.
    Json,
}

pub(crate) const DIALECTS: [Dialect; 3] = [Dialect::Nginx, Dialect::Angie, Dialect::Json];

/// The fields of one line.
#[derive(Clone, Debug)]
pub(crate) struct Printed {
    pub(crate) level: Level,
    pub(crate) connection: Option<u64>,
    pub(crate) message: String,
    pub(crate) errno: Option<u32>,
    pub(crate) action: Option<&'static str>,
    pub(crate) client: &'static str,
    pub(crate) server: &'static str,
    pub(crate) of: Of,
}

/// What a module adds.
#[derive(Clone, Debug)]
pub(crate) enum Of {
    Http {
        request: String,
        subrequest: Option<String>,
        upstream: Option<String>,
        host: Option<String>,
        referrer: Option<String>,
    },
    Stream {
        udp: bool,
        upstream: Option<String>,
    },
}

impl Printed {
    /// The line as `dialect` has it, without its LF.
    pub(crate) fn print(&self, dialect: Dialect) -> String {
        match dialect {
            Dialect::Json => self.json(),
            Dialect::Nginx | Dialect::Angie => self.text(dialect == Dialect::Angie),
        }
    }

    fn text(&self, angie: bool) -> String {
        let mut text = format!("2026/11/22 18:22:06 [{}] 7#8: ", self.level.word());
        if let Some(connection) = self.connection {
            text += &format!("*{connection} ");
        }
        text += &self.message;
        if let Some(errno) = self.errno {
            text += &format!(" ({errno}: Some error)");
        }
        if let Some(action) = self.action {
            text += &format!(" while {action}");
        }
        let quote = if angie { "\"" } else { "" };
        let (client, server) = (self.client, self.server);
        let udp = matches!(self.of, Of::Stream { udp: true, .. });
        let before = if udp && !angie { "udp " } else { "" };
        text +=
            &format!(", {before}client: {quote}{client}{quote}, server: {quote}{server}{quote}");
        let mut quoted = |name: &str, value: Option<&String>| {
            if let Some(value) = value {
                let _ = write!(text, ", {name}: \"{value}\"");
            }
        };
        match &self.of {
            Of::Http {
                request,
                subrequest,
                upstream,
                host,
                referrer,
            } => {
                quoted(
                    if angie { "request_line" } else { "request" },
                    Some(request),
                );
                quoted("subrequest", subrequest.as_ref());
                quoted("upstream", upstream.as_ref());
                quoted("host", host.as_ref());
                quoted("referrer", referrer.as_ref());
            }
            Of::Stream { udp, upstream } => {
                if angie {
                    let protocol = if *udp { "udp" } else { "tcp" };
                    quoted("protocol", Some(&protocol.to_owned()));
                }
                quoted("upstream", upstream.as_ref());
                text += match (angie, udp) {
                    (false, _) => ", bytes from/to client:1/2, bytes from/to upstream:3/4",
                    (true, false) => ", bytes_from_client: 1, bytes_to_upstream: 4",
                    (true, true) => ", packets_from_client: 1, bytes_from_client: 1",
                };
            }
        }
        text
    }

    fn json(&self) -> String {
        let mut text = format!(
            "{{\"time\":\"2026-11-22T18:22:06.250Z\",\"level\":\"{}\",\"pid\":7,\"tid\":8",
            self.level.word()
        );
        if let Some(connection) = self.connection {
            text += &format!(",\"connection\":{connection}");
        }
        let pair = |name: &str, value: &str| format!(",\"{name}\":\"{}\"", escaped(value));
        text += &pair("message", &self.message);
        if let Some(errno) = self.errno {
            text += &format!(",\"error\":{{\"code\":{errno},\"message\":\"Some error\"}}");
        }
        let some = |name: &str, value: Option<&str>| {
            value.map(|value| pair(name, value)).unwrap_or_default()
        };
        let mut outer = some("action", self.action) + &pair("client", self.client);
        let (module, name, inner) = match &self.of {
            Of::Http {
                request,
                subrequest,
                upstream,
                host,
                referrer,
            } => {
                let inner = pair("server", self.server)
                    + &pair("request_line", request)
                    + &some("subrequest", subrequest.as_deref())
                    + &some("upstream", upstream.as_deref())
                    + &some("host", host.as_deref())
                    + &some("referrer", referrer.as_deref());
                ("http", "request", inner)
            }
            Of::Stream { udp, upstream } => {
                let protocol = if *udp { "udp" } else { "tcp" };
                outer += &pair("server", self.server);
                outer += &pair("protocol", protocol);
                let inner = some("upstream", upstream.as_deref()) + ",\"bytes_from_client\":1";
                ("stream", "session", inner)
            }
        };
        let (outer, inner) = (outer.trim_start_matches(','), inner.trim_start_matches(','));
        text + &format!(",\"{module}\":{{{outer},\"{name}\":{{{inner}}}}}}}")
    }
}

/// As `ngx_sprintf_json` escapes: quotes, backslashes and what is below a blank.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '"' | '\\' => escaped.extend(['\\', character]),
            '\n' => escaped += "\\n",
            '\r' => escaped += "\\r",
            '\t' => escaped += "\\t",
            character if character < ' ' => {
                let _ = write!(escaped, "\\u{:04X}", u32::from(character));
            }
            character => escaped.push(character),
        }
    }
    escaped
}

/// One message of nginx's: level, text (`{}` stands for what others wrote), errno,
/// action, scheme of the upstream (none: it names none; empty: stream), its kind.
pub(crate) type Case = (
    Level,
    &'static str,
    Option<u32>,
    Option<&'static str>,
    Option<&'static str>,
    Option<MessageKind>,
);

const CONNECTING: Option<&str> = Some("connecting to upstream");
const HANDSHAKING: Option<&str> = Some("SSL handshaking to upstream");
const SENDING: Option<&str> = Some("sending request to upstream");
const HEADER: Option<&str> = Some("reading response header from upstream");
const BODY: Option<&str> = Some("reading upstream");
const TO_CLIENT: Option<&str> = Some("sending to client");
const UPGRADED: Option<&str> = Some("proxying upgraded connection");
const FROM_UPSTREAM: Option<&str> = Some("proxying and reading from upstream");
const FROM_CLIENT: Option<&str> = Some("proxying and reading from client");

/// Messages of every kind and of every module.
pub(crate) fn cases() -> Vec<Case> {
    use Level::{Alert, Crit, Error, Info, Warn};
    use MessageKind as Kind;
    vec![
        (
            Error,
            "connect() failed",
            Some(111),
            CONNECTING,
            Some("http"),
            Some(Kind::ConnectFailed),
        ),
        (
            Error,
            "connect() failed",
            Some(113),
            CONNECTING,
            Some("grpc"),
            Some(Kind::ConnectFailed),
        ),
        (
            Error,
            "connect() failed",
            Some(111),
            CONNECTING,
            Some(""),
            Some(Kind::ConnectFailed),
        ),
        (
            Crit,
            "connect() to 10.0.0.1:80 failed",
            Some(99),
            CONNECTING,
            Some("uwsgi"),
            Some(Kind::ConnectFailedAtOnce),
        ),
        (
            Error,
            "upstream timed out",
            Some(110),
            CONNECTING,
            Some("scgi"),
            Some(Kind::TimedOut),
        ),
        (
            Error,
            "upstream timed out",
            Some(110),
            CONNECTING,
            Some(""),
            Some(Kind::TimedOut),
        ),
        (
            Error,
            "upstream timed out",
            Some(110),
            HEADER,
            Some("memcached"),
            Some(Kind::TimedOut),
        ),
        (
            Info,
            "upstream timed out",
            Some(110),
            UPGRADED,
            Some("http"),
            Some(Kind::TimedOut),
        ),
        (
            Info,
            "connection timed out",
            Some(110),
            Some("proxying connection"),
            Some(""),
            Some(Kind::TimedOut),
        ),
        (
            Error,
            "upstream prematurely closed connection",
            None,
            HEADER,
            Some("fastcgi"),
            Some(Kind::PrematureClose),
        ),
        (
            Error,
            "upstream prematurely closed connection",
            None,
            BODY,
            Some("https"),
            Some(Kind::PrematureClose),
        ),
        (
            Error,
            "upstream prematurely closed connection",
            None,
            HEADER,
            Some("memcached"),
            Some(Kind::PrematureClose),
        ),
        (
            Error,
            "recv() failed",
            Some(104),
            HEADER,
            Some("uwsgi"),
            Some(Kind::ReceiveFailed),
        ),
        (
            Error,
            "recv() failed",
            Some(104),
            TO_CLIENT,
            Some("http"),
            Some(Kind::ReceiveFailed),
        ),
        (
            Info,
            "recv() failed",
            Some(104),
            TO_CLIENT,
            Some("http"),
            None,
        ),
        (
            Error,
            "recv() failed",
            Some(104),
            FROM_UPSTREAM,
            Some(""),
            Some(Kind::ReceiveFailed),
        ),
        (
            Info,
            "recv() failed",
            Some(104),
            FROM_CLIENT,
            Some(""),
            None,
        ),
        (
            Error,
            "readv() failed",
            Some(104),
            BODY,
            Some("scgi"),
            Some(Kind::ReceiveFailed),
        ),
        (
            Error,
            "writev() failed",
            Some(32),
            SENDING,
            Some("http"),
            Some(Kind::SendFailed),
        ),
        (
            Error,
            "sendfile() failed",
            Some(32),
            SENDING,
            Some("fastcgi"),
            Some(Kind::SendFailed),
        ),
        (
            Error,
            "send() failed",
            Some(104),
            UPGRADED,
            Some("http"),
            Some(Kind::SendFailed),
        ),
        (
            Info,
            "writev() failed",
            Some(32),
            TO_CLIENT,
            Some("http"),
            None,
        ),
        (
            Error,
            "peer closed connection in SSL handshake",
            Some(104),
            HANDSHAKING,
            Some("https"),
            Some(Kind::PeerClosedInTlsHandshake),
        ),
        (
            Error,
            "SSL_do_handshake() failed (SSL: error:0A00010B:SSL routines::wrong version number)",
            None,
            HANDSHAKING,
            Some("grpcs"),
            Some(Kind::TlsHandshakeFailed),
        ),
        (
            Error,
            "upstream prematurely sent response",
            None,
            HANDSHAKING,
            Some("https"),
            Some(Kind::TlsHandshakeFailed),
        ),
        (
            Error,
            "upstream SSL certificate verify error: (18:self-signed certificate)",
            None,
            HANDSHAKING,
            Some("suwsgi"),
            Some(Kind::TlsCertificate),
        ),
        (
            Error,
            "upstream SSL certificate does not match \"{}\"",
            None,
            HANDSHAKING,
            Some("https"),
            Some(Kind::TlsCertificate),
        ),
        (
            Error,
            "SSL_write() failed",
            Some(32),
            SENDING,
            Some("https"),
            Some(Kind::TlsSendFailed),
        ),
        (
            Error,
            "SSL_read() failed (SSL: error:0A000119:SSL routines::decryption failed or bad record mac)",
            None,
            HEADER,
            Some("https"),
            Some(Kind::TlsReceiveFailed),
        ),
        (
            Error,
            "upstream sent too big header",
            None,
            HEADER,
            Some("http"),
            Some(Kind::ResponseRejected),
        ),
        (
            Error,
            "upstream sent invalid header: \"{}\\x0a...\"",
            None,
            HEADER,
            Some("http"),
            Some(Kind::ResponseRejected),
        ),
        (
            Error,
            "upstream sent invalid status \"{}\"",
            None,
            HEADER,
            Some("scgi"),
            Some(Kind::ResponseRejected),
        ),
        (
            Error,
            "upstream sent duplicate header line: \"Content-Length: {}\", previous value: \"Content-Length: 1\"",
            None,
            HEADER,
            Some("http"),
            Some(Kind::ResponseRejected),
        ),
        (
            Error,
            "upstream prematurely closed FastCGI stdout",
            None,
            HEADER,
            Some("fastcgi"),
            Some(Kind::ResponseRejected),
        ),
        (
            Error,
            "upstream rejected request with error 2",
            None,
            HEADER,
            Some("grpc"),
            Some(Kind::ResponseRejected),
        ),
        (
            Error,
            "upstream sent goaway with error 11",
            None,
            HEADER,
            Some("grpc"),
            Some(Kind::ResponseRejected),
        ),
        (
            Error,
            "upstream violated stream flow control, received 9 data frame with window 1",
            None,
            BODY,
            Some("grpc"),
            Some(Kind::ResponseRejected),
        ),
        (
            Error,
            "memcached sent invalid response: \"{}\"",
            None,
            HEADER,
            Some("memcached"),
            Some(Kind::ResponseRejected),
        ),
        (
            Error,
            "upstream sent no valid HTTP/1.0 header",
            None,
            HEADER,
            Some("http"),
            Some(Kind::NotHttp),
        ),
        (
            Warn,
            "upstream sent more data than specified in \"Content-Length\" header",
            None,
            BODY,
            Some("http"),
            Some(Kind::Oddity),
        ),
        (
            Error,
            "FastCGI sent in stderr: \"{}\"",
            None,
            HEADER,
            Some("fastcgi"),
            Some(Kind::Oddity),
        ),
        (
            Info,
            "key: \"{}\" was not found by memcached",
            None,
            HEADER,
            Some("memcached"),
            Some(Kind::Oddity),
        ),
        (
            Info,
            "epoll_wait() reported that client prematurely closed connection, so upstream connection is closed too",
            None,
            SENDING,
            Some("http"),
            Some(Kind::ClientClosed),
        ),
        (
            Info,
            "client prematurely closed connection, so upstream connection is closed too",
            Some(104),
            SENDING,
            Some("uwsgi"),
            Some(Kind::ClientClosed),
        ),
        (
            Info,
            "shutdown timeout",
            None,
            Some("proxying connection"),
            Some(""),
            Some(Kind::ShutdownTimeout),
        ),
        (
            Error,
            "no live upstreams",
            None,
            CONNECTING,
            Some("http"),
            Some(Kind::NoLiveUpstreams),
        ),
        (
            Error,
            "no live upstreams",
            None,
            CONNECTING,
            Some(""),
            Some(Kind::NoLiveUpstreams),
        ),
        (
            Warn,
            "upstream server temporarily disabled",
            None,
            CONNECTING,
            Some("http"),
            Some(Kind::PeerDisabled),
        ),
        (
            Alert,
            "256 worker_connections are not enough",
            None,
            CONNECTING,
            Some("http"),
            Some(Kind::Resources),
        ),
        (
            Crit,
            "bind(10.0.0.9) failed",
            Some(99),
            CONNECTING,
            Some("http"),
            Some(Kind::Resources),
        ),
        (
            Error,
            "app.test could not be resolved (3: Host not found)",
            None,
            None,
            None,
            Some(Kind::NotResolved),
        ),
        (
            Error,
            "invalid port in upstream \"{}\"",
            None,
            None,
            None,
            Some(Kind::NotResolved),
        ),
        (
            Error,
            "open() \"/srv/client prematurely closed connection, so upstream connection is closed too\" failed",
            Some(2),
            None,
            None,
            None,
        ),
        (
            Error,
            "open() \"/srv/a could not be resolved (3: b)\" failed",
            Some(2),
            None,
            None,
            None,
        ),
        (
            Error,
            "open() \"/srv/9 worker_connections are not enough\" failed",
            Some(2),
            None,
            Some("http"),
            None,
        ),
        (
            Info,
            "client timed out",
            Some(110),
            Some("reading client request line"),
            None,
            None,
        ),
    ]
}
