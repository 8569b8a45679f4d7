//! Everything that happened in one worker process, in the order of the ring buffer,
//! and the match of its log lines to its connections.
//!
//! A worker is single-threaded: between a failing call on an upstream socket and the
//! line about it, and between the line and the close of that socket, there is no other
//! call on an upstream socket (nginx.org's source; observed with strace on 1.22). So
//! the line's connection is the one that this worker closes next, and for a line about a failed call that connection must also show the failure before the line.

use std::collections::VecDeque;
use std::rc::Rc;

use super::line::{Key, UpstreamLine};
use crate::nginx::message::{MessageKind, SocketEvidence};
use crate::trace::record::{Connection, Logged};

/// Sightings kept while no line claims them: lines of logs that nobody follows, or
/// that have not been read yet.
const SIGHTINGS: usize = 8192;
/// Lines remembered to know them again in a second file.
const RECENT: usize = 64;
/// A stamp and a sighting further apart than this are not of the same line, whatever
/// clock steps and daylight saving did.
const STAMP_TOLERANCE_S: i64 = 2 * 3600;

/// How a line's search for its socket ended.
#[derive(Clone, Debug)]
pub(super) enum Socket {
    /// It is this connection.
    Found(Rc<Connection>),
    /// The message speaks of no socket, or of one without a TCP connection.
    NoneByNature(&'static str),
    /// There should be one.
    Missing(&'static str),
}

/// A line that a sighting was found for, or that no sighting can be found for.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) line: UpstreamLine,
    pub(super) sighting: Option<Logged>,
    pub(super) socket: Socket,
    /// Order of arrival in the trace.
    pub(super) order: u64,
}

/// What a sighting is still waiting for.
#[derive(Debug)]
struct Sighting {
    logged: Logged,
    wall_s: Option<i64>,
    next_close: Option<Rc<Connection>>,
    line: Option<(UpstreamLine, u64)>,
}

/// What the same line in another file has in common with this one.
#[derive(Debug)]
struct Fingerprint {
    key: Key,
    stamp: jiff::civil::DateTime,
    file: String,
    message: String,
    upstream: Option<String>,
}

impl Fingerprint {
    fn of(line: &UpstreamLine) -> Self {
        Self {
            key: line.key,
            stamp: line.stamp,
            file: line.summary.file.clone(),
            message: line.summary.message.clone(),
            upstream: line.summary.upstream.clone(),
        }
    }

    fn same_in_another_file(&self, other: &Self) -> bool {
        self.file != other.file
            && self.key == other.key
            && self.stamp == other.stamp
            && self.message == other.message
            && self.upstream == other.upstream
    }
}

/// One worker process.
#[derive(Debug, Default)]
pub(super) struct Worker {
    sightings: VecDeque<Sighting>,
    /// Sightings, from the back, that have no close yet.
    open: usize,
    /// Lines whose sighting has not come.
    lines: VecDeque<(UpstreamLine, u64)>,
    /// Lines matched lately: the same line may stand in two files.
    recent: VecDeque<Fingerprint>,
    settled: Vec<Settled>,
    /// Lines dropped because another file holds them too.
    pub(super) duplicates: u64,
    pub(super) sightings_dropped: u64,
}

impl Worker {
    pub(super) fn logged(&mut self, logged: Logged, wall_s: Option<i64>) {
        self.sightings.push_back(Sighting {
            logged,
            wall_s,
            next_close: None,
            line: None,
        });
        self.open += 1;
        while self.sightings.len() > SIGHTINGS {
            self.sightings.pop_front();
            self.sightings_dropped += 1;
            self.open = self.open.min(self.sightings.len());
        }
        for (line, order) in std::mem::take(&mut self.lines) {
            self.line(line, order);
        }
    }

    pub(super) fn closed(&mut self, connection: &Rc<Connection>) {
        let first_open = self.sightings.len() - self.open;
        for sighting in self.sightings.iter_mut().skip(first_open) {
            sighting.next_close = Some(Rc::clone(connection));
        }
        self.open = 0;
        self.settle();
    }

    /// The sighting of a line that has no sighting's line yet: the first one alike, for
    /// a worker writes its lines in the order in which it logs them.
    fn sighting_of(&self, key: Key, stamp_s: Option<i64>) -> Option<usize> {
        self.sightings.iter().position(|sighting| {
            let logged = &sighting.logged;
            let seen = Key {
                level: logged.level,
                errno: logged.errno,
                connection: logged.connection,
            };
            sighting.line.is_none()
                && seen == key
                && sighting
                    .wall_s
                    .zip(stamp_s)
                    .is_none_or(|(wall, stamp)| (wall - stamp).abs() <= STAMP_TOLERANCE_S)
        })
    }

    /// A line about something else: its sighting is not waited for.
    pub(super) fn other_line(&mut self, key: Key) {
        if let Some(index) = self.sighting_of(key, None) {
            self.remove(index);
        }
    }

    pub(super) fn line(&mut self, line: UpstreamLine, order: u64) {
        let fingerprint = Fingerprint::of(&line);
        if let Some(index) = self.sighting_of(line.key, line.stamp_s)
            && let Some(sighting) = self.sightings.get_mut(index)
        {
            sighting.line = Some((line, order));
            self.recent.push_back(fingerprint);
            if self.recent.len() > RECENT {
                self.recent.pop_front();
            }
            self.settle();
        } else if self
            .recent
            .iter()
            .any(|recent| recent.same_in_another_file(&fingerprint))
        {
            self.duplicates += 1;
        } else {
            self.lines.push_back((line, order));
        }
    }

    fn remove(&mut self, index: usize) -> Option<Sighting> {
        let sighting = self.sightings.remove(index)?;
        if sighting.next_close.is_none() {
            self.open -= 1;
        }
        Some(sighting)
    }

    /// Moves out the lines that need to wait for nothing more.
    fn settle(&mut self) {
        let mut index = 0;
        while let Some(sighting) = self.sightings.get_mut(index) {
            let ready = sighting
                .line
                .as_ref()
                .is_some_and(|(line, _)| sighting.next_close.is_some() || !waits_for_close(line));
            if !ready {
                index += 1;
                continue;
            }
            if let Some(sighting) = self.remove(index) {
                self.settled.extend(settle(sighting));
            }
        }
    }

    pub(super) fn take_settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// The trace is over: nothing more will come.
    pub(super) fn finish(&mut self) -> Vec<Settled> {
        let sightings = std::mem::take(&mut self.sightings);
        self.settled
            .extend(sightings.into_iter().filter_map(settle));
        for (line, order) in std::mem::take(&mut self.lines) {
            let socket = no_socket(&line).map_or(
                Socket::Missing("the line was not seen being written"),
                Socket::NoneByNature,
            );
            self.settled.push(Settled {
                line,
                sighting: None,
                socket,
                order,
            });
        }
        self.open = 0;
        self.take_settled()
    }
}

/// Why a line speaks of no TCP connection that the kernel could have shown.
fn no_socket(line: &UpstreamLine) -> Option<&'static str> {
    if line.kind.socket() == SocketEvidence::NoSocket {
        return Some("no connection was involved");
    }
    if line.unix {
        return Some("the upstream is a unix socket, which whoclosed does not watch");
    }
    None
}

fn waits_for_close(line: &UpstreamLine) -> bool {
    no_socket(line).is_none()
}

fn settle(sighting: Sighting) -> Option<Settled> {
    let (line, order) = sighting.line?;
    let logged = sighting.logged;
    let socket = if let Some(why) = no_socket(&line) {
        Socket::NoneByNature(why)
    } else {
        match sighting.next_close {
            None if line.kind == MessageKind::ConnectFailedAtOnce => {
                Socket::NoneByNature("connect() failed before a SYN was sent")
            }
            None => Socket::Missing("its connection was not closed before the capture ended"),
            Some(connection) => fitting(&line, &logged, connection),
        }
    };
    Some(Settled {
        line,
        sighting: Some(logged),
        socket,
        order,
    })
}

/// Is the connection that was closed next the one that the line speaks of?
fn fitting(line: &UpstreamLine, logged: &Logged, connection: Rc<Connection>) -> Socket {
    let same_peer = line.peer.is_none_or(|peer| peer == connection.remote);
    let lived = connection.opened_ns <= logged.ns
        && connection
            .closed_ns
            .is_none_or(|closed| logged.ns <= closed || connection.established_ns.is_none());
    // nginx closes right after the line: nothing else of this thread came between.
    let at_once = connection
        .line_ns
        .is_some_and(|line_ns| logged.ns <= line_ns);
    if same_peer && lived && at_once && shows_failure(line, logged, &connection) {
        return Socket::Found(connection);
    }
    if line.kind == MessageKind::ConnectFailedAtOnce {
        return Socket::NoneByNature("connect() failed before a SYN was sent");
    }
    Socket::Missing("the connection that the worker closed after the line is not the line's own")
}

/// Does the connection show, before the line, the failure that the line reports?
fn shows_failure(line: &UpstreamLine, logged: &Logged, connection: &Connection) -> bool {
    let before = |ns: Option<u64>| ns.is_some_and(|ns| ns <= logged.ns);
    match line.kind {
        // A reset shows in what the call gave; a second call after it gives EOF or EPIPE.
        MessageKind::PrematureClose
        | MessageKind::ReceiveFailed
        | MessageKind::SendFailed
        | MessageKind::TlsSendFailed
        | MessageKind::PeerClosedInTlsHandshake => {
            before(connection.eof_read_ns) || before(connection.failed_call_ns)
        }
        // getsockopt(SO_ERROR) took the error: the socket had ended before the line.
        MessageKind::ConnectFailed => {
            connection.socket_error.is_some() || before(connection.rst_received_ns)
        }
        _ => true,
    }
}
