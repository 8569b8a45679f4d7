//! Records as the programs and nginx would have made them.

use std::net::SocketAddr;

use super::{HEADER, MASTER, MS, PEER, PID, PREMATURE, at};
use crate::trace::record::{
    BackendExit, BackendProcess, Call, Connection, ConnectionEnd, Continuation, Exit, IdleEnd,
    Line, Logged, Next, PeerClose, Record,
};

/// An established plain connection with nothing sent yet.
pub(in crate::judge) fn connection(cookie: u64, opened_ms: u64) -> Connection {
    Connection {
        cookie,
        netns: 1,
        local: SocketAddr::from((
            [127, 0, 0, 1],
            40_000 + u16::try_from(cookie % 20_000).unwrap(),
        )),
        remote: PEER.parse().unwrap(),
        pid: PID,
        tid: PID,
        comm: "nginx".to_owned(),
        cgroup: 1,
        opened_ns: at(opened_ms),
        established_ns: Some(at(opened_ms)),
        last_sent_ns: None,
        last_received_ns: None,
        last_arrival_ns: None,
        request_started_ns: None,
        first_byte_ns: None,
        fin_received_ns: None,
        rst_received_ns: None,
        rst_sent_ns: None,
        eof_read_ns: None,
        failed_call_ns: None,
        failed_call: None,
        failed_call_errno: None,
        idle_end_seen_ns: None,
        idle_end: None,
        closed_ns: None,
        line_ns: None,
        ended_ns: 0,
        end: ConnectionEnd::Closed,
        idle_before_ns: None,
        sent_bytes: 0,
        received_bytes: 0,
        request_bytes: 0,
        response_bytes: 0,
        exchanges: 0,
        exchanges_at_end: 0,
        awaiting_at_end: false,
        retransmits: 0,
        exchange_retransmits: 0,
        socket_error: None,
        unacked_at_fin: None,
        unacked_at_rst: None,
        unread_at_close: None,
        unread_at_end: None,
        unacked_at_close: None,
        handshake_ns: None,
        rst_sent_reason: None,
        first_seen_mid_life: false,
        calls_unseen: false,
        order_unknown: false,
        missed_calls: 0,
        filled_in: false,
    }
}

/// What happens to a connection, as the programs would record it.
pub(in crate::judge) trait Happens: Sized {
    fn request(self, ms: u64) -> Self;
    fn answer(self, ms: u64) -> Self;
    fn fin(self, ms: u64, unacked: u32) -> Self;
    fn rst(self, ms: u64, unacked: u32) -> Self;
    fn eof(self, ms: u64) -> Self;
    fn fails(self, ms: u64, call: Call, errno: u32) -> Self;
    fn peek(self, ms: u64, found: IdleEnd) -> Self;
    fn closed(self, ms: u64) -> Self;
}

fn peer_ended(connection: &mut Connection) {
    connection.exchanges_at_end = connection.exchanges;
    connection.awaiting_at_end = connection.last_sent_ns > connection.last_received_ns;
}

impl Happens for Connection {
    fn request(mut self, ms: u64) -> Self {
        if self.exchanges > 0 {
            self.idle_before_ns =
                Some(at(ms) - self.last_received_ns.max(self.last_sent_ns).unwrap());
        }
        self.exchanges += 1;
        self.request_started_ns = Some(at(ms));
        self.last_sent_ns = Some(at(ms));
        self.request_bytes = 80;
        self.sent_bytes += 80;
        self.response_bytes = 0;
        self.first_byte_ns = None;
        self
    }
    fn answer(mut self, ms: u64) -> Self {
        self.first_byte_ns.get_or_insert(at(ms));
        self.last_received_ns = Some(at(ms));
        self.response_bytes += 200;
        self.received_bytes += 200;
        self
    }
    fn fin(mut self, ms: u64, unacked: u32) -> Self {
        peer_ended(&mut self);
        self.fin_received_ns = Some(at(ms));
        self.unacked_at_fin = Some(unacked);
        self
    }
    fn rst(mut self, ms: u64, unacked: u32) -> Self {
        if self.fin_received_ns.is_none() {
            peer_ended(&mut self);
        }
        self.rst_received_ns = Some(at(ms));
        self.unacked_at_rst = Some(unacked);
        self.socket_error = Some(if self.fin_received_ns.is_some() {
            32
        } else {
            104
        });
        self
    }
    fn eof(mut self, ms: u64) -> Self {
        self.eof_read_ns = Some(at(ms));
        self
    }
    fn fails(mut self, ms: u64, call: Call, errno: u32) -> Self {
        self.failed_call_ns = Some(at(ms));
        self.failed_call = Some(call);
        self.failed_call_errno = Some(errno);
        self
    }
    fn peek(mut self, ms: u64, found: IdleEnd) -> Self {
        self.idle_end_seen_ns = Some(at(ms));
        self.idle_end = Some(found);
        self
    }
    fn closed(mut self, ms: u64) -> Self {
        self.closed_ns = Some(at(ms) + 20_000);
        self.ended_ns = at(ms) + 20_000;
        self.line_ns = Some(at(ms) + 10_000);
        self
    }
}

/// A line and its sighting, 10 us before the close of a connection closed at `ms`.
#[derive(Clone)]
pub(in crate::judge) struct Said {
    pub(in crate::judge) ms: u64,
    pub(in crate::judge) number: u64,
    pub(in crate::judge) level: u32,
    pub(in crate::judge) message: String,
    pub(in crate::judge) errno: u32,
    pub(in crate::judge) action: &'static str,
    pub(in crate::judge) request: String,
    pub(in crate::judge) upstream: String,
    pub(in crate::judge) pid: u32,
    pub(in crate::judge) file: &'static str,
}

pub(in crate::judge) fn said(ms: u64, message: &str, errno: u32, action: &'static str) -> Said {
    Said {
        ms,
        number: 7,
        level: 4,
        message: message.to_owned(),
        errno,
        action,
        request: "GET /a HTTP/1.1".to_owned(),
        upstream: format!("http://{PEER}/a"),
        pid: PID,
        file: "/var/log/nginx/error.log",
    }
}

impl Said {
    pub(in crate::judge) fn logged(&self) -> Record {
        Record::Logged(Logged {
            ns: at(self.ms) + 10_000,
            pid: self.pid,
            tid: self.pid,
            level: self.level,
            errno: self.errno,
            connection: self.number,
        })
    }

    /// As nginx writes it (nginx.org's src/core/ngx_log.c), read 50 ms later.
    pub(in crate::judge) fn line(&self) -> Record {
        let second = self.ms / 1000;
        let (minute, second) = (second / 60, second % 60);
        let errno = match self.errno {
            0 => String::new(),
            number => format!(" ({number}: Some error)"),
        };
        let level = match self.level {
            2 => "alert",
            3 => "crit",
            4 => "error",
            5 => "warn",
            _ => "info",
        };
        Record::Line(Line {
            file: self.file.to_owned(),
            offset: self.ms,
            master_pid: MASTER,
            read_ns: at(self.ms) + 50 * MS,
            text: format!(
                "2026/11/22 18:{minute:02}:{second:02} [{level}] {pid}#{pid}: *{number} \
                 {message}{errno} while {action}, client: 10.0.0.1, server: app, request: \
                 \"{request}\", upstream: \"{upstream}\", host: \"app\"",
                pid = self.pid,
                number = self.number,
                message = self.message,
                action = self.action,
                request = self.request,
                upstream = self.upstream,
            ),
            latin1: false,
            pid: None,
        })
    }
}

pub(in crate::judge) fn ended(connection: Connection) -> Record {
    Record::Connection(Box::new(connection))
}

/// The other end of a connection, held by the process 4711, closed in the middle of a
/// request or by the end of the process.
pub(in crate::judge) fn peer_close(cookie: u64, ms: u64, exit: Option<Exit>) -> Record {
    Record::PeerClose(Box::new(PeerClose {
        cookie,
        netns: 1,
        ns: at(ms),
        pid: 4711,
        parent_pid: 4700,
        comm: "app".to_owned(),
        exit,
        unread_bytes: 0,
        received_bytes: 80,
        accepted: true,
        may_be_copy: false,
        host: None,
    }))
}

/// The same, held by another worker of the same supervisor.
pub(in crate::judge) fn peer_close_by(
    pid: u32,
    cookie: u64,
    ms: u64,
    exit: Option<Exit>,
) -> Record {
    let mut record = peer_close(cookie, ms, exit);
    if let Record::PeerClose(close) = &mut record {
        close.pid = pid;
    }
    record
}

pub(in crate::judge) fn backend_process(pid: u32, first_ms: u64, last_ms: u64) -> Record {
    Record::BackendProcess(BackendProcess {
        address: PEER.parse::<SocketAddr>().unwrap().ip(),
        port: 9101,
        netns: 1,
        pid,
        parent_pid: 4700,
        comm: "app".to_owned(),
        first_ns: at(first_ms),
        last_ns: at(last_ms),
        connections: 2,
    })
}

/// A request that was in flight for that long when the backend ended the connection,
/// with its line.
pub(in crate::judge) fn cut_off(cookie: u64, ended_ms: u64, in_flight_ms: u64) -> [Record; 3] {
    let mut line = said(ended_ms, PREMATURE, 0, HEADER);
    line.number = cookie;
    let begun = ended_ms - in_flight_ms;
    let cut = connection(cookie, begun)
        .request(begun)
        .fin(ended_ms, 0)
        .eof(ended_ms)
        .closed(ended_ms);
    [line.logged(), ended(cut), line.line()]
}

/// A request that was answered on a connection that nginx closed idle.
pub(in crate::judge) fn served(cookie: u64, ms: u64, took_ms: u64) -> Record {
    let answered = connection(cookie, ms).request(ms).answer(ms + took_ms);
    ended(answered.closed(ms + took_ms + 100))
}

pub(in crate::judge) fn backend_exit(ms: u64, pid: u32, exit: Exit) -> Record {
    Record::BackendExit(BackendExit {
        ns: at(ms),
        pid,
        parent_pid: 4700,
        comm: "app".to_owned(),
        exit,
    })
}

pub(in crate::judge) fn then(cookie: u64, closed_ms: u64, next: Next, next_cookie: u64) -> Record {
    Record::Continuation(Continuation {
        failed_cookie: cookie,
        tid: PID,
        closed_ns: at(closed_ms) + 20_000,
        next,
        next_cookie: (next != Next::OtherSend).then_some(next_cookie),
        next_ns: at(closed_ms) + 40_000,
    })
}

/// The other end of a connection, closed by a call that left this much unread.
pub(in crate::judge) fn closed_by_call(cookie: u64, ms: u64, unread_bytes: u32) -> Record {
    let mut record = peer_close(cookie, ms, None);
    if let Record::PeerClose(close) = &mut record {
        close.unread_bytes = unread_bytes;
    }
    record
}

/// A process of this host holds backend [`PEER`].
pub(in crate::judge) fn local_backend() -> Record {
    backend_process(4711, 1, 2)
}

/// Idle closes of other connections after `ms` of silence.
pub(in crate::judge) fn idle_closes(count: u64, idle_ms: u64) -> Vec<Record> {
    (0..count)
        .map(|index| {
            let begun = 100 + index * 10;
            let end = begun + 1 + idle_ms;
            ended(
                connection(10_000 + index, begun)
                    .request(begun)
                    .answer(begun + 1)
                    .fin(end, 0)
                    .peek(end, IdleEnd::Eof)
                    .closed(end),
            )
        })
        .collect()
}
