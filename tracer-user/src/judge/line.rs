//! A log line as the judge keeps it: its parts for the report, its meaning, its
//! worker on the host.

use std::hash::{Hash as _, Hasher as _};
use std::net::SocketAddr;

use super::clock;
use super::hidden::LIMITING;
use super::spoken::Spoken;
use crate::nginx::line::{self, LogLine, UpstreamPeer};
use crate::nginx::message::{self, MessageKind};
use crate::report::model::LineSummary;
use crate::trace::record::Line;

/// The module of what is no HTTP, whose directives begin with `proxy` as well.
pub(super) const STREAM: &str = "stream";

/// nginx's action while it waits for the rest of an answer's head.
pub(super) const READING_HEADER: &str = "reading response header from upstream";

/// An upstream line.
#[derive(Clone, Debug)]
pub(super) struct UpstreamLine {
    pub(super) kind: MessageKind,
    pub(super) summary: LineSummary,
    pub(super) stamp: jiff::civil::DateTime,
    /// The stamp as seconds since 1970, in the zone that nginx stamps its lines in.
    pub(super) stamp_s: Option<i64>,
    pub(super) master_pid: u32,
    /// For the match with the uprobe's sighting.
    pub(super) key: Key,
    pub(super) read_ns: u64,
    /// When its log had been read before, without it.
    pub(super) since_ns: Option<u64>,
    /// How long nginx's timer that the line says has run out lasts, if the configuration
    /// tells.
    pub(super) timer_ns: Option<u64>,
    /// The peer's address, if the line names one over TCP.
    pub(super) peer: Option<SocketAddr>,
    /// The peer is a unix socket.
    pub(super) unix: bool,
    /// The upstream is spoken to over TLS.
    pub(super) tls: bool,
    /// What the directives of the module that speaks to it begin with: `proxy`; or
    /// [`STREAM`].
    pub(super) module: &'static str,
    /// The line is about a subrequest.
    pub(super) subrequest: bool,
    /// Hash of the whole line: the same line in another file has the same.
    pub(super) hash: u64,
    /// What the report calls the upstream.
    pub(super) upstream: String,
}

impl UpstreamLine {
    /// Is something spoken to the upstream that has bytes of its own beside requests and
    /// answers? What the connection last sent or received may then be neither.
    pub(super) fn has_own_bytes(&self) -> bool {
        self.tls || self.spoken().http2
    }

    /// The client left in the middle of its request, which nginx handed on as it came.
    pub(super) fn in_upload(&self) -> bool {
        self.kind == MessageKind::ClientClosed && !self.summary.message.contains("so upstream")
    }

    /// What nginx speaks to the upstream, as far as the line says.
    pub(super) fn spoken(&self) -> Spoken {
        Spoken {
            tls: self.tls,
            http2: self.module == "grpc",
        }
    }

    /// Is it about a stream session that had its upstream already?
    pub(super) fn is_under_way(&self) -> bool {
        let action = self.summary.action.as_deref().unwrap_or_default();
        self.module == STREAM && action.starts_with("proxying")
    }
}

/// What a sighting and its line have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) level: u32,
    pub(super) errno: u32,
    pub(super) connection: u64,
}

/// Any line.
#[derive(Clone, Debug)]
pub(super) enum AnyLine {
    /// nginx drops lines from here on.
    Limiting,
    /// About an upstream.
    Upstream(Box<UpstreamLine>),
    /// About something else; it only takes its sighting away.
    Other { pid: u32, key: Key, hash: u64 },
}

/// Takes a line apart; none if it is not a line of nginx's.
pub(super) fn read(record: &Line) -> Option<AnyLine> {
    line::read(&record.text, |parsed| take_over(record, parsed))
}

fn take_over(record: &Line, parsed: &LogLine<'_>) -> AnyLine {
    let key = Key {
        level: parsed.level.number(),
        errno: parsed.errno.unwrap_or(0),
        connection: parsed.connection.unwrap_or(0),
    };
    if parsed.message == LIMITING {
        return AnyLine::Limiting;
    }
    let Some(kind) = message::classify(parsed) else {
        return AnyLine::Other {
            pid: parsed.pid,
            key,
            hash: hash(parsed),
        };
    };
    let address = parsed.upstream_address();
    let mut peer = None;
    let mut unix = false;
    let mut upstream = String::new();
    match address.as_ref().map(|address| &address.peer) {
        Some(UpstreamPeer::Peer(found)) => {
            peer = Some(SocketAddr::new(found.ip().to_canonical(), found.port()));
            upstream = found.to_string();
        }
        Some(UpstreamPeer::Unix(path)) => {
            unix = true;
            upstream = format!("unix:{path}");
        }
        Some(UpstreamPeer::Name(name)) => upstream = (*name).to_owned(),
        None => {}
    }
    let owned = |text: Option<&str>| text.map(str::to_owned);
    AnyLine::Upstream(Box::new(UpstreamLine {
        kind,
        key,
        stamp: parsed.stamp,
        stamp_s: parsed
            .utc
            .then(|| clock::utc_seconds(parsed.stamp))
            .flatten(),
        master_pid: record.master_pid,
        read_ns: record.read_ns,
        since_ns: None,
        timer_ns: None,
        peer,
        unix,
        tls: address.as_ref().is_some_and(|address| address.is_tls()),
        module: address
            .as_ref()
            .map_or("proxy", |found| module(found.scheme)),
        subrequest: parsed.subrequest.is_some(),
        hash: hash(parsed),
        upstream,
        summary: LineSummary {
            file: record.file.clone(),
            offset: record.offset,
            level: parsed.level.word().to_owned(),
            pid: parsed.pid,
            connection: parsed.connection,
            message: parsed.message.to_owned(),
            errno: parsed.errno,
            action: owned(parsed.action),
            client: owned(parsed.client),
            server: owned(parsed.server),
            request: owned(parsed.request),
            upstream: owned(parsed.upstream),
            host: owned(parsed.host),
        },
    }))
}

fn module(scheme: &str) -> &'static str {
    match scheme {
        "fastcgi" => "fastcgi",
        "uwsgi" | "suwsgi" => "uwsgi",
        "scgi" => "scgi",
        "grpc" | "grpcs" => "grpc",
        "memcached" => "memcached",
        // Only the stream module prints none.
        "" => STREAM,
        _ => "proxy",
    }
}

/// The same on every host, for the hasher's keys are constants, and in every format that a
/// line may be written in. Of the time it takes what zones do not differ in, as a rule.
fn hash(line: &LogLine<'_>) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    (line.stamp.minute() % 15, line.stamp.second()).hash(&mut hasher);
    (line.level.number(), line.pid, line.tid, line.connection).hash(&mut hasher);
    (line.message, line.errno, line.action).hash(&mut hasher);
    (line.client, line.server, line.request, line.subrequest).hash(&mut hasher);
    (line.upstream, line.host, line.referrer).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_two_formats_is_one_line() {
        let text = "2026/11/22 18:22:06 [error] 7#8: *4 connect() failed (111: Connection refused) \
                    while connecting to upstream, client: \"127.0.0.1\", server: \"app\", \
                    request_line: \"GET / HTTP/1.1\", upstream: \"http://10.0.0.1:80/\", host: \"h\"";
        let json = r#"{"time":"2026-11-22T17:22:06.123Z","level":"error","pid":7,"tid":8,"connection":4,"message":"connect() failed","error":{"code":111,"message":"Connection refused"},"http":{"action":"connecting to upstream","client":"127.0.0.1","request":{"server":"app","request_line":"GET / HTTP/1.1","upstream":"http://10.0.0.1:80/","host":"h"}}}"#;
        let later = text.replace("18:22:06", "18:22:07");
        let hash_of = |text: &str| line::read(text, hash).unwrap();
        assert_eq!(hash_of(text), hash_of(json));
        assert_ne!(hash_of(text), hash_of(&later));
    }
}
