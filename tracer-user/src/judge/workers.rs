//! Everything that happened in one worker process, in the order of the ring buffer,
//! and the match of its log lines to its connections.
//!
//! A worker is single-threaded: between a failing call on an upstream socket and the
//! line about it, and between the line and the close of that socket, there is no other
//! call on an upstream socket and no line of another client's (nginx's source; observed
//! with strace on 1.22). So the line's connection is the one that this thread closes
//! next, unless it logs something else before; and it must fit the line
//! ([`super::fitting`]). One kind of line stands apart: of bytes that are no HTTP nginx
//! says so and passes them on, and serves others until the backend closes.

use std::collections::VecDeque;
use std::rc::Rc;

use super::clock::Clock;
use super::duplicates::Duplicates;
use super::fitting::{AT_ONCE, PASSES_ON_NS, fitting, no_socket};
use super::line::{Key, UpstreamLine};
use super::losses::Lost;
use super::socket::Socket;
use super::unseen::Unseen;
use crate::nginx::message::MessageKind;
use crate::trace::record::{Connection, Logged};

/// Sightings kept while no line claims them: lines of logs that nobody follows, or
/// that have not been read yet.
const SIGHTINGS: usize = 8192;
/// Sightings among which one may still wait for its close.
const LATELY: usize = 64;
/// Connections among which a line may find the one that was closed later than next.
const RECENT: usize = 256;
/// A line is read within moments of being written; its sighting waits this long for a
/// capture that stalls.
const SIGHTING_WAITS_NS: u64 = 60_000_000_000;
/// The ring buffer and the logs are read in turns: a sighting may come this much later
/// than its line.
const LINE_WAITS_NS: u64 = 2_000_000_000;
/// A stamp is of the moment at which the event loop woke up.
const STAMP_NEAR_S: i64 = 2;
/// A stamp and a sighting further apart than this are not of the same line, whatever
/// clock steps and daylight saving did.
const STAMP_TOLERANCE_S: i64 = 2 * 3600;

const LEVEL_ERROR: u32 = 4;
const LEVEL_INFO: u32 = 7;

/// A line that a sighting was found for, or that no sighting can be found for.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) line: UpstreamLine,
    pub(super) sighting: Option<Logged>,
    pub(super) socket: Socket,
    /// No call of nginx's was seen that met its connection's end.
    pub(super) end_not_met: bool,
    /// Order of arrival in the trace.
    pub(super) order: u64,
}

/// What the thread closed after a line.
#[derive(Debug)]
enum Close {
    Awaited,
    /// The thread went on to something else first.
    None,
    Of(Rc<Connection>),
}

/// What a sighting is still waiting for.
#[derive(Debug)]
struct Sighting {
    logged: Logged,
    wall_s: Option<i64>,
    /// The logs were being followed when it was written.
    followed: bool,
    close: Close,
    line: Option<(UpstreamLine, u64)>,
}

impl Sighting {
    /// Is its line about bytes that nginx passes on until the backend closes?
    fn passes_on(&self) -> bool {
        matches!(&self.line, Some((line, _)) if line.kind == MessageKind::NotHttp)
    }
}

/// One worker process.
#[derive(Debug, Default)]
pub(super) struct Worker {
    sightings: VecDeque<Sighting>,
    /// Lines whose sighting has not come.
    lines: VecDeque<(UpstreamLine, u64)>,
    /// Lines that have no sighting, and closes for them.
    unseen: Unseen,
    seen: Duplicates,
    settled: Vec<Settled>,
    /// A sighting has its line, or what it waited for, since the last look: without it
    /// each close would look through all of them.
    changed: bool,
    /// The last connections that it closed.
    recent: VecDeque<Rc<Connection>>,
    /// A line waits for a close that need not be the next.
    passing_on: bool,
    /// The newest event.
    last_ns: u64,
    /// The newest that was its own.
    pub(super) active_ns: u64,
    /// Lines dropped because another file holds them too.
    pub(super) duplicates: u64,
    /// Sightings that no line claimed.
    pub(super) sightings_dropped: u64,
    /// Some of them because they were too many, or waited too long.
    pub(super) sightings_forgotten: bool,
}

/// May a line with this sighting be about a socket that is closed next? Warnings and
/// notices stand between such a line and the close, lines without a client do not.
const fn may_precede_close(logged: &Logged) -> bool {
    logged.connection != 0 && (logged.level <= LEVEL_ERROR || logged.level == LEVEL_INFO)
}

impl Worker {
    pub(super) fn logged(&mut self, logged: Logged, wall_s: Option<i64>, followed: bool) {
        self.last_ns = self.last_ns.max(logged.ns);
        self.active_ns = self.active_ns.max(logged.ns);
        for earlier in self.sightings.iter_mut().rev().take(LATELY) {
            let same_client = earlier.logged.connection == logged.connection;
            let goes_on = (same_client && logged.level > LEVEL_ERROR)
                || logged.connection == 0
                || earlier.logged.tid != logged.tid;
            if !goes_on && matches!(earlier.close, Close::Awaited) {
                earlier.close = Close::None;
                self.changed |= earlier.line.is_some();
            }
        }
        self.sightings.push_back(Sighting {
            close: if may_precede_close(&logged) {
                Close::Awaited
            } else {
                Close::None
            },
            logged,
            wall_s,
            followed,
            line: None,
        });
        self.forget_old_sightings();
        self.retry_lines();
        self.settle();
    }

    fn forget_old_sightings(&mut self) {
        let oldest = self.last_ns.saturating_sub(SIGHTING_WAITS_NS);
        while self
            .sightings
            .front()
            .is_some_and(|first| self.sightings.len() > SIGHTINGS || first.logged.ns < oldest)
        {
            let Some(first) = self.sightings.pop_front() else {
                return;
            };
            self.sightings_dropped += u64::from(is_lost_line(&first));
            self.sightings_forgotten |= first.followed && first.line.is_none();
            self.settled.extend(settle(first, &self.recent));
        }
    }

    fn retry_lines(&mut self) {
        for (line, order) in std::mem::take(&mut self.lines) {
            if line.read_ns.saturating_add(LINE_WAITS_NS) < self.last_ns {
                self.unseen(line, order);
            } else {
                self.claim(line, order);
            }
        }
    }

    pub(super) fn closed(&mut self, connection: &Rc<Connection>) {
        self.last_ns = self.last_ns.max(connection.ended_ns);
        self.active_ns = self.active_ns.max(connection.ended_ns);
        // From the newest back: only the lines since the last close still wait.
        for sighting in self.sightings.iter_mut().rev().take(LATELY) {
            if matches!(sighting.close, Close::Of(_)) {
                break;
            }
            if matches!(sighting.close, Close::Awaited) && sighting.logged.tid == connection.tid {
                sighting.close = Close::Of(Rc::clone(connection));
                self.changed |= sighting.line.is_some();
            }
        }
        self.unseen.closed(connection);
        self.recent.push_back(Rc::clone(connection));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.changed |= self.passing_on;
        self.settle();
    }

    /// The sighting of a line that has no sighting's line yet: the first one alike of
    /// about that second, for a worker writes its lines in the order in which it logs
    /// them; if the clocks disagree, the first one alike that has just come.
    fn sighting_of(&self, key: Key, stamp_s: Option<i64>, read_ns: u64) -> Option<usize> {
        let first_within = |tolerance: i64, waits_ns: u64| {
            self.sightings.iter().position(|sighting| {
                let logged = &sighting.logged;
                let seen = Key {
                    level: logged.level,
                    errno: logged.errno,
                    connection: logged.connection,
                };
                sighting.line.is_none()
                    && seen == key
                    && logged.ns <= read_ns
                    && read_ns - logged.ns <= waits_ns
                    && sighting
                        .wall_s
                        .zip(stamp_s)
                        .is_none_or(|(wall, stamp)| (wall - stamp).abs() <= tolerance)
            })
        };
        first_within(STAMP_NEAR_S, SIGHTING_WAITS_NS)
            .or_else(|| first_within(STAMP_TOLERANCE_S, LINE_WAITS_NS))
    }

    /// A line about something else: its sighting is not waited for. Tells whether it had
    /// come.
    pub(super) fn other_line(&mut self, key: Key, hash: u64, file: &str, read_ns: u64) -> bool {
        if self.seen.is_duplicate(hash, file) {
            return false;
        }
        self.sighting_of(key, None, read_ns)
            .and_then(|index| self.sightings.remove(index))
            .is_some()
    }

    /// A line about an upstream. `log_calls_seen` says whether its sighting can come.
    pub(super) fn line(&mut self, line: UpstreamLine, order: u64, log_calls_seen: bool) {
        self.active_ns = self.active_ns.max(line.read_ns);
        if self.seen.is_duplicate(line.hash, &line.summary.file) {
            self.duplicates += 1;
            return;
        }
        if log_calls_seen {
            self.claim(line, order);
            self.settle();
        } else {
            self.unseen(line, order);
        }
    }

    /// No sighting of this line comes any more.
    fn unseen(&mut self, line: UpstreamLine, order: u64) {
        match no_socket(&line) {
            Some(why) => self.settled.push(Settled {
                line,
                sighting: None,
                socket: Socket::NoneByNature(why),
                end_not_met: false,
                order,
            }),
            None => self.unseen.line(line, order),
        }
    }

    /// Time has gone on: what waited for others by its side may wait no longer.
    pub(super) fn look(&mut self, now_ns: u64, clock: &Clock, lost: &Lost) {
        self.last_ns = self.last_ns.max(now_ns);
        if !self.lines.is_empty() {
            self.retry_lines();
            self.settle();
        }
        let settled = self.unseen.settle(now_ns, clock, lost);
        self.settled.extend(settled);
    }

    fn claim(&mut self, line: UpstreamLine, order: u64) {
        // Lines of one key are written in their order: a later one must not overtake.
        let overtakes = self
            .lines
            .iter()
            .any(|(waiting, _)| waiting.key == line.key);
        match self.sighting_of(line.key, line.stamp_s, line.read_ns) {
            Some(index) if !overtakes => {
                if let Some(sighting) = self.sightings.get_mut(index) {
                    sighting.line = Some((line, order));
                    self.changed = true;
                }
            }
            _ => self.lines.push_back((line, order)),
        }
    }

    /// Moves out the lines that need to wait for nothing more.
    fn settle(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let mut index = 0;
        while let Some(sighting) = self.sightings.get(index) {
            let ready = if sighting.passes_on() {
                let waited = self.last_ns.saturating_sub(sighting.logged.ns);
                waited > PASSES_ON_NS || passed_on(sighting, &self.recent).is_some()
            } else {
                sighting.line.as_ref().is_some_and(|(line, _)| {
                    !matches!(sighting.close, Close::Awaited) || no_socket(line).is_some()
                })
            };
            if !ready {
                index += 1;
                continue;
            }
            if let Some(sighting) = self.sightings.remove(index) {
                self.settled.extend(settle(sighting, &self.recent));
            }
        }
        self.passing_on = self.sightings.iter().any(Sighting::passes_on);
    }

    pub(super) fn take_settled(&mut self) -> Vec<Settled> {
        for settled in &self.settled {
            if let Socket::Found(connection) = &settled.socket {
                self.unseen.taken(connection.cookie);
            }
        }
        std::mem::take(&mut self.settled)
    }

    /// Lines among too many closes to tell which was theirs.
    pub(super) const fn crowded(&self) -> u64 {
        self.unseen.crowded
    }

    /// This connection, which a line was assumed to be about, is.
    pub(super) fn taken(&mut self, cookie: u64) {
        self.unseen.taken(cookie);
    }

    /// The trace is over: nothing more will come. What was seen being written after
    /// `end_ns` may not have been read any more.
    pub(super) fn finish(
        &mut self,
        end_ns: Option<u64>,
        clock: &Clock,
        lost: &Lost,
    ) -> Vec<Settled> {
        let sightings = std::mem::take(&mut self.sightings);
        let unread = sightings.iter().filter(|sighting| {
            is_lost_line(sighting) && end_ns.is_none_or(|end| sighting.logged.ns <= end)
        });
        self.sightings_dropped += unread.count() as u64;
        let settled = sightings
            .into_iter()
            .filter_map(|sighting| settle(sighting, &self.recent));
        self.settled.extend(settled);
        for (line, order) in std::mem::take(&mut self.lines) {
            self.unseen(line, order);
        }
        let mut settled = self.take_settled();
        settled.extend(self.unseen.finish(clock, lost));
        settled
    }
}

/// Was an error about a client seen being written that no followed log showed?
fn is_lost_line(sighting: &Sighting) -> bool {
    let logged = &sighting.logged;
    sighting.followed
        && sighting.line.is_none()
        && logged.level <= LEVEL_ERROR
        && logged.connection != 0
}

/// The connection whose bytes the line is about: of those that fit it the one whose first
/// byte is the latest.
fn passed_on(sighting: &Sighting, closed: &VecDeque<Rc<Connection>>) -> Option<Rc<Connection>> {
    let (line, _) = sighting.line.as_ref()?;
    closed
        .iter()
        .filter(|connection| connection.tid == sighting.logged.tid)
        .filter_map(
            |connection| match fitting(line, &sighting.logged, Rc::clone(connection)) {
                Socket::Found(found) => Some(found),
                _ => None,
            },
        )
        .max_by_key(|connection| connection.first_byte_ns)
}

fn settle(sighting: Sighting, closed: &VecDeque<Rc<Connection>>) -> Option<Settled> {
    let passed_on = sighting
        .passes_on()
        .then(|| passed_on(&sighting, closed))
        .flatten();
    let (line, order) = sighting.line?;
    let logged = sighting.logged;
    let socket = if let Some(why) = no_socket(&line) {
        Socket::NoneByNature(why)
    } else if let Some(connection) = passed_on {
        Socket::Found(connection)
    } else {
        match sighting.close {
            Close::Of(connection) => fitting(&line, &logged, connection),
            _ if line.kind == MessageKind::ConnectFailedAtOnce => Socket::NoneByNature(AT_ONCE),
            Close::Awaited => Socket::Missing("its connection was not seen being closed"),
            Close::None => {
                Socket::Missing("the worker went on without closing a connection that is known")
            }
        }
    };
    Some(Settled {
        line,
        sighting: Some(logged),
        socket,
        end_not_met: false,
        order,
    })
}
