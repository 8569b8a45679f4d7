//! One incident's facts, as the causes need them: the line, its connection, its
//! upstream's constants, nginx's settings for it.

use std::rc::Rc;

use super::backends::StillOpen;
use super::end::{
    ended_before_request, idle_age_ns, last_activity_ns, no_answer_below, peer_end_ns,
    silence_before_ns,
};
use super::history::History;
use super::line::{STREAM, UpstreamLine};
use super::mid_life;
use super::queues::FullQueue;
use super::settings::default_limit;
use super::socket::Socket;
use super::spoken::{Counted, HTTP2};
use super::upstreams::Figures;
use super::without_calls::{is_first, is_uncounted};
use crate::nginx::message::MessageKind;
use crate::report::model::{InferredLimit, InferredSize, InferredTimeout, Match, Phase};
use crate::report::words::milliseconds;
use crate::trace::record::{BackendExit, Connection, Logged, PeerClose};

/// What stands for a setting's value where the configuration does not tell it.
const NOT_KNOWN: &str = "not known";

pub(super) const NS_PER_MS: f64 = 1e6;

/// A backend that closes after its last answer has closed by then, however busy it is.
const BUSY_CLOSE_NS: u64 = 500_000_000;

/// Errnos that nginx's lines and sockets give.
pub(super) mod errno {
    pub(in crate::judge) const ENOENT: u32 = 2;
    pub(in crate::judge) const EAGAIN: u32 = 11;
    pub(in crate::judge) const ENOMEM: u32 = 12;
    pub(in crate::judge) const EINVAL: u32 = 22;
    pub(in crate::judge) const ENFILE: u32 = 23;
    pub(in crate::judge) const EMFILE: u32 = 24;
    pub(in crate::judge) const EPIPE: u32 = 32;
    pub(in crate::judge) const EADDRINUSE: u32 = 98;
    pub(in crate::judge) const EADDRNOTAVAIL: u32 = 99;
    pub(in crate::judge) const ENOBUFS: u32 = 105;
    pub(in crate::judge) const ENETUNREACH: u32 = 101;
    pub(in crate::judge) const ECONNRESET: u32 = 104;
    pub(in crate::judge) const ETIMEDOUT: u32 = 110;
    pub(in crate::judge) const ECONNREFUSED: u32 = 111;
    pub(in crate::judge) const EHOSTDOWN: u32 = 112;
    pub(in crate::judge) const EHOSTUNREACH: u32 = 113;
}

/// nginx's settings that bear on one upstream, as far as all places that use it agree.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    /// The configuration is known: what is not set has its default.
    pub(super) known: bool,
    /// Name of the upstream block.
    pub(super) block: Option<String>,
    /// How long nginx keeps its idle connections; the default if the block says nothing.
    pub(super) keepalive_timeout_ms: Option<u64>,
    /// The block says so itself.
    pub(super) keepalive_timeout_set: bool,
    /// This nginx has no `keepalive_timeout` for upstreams (before 1.15.3).
    pub(super) keepalive_timeout_unknown: bool,
    pub(super) keepalive_requests: Option<u64>,
    /// Idle connections kept, if the block says so.
    pub(super) keepalive: Option<u64>,
    /// Servers of the block.
    pub(super) servers: usize,
    pub(super) connect_timeout: Option<String>,
    pub(super) read_timeout: Option<String>,
    pub(super) send_timeout: Option<String>,
    pub(super) buffer_size: Option<String>,
    pub(super) next_upstream: Option<String>,
    /// Some of the places differ in it.
    pub(super) next_upstream_differs: bool,
    pub(super) request_buffering: Option<String>,
    pub(super) http_version: Option<String>,
    pub(super) ssl_name: Option<String>,
    pub(super) ssl_server_name: Option<String>,
    pub(super) ssl_protocols: Option<String>,
    /// The kernel encrypts what is sent over TLS, or may: then no sequence number tells of a
    /// call that was missed.
    pub(super) kernel_tls: bool,
    /// Of the main context and `events`.
    pub(super) worker_connections: Option<String>,
    pub(super) worker_rlimit_nofile: Option<String>,
    pub(super) worker_shutdown_timeout: Option<String>,
}

impl Settings {
    /// Does nginx ask another server after a failed connection (`proxy_next_upstream
    /// error`, its default)? None if the configuration does not say.
    pub(super) fn retries(&self) -> Option<bool> {
        match self.next_upstream.as_deref() {
            Some(set) => Some(set.split_whitespace().any(|word| word == "error")),
            None if self.next_upstream_differs => None,
            None => self.known.then_some(true),
        }
    }
}

/// What the backend's closes say of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Constants {
    pub(super) idle_timeout: Option<InferredTimeout>,
    pub(super) request_limit: Option<InferredLimit>,
    pub(super) size_threshold: Option<InferredSize>,
    /// Requests that were all there were, each the first of its connection, and of
    /// which none was answered: see `Figures::never_answered`.
    pub(super) never_answered: Option<u64>,
    /// The size of the largest request that was answered; 0 if none was.
    pub(super) answered_bytes: u64,
    /// The largest of which it is known for sure that the backend had taken all of it.
    pub(super) surely_answered_bytes: u64,
}

/// One incident.
#[derive(Debug)]
pub(super) struct Case<'a> {
    pub(super) line: &'a UpstreamLine,
    pub(super) sighting: Option<&'a Logged>,
    pub(super) socket: &'a Socket,
    pub(super) settings: &'a Settings,
    pub(super) constants: Constants,
    /// The end of the backend's side, if a process on this host held it.
    pub(super) peer_close: Option<&'a PeerClose>,
    /// The end of that process, with the close or soon after.
    pub(super) backend_exit: Option<&'a BackendExit>,
    /// The backend's side, on this host, was still open when nginx's saw an RST.
    pub(super) peer_open: Option<StillOpen>,
    /// The queue of the backend's listening socket, on this host, was full meanwhile.
    pub(super) full: Option<FullQueue>,
    /// The figures of its upstream.
    pub(super) figures: Option<&'a Figures>,
    /// What all connections of its upstream say.
    pub(super) history: Option<&'a History>,
    /// No call of nginx's was seen that met the connection's end: it must have been missed.
    pub(super) end_not_met: bool,
    /// The trace goes on to then.
    pub(super) watched_until_ns: u64,
}

impl<'a> Case<'a> {
    pub(super) fn connection(&self) -> Option<&'a Rc<Connection>> {
        self.socket.connection()
    }

    pub(super) const fn peer_close(&self) -> Option<&'a PeerClose> {
        self.peer_close
    }

    pub(super) const fn backend_exit(&self) -> Option<&'a BackendExit> {
        self.backend_exit
    }

    pub(super) fn matched(&self) -> Match {
        match self.socket {
            Socket::Found(_) => Match::Exact,
            Socket::Aligned(aligned) if aligned.ordered => Match::Ordered,
            Socket::Aligned(_) => Match::Window,
            Socket::Assumed(_) | Socket::NoneByNature(_) | Socket::Missing(_) => Match::None,
        }
    }

    /// Connections that the line may be about, where it was not seen being written.
    pub(super) fn candidates(&self) -> Option<u32> {
        match self.socket {
            Socket::Aligned(aligned) => Some(aligned.candidates),
            _ => None,
        }
    }

    pub(super) fn errno(&self) -> u32 {
        self.line.summary.errno.unwrap_or(0)
    }

    pub(super) fn action(&self) -> &str {
        self.line.summary.action.as_deref().unwrap_or_default()
    }

    /// Are the connection's exchanges its requests? Over TLS only if the end of the
    /// handshake was seen; else its flights count as exchanges.
    pub(super) fn counts_requests(&self) -> bool {
        self.counted() == Counted::Requests
    }

    /// What the connection's exchanges are. Over HTTP/2 each acknowledgement of the
    /// backend's settings or pings is one.
    pub(super) fn counted(&self) -> Counted {
        let handshake_seen = self
            .connection()
            .is_some_and(|connection| connection.handshake_ns.is_some());
        if self.http2() {
            Counted::Http2
        } else if self.line.tls && !handshake_seen {
            Counted::TlsFlights
        } else {
            Counted::Requests
        }
    }

    /// Does nginx speak HTTP/2 to the upstream?
    pub(super) fn http2(&self) -> bool {
        self.line.spoken().http2 || self.settings.http_version.as_deref() == Some(HTTP2)
    }

    /// Bytes that the backend's process had not read when it closed; none if that was
    /// not seen.
    pub(super) fn peer_unread(&self) -> Option<u32> {
        self.peer_close.map(|close| close.unread_bytes)
    }

    /// Had the connection served a request before the one that failed? None if that is
    /// not known: flights of a TLS handshake may count as exchanges, and of a connection
    /// older than the capture the first ones are unknown.
    pub(super) fn reused(&self) -> Option<bool> {
        let connection = self.connection()?;
        let before = self.requests_before()?;
        match self.counted() {
            Counted::Requests => {}
            Counted::TlsFlights => return (before > TLS_FLIGHTS).then_some(true),
            Counted::Http2 => return None,
        }
        if is_uncounted(connection) && before == 0 && !is_first(connection) {
            return None;
        }
        Some(before > 0)
    }

    /// Exchanges on the connection before the request that failed.
    pub(super) fn requests_before(&self) -> Option<u32> {
        let exchanges = self.connection()?.exchanges;
        Some(if self.sent_nothing() {
            exchanges
        } else {
            exchanges.saturating_sub(1)
        })
    }

    /// nginx wrote nothing of this request: it found the socket's error first
    /// (`ngx_http_upstream_test_connect`), or its first write failed.
    pub(super) fn sent_nothing(&self) -> bool {
        match self.line.kind {
            MessageKind::ConnectFailed => true,
            MessageKind::SendFailed | MessageKind::TlsSendFailed if self.counts_requests() => {
                self.connection().is_some_and(|connection| {
                    connection.exchanges == 0
                        || connection.last_received_ns > connection.last_sent_ns
                })
            }
            _ => false,
        }
    }

    /// Did the backend send any byte of an answer to the request that failed? None if
    /// that is not known: over TLS, tickets and alerts are bytes too, over HTTP/2
    /// acknowledgements and settings.
    pub(super) fn answered(&self) -> Option<bool> {
        let connection = self.connection()?;
        if self.sent_nothing() {
            return Some(false);
        }
        if self.http2_ending() == Some(Ending::GoAway(0)) && !self.in_body() {
            return Some(false);
        }
        // After nginx has read the head, only more of it can fail. That HTTP/2 has sent
        // something since then says nothing.
        if self.http2() && self.in_body() {
            return Some(true);
        }
        if connection.order_unknown && !self.in_body() && !ended_before_request(connection) {
            return None;
        }
        // What came before the request was sent, a close_notify as a rule, answers nothing.
        if self.counted() == Counted::TlsFlights
            && ended_before_request(connection)
            && !self.in_body()
        {
            return Some(false);
        }
        let unread = connection
            .unread_at_end
            .max(connection.unread_at_close)
            .filter(|_| !ended_before_request(connection));
        // Bytes that may be no answer: tickets, alerts, frames.
        let covert = self.line.tls || self.http2();
        if connection.response_bytes == 0 && (unread.is_none() || covert) {
            return Some(false);
        }
        if !covert || self.in_body() {
            return Some(true);
        }
        self.counts_requests()
            .then(|| connection.response_bytes >= no_answer_below(connection))
    }

    /// Had nginx read the response's head?
    pub(super) fn in_body(&self) -> bool {
        matches!(self.action(), "reading upstream" | "sending to client")
    }

    /// How HTTP/2 ended the request without a close, by nginx's line:
    /// `ngx_http_grpc_process_header` and `ngx_http_grpc_filter`.
    pub(super) fn http2_ending(&self) -> Option<Ending> {
        if self.line.kind != MessageKind::ResponseRejected {
            return None;
        }
        let message = self.line.summary.message.as_str();
        let error = |prefix| message.strip_prefix(prefix)?.parse::<u32>().ok();
        error("upstream rejected request with error ")
            .map(Ending::Reset)
            .or_else(|| error("upstream sent goaway with error ").map(Ending::GoAway))
    }

    /// Came bytes over TLS that may be tickets or an alert, so that there may yet have
    /// been the beginning of an answer?
    pub(super) fn perhaps_answered(&self) -> bool {
        self.answered() == Some(false)
            && !self.sent_nothing()
            && self
                .connection()
                .is_some_and(|connection| connection.response_bytes > 0)
    }

    /// nginx's timer for a handshake ran out after the backend had ended the connection: the
    /// worker was late, and looked at its timers before it looked at the socket.
    pub(super) fn ended_before_timer(&self) -> bool {
        self.line.kind == MessageKind::TimedOut
            && self.phase() == Phase::Tls
            && self.connection().is_some_and(|connection| {
                connection.established_ns.is_some() && peer_end_ns(connection).is_some()
            })
    }

    /// Silence before the backend's end, if no request was in flight then.
    pub(super) fn idle_age_ns(&self) -> Option<u64> {
        let connection = self.connection()?;
        idle_age_ns(connection).or_else(|| {
            let quiet = last_activity_ns(connection)?;
            (self.sent_nothing() && !mid_life::ended_before(connection))
                .then_some(peer_end_ns(connection)?.saturating_sub(quiet))
        })
    }

    /// Requests sent; none if not known.
    pub(super) fn requests(&self) -> Option<u32> {
        let connection = self.connection()?;
        (self.counts_requests() && !is_uncounted(connection)).then_some(connection.exchanges)
    }

    /// Requests sent at least, where the number is not known because the connection is
    /// older than the capture, or nginx's calls, or some of them, were not seen. Over TLS the
    /// exchanges before it may be flights.
    pub(super) fn requests_at_least(&self) -> Option<u32> {
        let connection = self.connection()?;
        (is_uncounted(connection) && self.counts_requests()).then_some(connection.exchanges)
    }

    /// Did as many requests come before the one that failed? None if that cannot be told:
    /// of a connection older than the capture, or on which calls were missed, only the least
    /// number is known.
    pub(super) fn served_exactly(&self, requests: u32) -> Option<bool> {
        let before = self.requests_before()?;
        let connection = self.connection()?;
        // Without the calls the kernel's own memory reaches no further than two.
        if connection.calls_unseen {
            return None;
        }
        if is_uncounted(connection) {
            return (before > requests).then_some(false);
        }
        Some(before == requests)
    }

    /// May the backend have closed by a limit on requests that could not be inferred, because
    /// calls of nginx's were missed on connections that would have shown it? Such a close
    /// follows soon on an answer, and no connection got further.
    pub(super) fn may_have_hidden_limit(&self) -> bool {
        let Some((figures, connection)) = self.figures.zip(self.connection()) else {
            return false;
        };
        let reached = connection.exchanges_at_end >= figures.most_answered();
        figures.calls_missed > 0
            && (reached || is_uncounted(connection))
            && self.idle_age_ns().is_none_or(|age| age < BUSY_CLOSE_NS)
    }

    /// A directive of the module that speaks to this upstream: `fastcgi_read_timeout`.
    pub(super) fn directive(&self, name: &str) -> String {
        directive(self.line.module, name)
    }

    /// What one of nginx's timers is set to: as written, by default, or not known.
    pub(super) fn limit(&self, name: &str) -> String {
        let settings = self.settings;
        let set = match name {
            "connect_timeout" => &settings.connect_timeout,
            "send_timeout" => &settings.send_timeout,
            _ => &settings.read_timeout,
        };
        match set {
            Some(set) => set.clone(),
            None if settings.known => {
                format!("{} by default", default_limit(&self.directive(name)))
            }
            None => NOT_KNOWN.to_owned(),
        }
    }

    /// One of nginx's timers and what it is set to.
    pub(super) fn timer(&self, name: &str) -> String {
        let directive = self.directive(name);
        match self.limit(name).as_str() {
            NOT_KNOWN => format!("{directive}, whose value is not known"),
            limit => format!("{directive} {limit}"),
        }
    }

    /// When the attempt ended as nginx saw it.
    pub(super) fn end_ns(&self) -> Option<u64> {
        let connection = self.connection()?;
        let seen = connection
            .eof_read_ns
            .into_iter()
            .chain(connection.failed_call_ns)
            .min();
        seen.or_else(|| self.sighting.map(|sighting| sighting.ns))
            .or(connection.closed_ns)
    }

    /// When the attempt's connect began; the line's moment where that is not known.
    pub(super) fn began_ns(&self) -> u64 {
        let seen = self.sighting.map_or(self.line.read_ns, |seen| seen.ns);
        self.connection()
            .map_or(seen, |connection| connection.opened_ns)
    }

    /// From the last request's first byte to the end as nginx saw it.
    pub(super) fn in_flight_ns(&self) -> Option<u64> {
        if self.sent_nothing() {
            return None;
        }
        let connection = self.connection()?;
        // Of a later exchange over HTTP/2 it is not known whether it began with a request.
        if self.http2() && connection.exchanges > 1 {
            return None;
        }
        Some(
            self.end_ns()?
                .saturating_sub(connection.request_started_ns?),
        )
    }

    /// Silence before the last request, or before the end if none was in flight.
    pub(super) fn idle_ns(&self) -> Option<u64> {
        let connection = self.connection()?;
        if self.sent_nothing() {
            let quiet = last_activity_ns(connection)?;
            return Some(self.end_ns()?.saturating_sub(quiet));
        }
        silence_before_ns(connection)
    }
}

/// How HTTP/2 ends a request without a close; its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By RST_STREAM.
    Reset(u32),
    /// By GOAWAY, which does not count the request among those begun.
    GoAway(u32),
}

/// Exchanges that come before the first request over TLS, at most: two round trips of
/// TLS 1.2 or of 1.3 with a HelloRetryRequest, and one in reserve.
const TLS_FLIGHTS: u32 = 3;

/// The number of the alert that OpenSSL quotes: `...:SSL alert number 40)`.
pub(super) fn alert_number(message: &str) -> Option<u32> {
    let (_, rest) = message.rsplit_once("SSL alert number ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The directive of a module: `fastcgi_read_timeout`. Stream has one timeout for both
/// directions.
pub(super) fn directive(module: &str, name: &str) -> String {
    match (module, name) {
        (STREAM, "read_timeout" | "send_timeout") => "proxy_timeout".to_owned(),
        (STREAM, name) => format!("proxy_{name}"),
        (module, name) => format!("{module}_{name}"),
    }
}

/// Milliseconds with three decimals, as the report gives them.
#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds shown as milliseconds"
)]
pub(super) fn ms(ns: u64) -> f64 {
    (ns as f64 / NS_PER_MS * 1000.0).round() / 1000.0
}

/// A time in words, as the whole report gives them.
pub(super) fn words(ns: u64) -> String {
    milliseconds(ms(ns))
}

/// A time as nginx's configuration writes it: `60s`, `1500ms`.
pub(super) fn nginx_time(ms: u64) -> String {
    if ms.is_multiple_of(1000) {
        format!("{}s", ms / 1000)
    } else {
        format!("{ms}ms")
    }
}
