//! A worker's lines that were not seen being written: where nginx's binary has no symbols
//! for the uprobe, where it was left out, where sightings were lost. A worker is
//! single-threaded, and the order of its lines is the order of its closes. So its lines
//! and its closes are put in order against each other ([`super::alignment`]), each line
//! with the connections that can be its own ([`super::agreement`]).
//!
//! Of several logs the order between their lines is not known: each is aligned by itself.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::agreement::{alert_agrees, closed_within};
use super::alignment::{self, Pair};
use super::clock::Clock;
use super::closes::{self, Close, Closes, READ_SLACK_NS};
use super::end::peer_end_ns;
use super::fitting::{AT_ONCE, PASSES_ON_NS, no_socket};
use super::line::UpstreamLine;
use super::losses::Lost;
use super::socket::{Aligned, Socket};
use super::without_calls::with_end_met;
use super::workers::Settled;
use crate::nginx::message::MessageKind;
use crate::trace::record::Connection;

/// A line is aligned when the next ones have come, and their closes.
const LINE_WAITS_NS: u64 = 2_000_000_000;
/// So often at most, or this many lines wait.
const LOOKS_EVERY_NS: u64 = 500_000_000;
/// Lines that are aligned together, connections that one of them is held against, and pairs
/// of both, some 40 bytes each.
const MOST_LINES: usize = 16_384;
const MOST_CANDIDATES: usize = 1024;
const MOST_PAIRS: usize = 1 << 19;
/// Closes that are looked at for all of them, at some 25 ns each.
const MOST_LOOKS: usize = 1 << 22;
/// What a close that was left out must weigh less than the best for it to be no matter.
const NO_MATTER: i32 = 50;
/// Closes come in about the order in which they were.
const ABOUT_NS: u64 = 100_000_000;

const NOBODY: &str = "the line was not seen being written, and no connection of its worker that \
                      ended then shows what it reports";
const CROWDED: &str = "the line was not seen being written, and too many connections of its \
                       worker ended then to tell which it is about";

/// A line that waits.
#[derive(Debug)]
struct Waiting {
    line: UpstreamLine,
    order: u64,
}

/// What one line may take of the bounds for all.
#[derive(Clone, Copy)]
struct Bounds {
    pairs: usize,
    looks: usize,
}

/// What a line may be about.
#[derive(Default)]
struct Candidates {
    pairs: Vec<Pair>,
    /// Another line has been given one that it may be about.
    contested: bool,
    /// So many came into question that one of those left out may be its own.
    crowded: bool,
}

/// What a line got.
#[derive(Default)]
struct Found {
    aligned: Option<alignment::Aligned>,
    contested: bool,
    crowded: bool,
}

/// Lines and closes of one worker that have not found each other.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    lines: VecDeque<Waiting>,
    /// Lines about bytes that nginx passes on until the backend closes.
    passing_on: Vec<Waiting>,
    closes: Closes,
    looked_ns: u64,
    /// Lines among too many closes to tell which was theirs.
    pub(super) crowded: u64,
}

impl Unseen {
    pub(super) fn closed(&mut self, connection: &Rc<Connection>) {
        // nginx writes no line about a connection that it found ended in its pool.
        if connection.idle_end.is_some() {
            return;
        }
        let first_line_ns = self.lines.front().map(|first| first.line.read_ns);
        let passing_on = !self.passing_on.is_empty();
        self.closes.push(connection, first_line_ns, passing_on);
    }

    /// This connection is the one of a line that was seen being written.
    pub(super) fn taken(&mut self, cookie: u64) {
        self.closes.remove(cookie);
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

    /// Aligns lines, and gives out those that were read by `ready_ns`. Of many each part is
    /// aligned with those that follow it.
    fn align(&mut self, ready_ns: u64, clock: &Clock, lost: &Lost) -> Vec<Settled> {
        self.assume(lost);
        let mut settled = Vec::new();
        loop {
            let all = self.lines.len() <= MOST_LINES;
            let mut found = self.aligned(clock);
            if !all {
                found.truncate(MOST_LINES / 2);
            }
            let given = self.give_out(&found, ready_ns, clock);
            let more = given.len() == found.len();
            settled.extend(given);
            if all || !more {
                return settled;
            }
        }
    }

    /// What each of the first lines gets.
    fn aligned(&self, clock: &Clock) -> Vec<Found> {
        let mut files: Vec<&str> = Vec::new();
        let first = || self.lines.iter().take(MOST_LINES);
        for waiting in first() {
            let file = waiting.line.summary.file.as_str();
            if !files.contains(&file) {
                files.push(file);
            }
        }
        let mut found: Vec<Found> = first().map(|_| Found::default()).collect();
        let count = found.len().max(1);
        let bounds = Bounds {
            pairs: (MOST_PAIRS / count).min(MOST_CANDIDATES),
            looks: MOST_LOOKS / count,
        };
        for file in files {
            let mut of_file = Vec::new();
            let mut lines = Vec::new();
            for ((index, waiting), slot) in first().enumerate().zip(&mut found) {
                if waiting.line.summary.file == file {
                    let candidates = self.candidates(waiting, clock, bounds);
                    slot.contested = candidates.contested;
                    slot.crowded = candidates.crowded;
                    of_file.push(index);
                    lines.push(candidates.pairs);
                }
            }
            let aligned = alignment::align(&lines, self.closes.list.len());
            for (index, aligned) in of_file.into_iter().zip(aligned) {
                if let Some(slot) = found.get_mut(index) {
                    slot.aligned = aligned;
                }
            }
        }
        doubt_shared(&mut found);
        found
    }

    /// Of connections that were reset, or given up, while calls of nginx's were missed: one of
    /// them may have failed. That it read a FIN, sequence numbers tell.
    fn assume(&mut self, lost: &Lost) {
        let is_new = |close: &&mut Close| {
            let connection = &close.connection;
            let failed = connection.rst_received_ns.is_some() || connection.socket_error.is_some();
            close.assumed.is_none() && failed
        };
        for close in self.closes.list.iter_mut().filter(is_new) {
            let connection = &close.connection;
            let since = peer_end_ns(connection).unwrap_or(connection.ended_ns);
            if lost.calls_missed(since..=connection.ended_ns) {
                close.assumed = with_end_met(connection);
            }
        }
    }

    /// Moves out the lines at the beginning that are ready, and takes their closes away.
    fn give_out(&mut self, found: &[Found], ready_ns: u64, clock: &Clock) -> Vec<Settled> {
        let mut settled = Vec::new();
        for found in found {
            let ready = |first: &Waiting| first.line.read_ns <= ready_ns;
            if !self.lines.front().is_some_and(ready) {
                break;
            }
            let Some(waiting) = self.lines.pop_front() else {
                break;
            };
            self.crowded += u64::from(found.crowded);
            let aligned = found.aligned.as_ref();
            let close = aligned
                .and_then(|aligned| Some((aligned, self.closes.list.get_mut(aligned.close)?)));
            let socket = match close {
                Some((aligned, close)) => {
                    close.given = true;
                    let (connection, end_not_met) = close.as_shown(&waiting.line, clock);
                    Socket::Aligned(Aligned {
                        connection,
                        end_not_met,
                        candidates: aligned.candidates,
                        ordered: aligned.unique && !found.crowded,
                        forced: aligned.forced
                            && aligned.unique
                            && !found.contested
                            && !found.crowded,
                    })
                }
                None if found.crowded => Socket::Missing(CROWDED),
                None => nobody(&waiting.line),
            };
            settled.push(waiting.with(socket));
        }
        settled
    }

    /// The connections that can be this line's, by the order of their closes.
    fn candidates(&self, waiting: &Waiting, clock: &Clock, bounds: Bounds) -> Candidates {
        let mut found = Candidates::default();
        if no_socket(&waiting.line).is_some() {
            return found;
        }
        let line = &waiting.line;
        let closes = &self.closes.list;
        let (earliest, latest) = closed_within(line);
        let from = |ns: u64| closes.partition_point(|close| close.connection.ended_ns < ns);
        let first = from(earliest.saturating_sub(ABOUT_NS));
        let mut end = from(latest.saturating_add(ABOUT_NS));
        // The last before the line was read are the nearest.
        if end.saturating_sub(first) > bounds.looks {
            end = from(line.read_ns.saturating_add(READ_SLACK_NS)).max(first);
        }
        let begin = first.max(end.saturating_sub(bounds.looks));
        let passed_over = (begin > first).then(|| begin - 1);
        let passed_over = passed_over.and_then(|index| closes.get(index));
        let passed_over = passed_over.map(|close| close.connection.ended_ns);
        for index in begin..end {
            let Some(close) = closes.get(index) else {
                break;
            };
            match close.agreement(line, clock) {
                Some(_) if close.given => found.contested = true,
                Some(weight) => found.pairs.push(Pair {
                    close: index,
                    weight,
                }),
                None => {}
            }
        }
        found.crowded = closes::may_be_of(line, passed_over.max(self.closes.gone_ns))
            || leave_some_out(&mut found.pairs, bounds.pairs);
        found
    }

    fn pass_on(&mut self, now_ns: u64, clock: &Clock) -> Vec<Settled> {
        let mut settled = Vec::new();
        for waiting in std::mem::take(&mut self.passing_on) {
            let ready = waiting.line.read_ns.saturating_add(LINE_WAITS_NS) <= now_ns;
            let late = waiting.line.read_ns.saturating_add(PASSES_ON_NS) <= now_ns;
            let agree = |connection: &Rc<Connection>| {
                let weight = alert_agrees(&waiting.line, connection, clock)?;
                Some((weight, connection.first_byte_ns, Rc::clone(connection)))
            };
            let mut candidates: Vec<_> = self.closes.free().filter_map(agree).collect();
            candidates.sort_by_key(|(weight, first, _)| (*weight, std::cmp::Reverse(*first)));
            let count = u32::try_from(candidates.len()).unwrap_or(u32::MAX);
            match candidates.pop() {
                Some((_, _, connection)) if ready => {
                    self.closes.remove(connection.cookie);
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

/// Of too many, the lightest and the earliest go: the last before the line was read are the
/// nearest. Tells whether one of those was about as good as the best.
pub(super) fn leave_some_out(pairs: &mut Vec<Pair>, most: usize) -> bool {
    if pairs.len() <= most {
        return false;
    }
    pairs.sort_unstable_by_key(|pair| std::cmp::Reverse((pair.weight, pair.close)));
    let best = pairs.first().map_or(0, |pair| pair.weight);
    let left_out = pairs.get(most).map_or(0, |pair| pair.weight);
    pairs.truncate(most);
    pairs.shrink_to_fit();
    pairs.sort_unstable_by_key(|pair| pair.close);
    left_out >= best - NO_MATTER
}

/// Lines of several logs that took the same close: it is one of several for each.
fn doubt_shared(found: &mut [Found]) {
    let mut users: HashMap<usize, u32> = HashMap::new();
    for aligned in found.iter().filter_map(|found| found.aligned.as_ref()) {
        *users.entry(aligned.close).or_default() += 1;
    }
    for aligned in found.iter_mut().filter_map(|found| found.aligned.as_mut()) {
        if users.get(&aligned.close) > Some(&1) {
            aligned.unique = false;
            aligned.forced = false;
        }
    }
}
