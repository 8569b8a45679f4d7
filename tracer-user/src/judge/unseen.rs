//! A worker's lines that were not seen being written: where nginx's binary has no symbols
//! for the uprobe, where it was left out, where sightings were lost. A worker is
//! single-threaded, and the order of its lines is the order of its closes. So its lines
//! and its closes are put in order against each other ([`super::alignment`]), each line
//! with the connections that can be its own ([`super::agreement`]).
//!
//! Of several logs the order between their lines is not known: each is aligned by itself.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::agreement::{agreement, alert_agrees};
use super::alignment::{self, Pair};
use super::clock::Clock;
use super::end::peer_end_ns;
use super::fitting::{AT_ONCE, PASSES_ON_NS, no_socket};
use super::line::UpstreamLine;
use super::losses::Lost;
use super::socket::{Aligned, Socket};
use super::without_calls::with_end_met;
use super::workers::Settled;
use crate::nginx::message::MessageKind;
use crate::trace::record::Connection;

/// Closes kept for lines that may come.
const CLOSES: usize = 4096;
/// A line is read within moments of its connection's close.
const CLOSE_WAITS_NS: u64 = 10_000_000_000;
/// A line is aligned when the next ones have come, and their closes.
const LINE_WAITS_NS: u64 = 2_000_000_000;
/// So often at most, or this many lines wait.
const LOOKS_EVERY_NS: u64 = 500_000_000;
/// Connections that one line is held against.
const MOST_CANDIDATES: usize = 256;

const NOBODY: &str = "the line was not seen being written, and no connection of its worker that \
                      ended then shows what it reports";

/// A line that waits.
#[derive(Debug)]
struct Waiting {
    line: UpstreamLine,
    order: u64,
}

/// A close, and whether a line has been given it already.
#[derive(Debug)]
struct Close {
    connection: Rc<Connection>,
    given: bool,
    /// The same, had nginx met its end: calls were missed then.
    assumed: Option<Rc<Connection>>,
}

impl Close {
    /// See [`agreement`].
    fn agreement(&self, line: &UpstreamLine, clock: &Clock) -> Option<i32> {
        let assumed = || agreement(line, self.assumed.as_ref()?, clock);
        agreement(line, &self.connection, clock).or_else(assumed)
    }

    /// The connection as it shows what this line reports, and whether that is assumed.
    fn as_shown(&self, line: &UpstreamLine, clock: &Clock) -> (Rc<Connection>, bool) {
        match &self.assumed {
            Some(assumed) if agreement(line, &self.connection, clock).is_none() => {
                (Rc::clone(assumed), true)
            }
            _ => (Rc::clone(&self.connection), false),
        }
    }
}

/// What a line may be about.
#[derive(Default)]
struct Candidates {
    pairs: Vec<Pair>,
    /// Another line has been given one that it may be about.
    contested: bool,
}

/// Lines and closes of one worker that have not found each other.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    lines: VecDeque<Waiting>,
    /// Lines about bytes that nginx passes on until the backend closes.
    passing_on: Vec<Waiting>,
    closes: VecDeque<Close>,
    looked_ns: u64,
}

impl Unseen {
    pub(super) fn closed(&mut self, connection: &Rc<Connection>) {
        // nginx writes no line about a connection that it found ended in its pool.
        if connection.idle_end.is_some() {
            return;
        }
        let oldest = connection.ended_ns.saturating_sub(CLOSE_WAITS_NS);
        let needed = !self.lines.is_empty() || !self.passing_on.is_empty();
        while let Some(first) = self.closes.front()
            && (self.closes.len() >= CLOSES || !needed && first.connection.ended_ns < oldest)
        {
            self.closes.pop_front();
        }
        self.closes.push_back(Close {
            connection: Rc::clone(connection),
            given: false,
            assumed: None,
        });
    }

    /// This connection is the one of a line that was seen being written.
    pub(super) fn taken(&mut self, cookie: u64) {
        let is_it = |close: &Close| close.connection.cookie == cookie;
        let found = self.closes.iter().rposition(is_it);
        if let Some(index) = found {
            self.closes.remove(index);
        }
    }

    pub(super) fn line(&mut self, line: UpstreamLine, order: u64) {
        let waiting = Waiting { line, order };
        if waiting.line.kind == MessageKind::NotHttp {
            self.passing_on.push(waiting);
        } else {
            self.lines.push_back(waiting);
        }
    }

    /// Lines whose time has come by now.
    pub(super) fn settle(&mut self, now_ns: u64, clock: &Clock, lost: &Lost) -> Vec<Settled> {
        let mut settled = Vec::new();
        if self.lines.is_empty() && self.passing_on.is_empty()
            || now_ns < self.looked_ns.saturating_add(LOOKS_EVERY_NS)
        {
            return settled;
        }
        let ready = now_ns.saturating_sub(LINE_WAITS_NS);
        if self
            .lines
            .front()
            .is_some_and(|first| first.line.read_ns <= ready)
        {
            self.looked_ns = now_ns;
            settled = self.align(ready, clock, lost);
        }
        if !self.passing_on.is_empty() {
            self.looked_ns = now_ns;
            settled.extend(self.pass_on(now_ns, clock));
        }
        settled
    }

    /// Nothing more will come.
    pub(super) fn finish(&mut self, clock: &Clock, lost: &Lost) -> Vec<Settled> {
        let mut settled = self.align(u64::MAX, clock, lost);
        settled.extend(self.pass_on(u64::MAX, clock));
        settled
    }

    /// Aligns all lines, and gives out those that were read by `ready_ns`.
    fn align(&mut self, ready_ns: u64, clock: &Clock, lost: &Lost) -> Vec<Settled> {
        self.assume(lost);
        let mut files: Vec<&str> = Vec::new();
        for waiting in &self.lines {
            let file = waiting.line.summary.file.as_str();
            if !files.contains(&file) {
                files.push(file);
            }
        }
        let mut found: Vec<Option<alignment::Aligned>> = vec![None; self.lines.len()];
        for file in files {
            let of_file = |(_, waiting): &(usize, &Waiting)| waiting.line.summary.file == file;
            let indices: Vec<usize> = self
                .lines
                .iter()
                .enumerate()
                .filter(of_file)
                .map(|(index, _)| index)
                .collect();
            let (lines, contested): (Vec<Vec<Pair>>, Vec<bool>) = indices
                .iter()
                .filter_map(|index| self.lines.get(*index))
                .map(|waiting| self.candidates(waiting, clock))
                .map(|candidates| (candidates.pairs, candidates.contested))
                .unzip();
            let aligned = alignment::align(&lines, self.closes.len());
            for ((index, aligned), contested) in indices.into_iter().zip(aligned).zip(contested) {
                if let Some(slot) = found.get_mut(index) {
                    *slot = aligned.map(|aligned| alignment::Aligned {
                        forced: aligned.forced && !contested,
                        ..aligned
                    });
                }
            }
        }
        doubt_shared(&mut found);
        self.give_out(&found, ready_ns, clock)
    }

    /// Of connections that were reset, or given up, while calls of nginx's were missed: one of
    /// them may have failed. That it read a FIN, sequence numbers tell.
    fn assume(&mut self, lost: &Lost) {
        let is_new = |close: &&mut Close| {
            let connection = &close.connection;
            let failed = connection.rst_received_ns.is_some() || connection.socket_error.is_some();
            close.assumed.is_none() && failed
        };
        for close in self.closes.iter_mut().filter(is_new) {
            let connection = &close.connection;
            let since = peer_end_ns(connection).unwrap_or(connection.ended_ns);
            if lost.calls_missed(since..=connection.ended_ns) {
                close.assumed = with_end_met(connection);
            }
        }
    }

    /// Moves out the lines at the beginning that are ready, and takes their closes away.
    fn give_out(
        &mut self,
        found: &[Option<alignment::Aligned>],
        ready_ns: u64,
        clock: &Clock,
    ) -> Vec<Settled> {
        let mut settled = Vec::new();
        for aligned in found {
            let ready = |first: &Waiting| first.line.read_ns <= ready_ns;
            if !self.lines.front().is_some_and(ready) {
                break;
            }
            let Some(waiting) = self.lines.pop_front() else {
                break;
            };
            let close = aligned
                .as_ref()
                .and_then(|aligned| Some((aligned, self.closes.get_mut(aligned.close)?)));
            let socket = match close {
                Some((aligned, close)) => {
                    close.given = true;
                    let (connection, end_not_met) = close.as_shown(&waiting.line, clock);
                    Socket::Aligned(Aligned {
                        connection,
                        end_not_met,
                        candidates: aligned.candidates,
                        ordered: aligned.unique,
                        forced: aligned.forced && aligned.unique,
                    })
                }
                None => nobody(&waiting.line),
            };
            settled.push(waiting.with(socket));
        }
        settled
    }

    /// The connections that can be this line's, by the order of their closes.
    fn candidates(&self, waiting: &Waiting, clock: &Clock) -> Candidates {
        let mut found = Candidates::default();
        if no_socket(&waiting.line).is_some() {
            return found;
        }
        let earliest = waiting.line.read_ns.saturating_sub(CLOSE_WAITS_NS);
        let first = self
            .closes
            .partition_point(|close| close.connection.ended_ns < earliest);
        for (index, close) in self.closes.iter().enumerate().skip(first) {
            match close.agreement(&waiting.line, clock) {
                Some(_) if close.given => found.contested = true,
                Some(weight) => found.pairs.push(Pair {
                    close: index,
                    weight,
                }),
                None => {}
            }
        }
        // The last before the line was read are the nearest.
        let too_many = found.pairs.len().saturating_sub(MOST_CANDIDATES);
        found.pairs.drain(..too_many);
        found
    }

    fn pass_on(&mut self, now_ns: u64, clock: &Clock) -> Vec<Settled> {
        let mut settled = Vec::new();
        for waiting in std::mem::take(&mut self.passing_on) {
            let ready = waiting.line.read_ns.saturating_add(LINE_WAITS_NS) <= now_ns;
            let late = waiting.line.read_ns.saturating_add(PASSES_ON_NS) <= now_ns;
            let agree = |close: &Close| {
                let connection = Some(&close.connection).filter(|_| !close.given)?;
                let weight = alert_agrees(&waiting.line, connection, clock)?;
                Some((weight, connection.first_byte_ns, Rc::clone(connection)))
            };
            let mut candidates: Vec<_> = self.closes.iter().filter_map(agree).collect();
            candidates.sort_by_key(|(weight, first, _)| (*weight, std::cmp::Reverse(*first)));
            let count = u32::try_from(candidates.len()).unwrap_or(u32::MAX);
            match candidates.pop() {
                Some((_, _, connection)) if ready => {
                    self.taken(connection.cookie);
                    settled.push(waiting.with(Socket::Aligned(Aligned {
                        connection,
                        candidates: count,
                        ordered: count == 1,
                        forced: false,
                        end_not_met: false,
                    })));
                }
                None if late => {
                    let socket = nobody(&waiting.line);
                    settled.push(waiting.with(socket));
                }
                _ => self.passing_on.push(waiting),
            }
        }
        settled
    }
}

impl Waiting {
    fn with(self, socket: Socket) -> Settled {
        Settled {
            line: self.line,
            sighting: None,
            end_not_met: matches!(&socket, Socket::Aligned(aligned) if aligned.end_not_met),
            socket,
            order: self.order,
        }
    }
}

fn nobody(line: &UpstreamLine) -> Socket {
    match no_socket(line) {
        Some(why) => Socket::NoneByNature(why),
        None if line.kind == MessageKind::ConnectFailedAtOnce => Socket::NoneByNature(AT_ONCE),
        None => Socket::Missing(NOBODY),
    }
}

/// Lines of several logs that took the same close: it is one of several for each.
fn doubt_shared(found: &mut [Option<alignment::Aligned>]) {
    let mut users: HashMap<usize, u32> = HashMap::new();
    for aligned in found.iter().flatten() {
        *users.entry(aligned.close).or_default() += 1;
    }
    for aligned in found.iter_mut().flatten() {
        if users.get(&aligned.close) > Some(&1) {
            aligned.unique = false;
            aligned.forced = false;
        }
    }
}
