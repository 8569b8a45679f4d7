//! What the judge does with each record as it comes: it keeps what a line may need, and
//! makes an entry of each line that is settled.

use std::collections::HashMap;
use std::rc::Rc;

use super::entry::Entry;
use super::fitting::PASSES_ON_NS;
use super::line::AnyLine;
use super::remote::Remote;
use super::socket::Socket;
use super::workers::{Settled, Worker};
use super::{Judge, clock, end, line, without_calls};
use crate::nginx::message::MessageKind;
use crate::nginx::time_zone;
use crate::trace::record::{self, Capture, Connection, ConnectionEnd, Continuation, Nginx, Record};

/// A worker that has gone is forgotten after this time: its last lines are read by then.
const GONE_NS: u64 = 10_000_000_000;

/// A stranger's lines have found what they can, if it was silent for so long.
const SILENT_NS: u64 = PASSES_ON_NS + 5_000_000_000;

impl Judge {
    /// Takes one record, in the trace's order.
    pub fn push(&mut self, record: &Record) {
        self.order += 1;
        match record {
            Record::Capture(capture) => self.begin(capture),
            Record::Anchor(anchor) => {
                self.clock.add(*anchor);
                self.last_ns = self.last_ns.max(anchor.monotonic_ns);
                let pids: Vec<u32> = self.workers.keys().copied().collect();
                pids.into_iter().for_each(|pid| self.look(pid));
                self.forget_strangers();
                self.settle_doubtful(anchor.monotonic_ns);
            }
            Record::Connection(connection) => self.connection(connection),
            Record::Logged(logged) => {
                self.last_ns = self.last_ns.max(logged.ns);
                let wall_s = self
                    .clock
                    .realtime_ns(logged.ns)
                    .map(|ns| ns.div_euclid(1_000_000_000));
                let start_ns = self.capture.as_ref().map_or(0, |capture| capture.start_ns);
                let worker = self.workers.entry(logged.pid).or_default();
                worker.logged(*logged, wall_s, start_ns <= logged.ns);
                self.look(logged.pid);
                self.forget_the_gone();
            }
            Record::Continuation(continuation) => self.continuation(*continuation),
            Record::Line(line) => self.line(line),
            Record::Process(process) => {
                self.last_ns = self.last_ns.max(process.ns);
                let pid = process.worker.pid;
                self.gone.retain(|(_, gone)| *gone != pid);
                if process.started {
                    self.generations
                        .started(process.master_pid, &process.worker, process.ns);
                    self.worker_of(process.master_pid, &process.worker);
                } else {
                    self.generations.gone(pid, process.ns);
                    self.gone.push_back((process.ns, pid));
                    self.shutdowns.gone(process.ns, pid);
                }
                self.forget_the_gone();
            }
            Record::Instance(instance) => {
                self.last_ns = self.last_ns.max(instance.ns);
                self.instance(instance);
            }
            Record::Upstream(counters) => {
                let calls_unseen = self.capture.as_ref().is_some_and(without_calls::is_so);
                let figures = self.upstreams.entry(Remote::counted(counters));
                let figures = figures.or_default();
                figures.counters(counters);
                figures.calls_unseen |= calls_unseen;
            }
            Record::Loss(loss) => {
                *self.lost.entry(loss.what.clone()).or_default() += loss.count;
                let capture = self.capture.as_ref();
                let gaps_noticed = capture.is_some_and(|capture| capture.gaps_noticed);
                self.losses.add(loss, gaps_noticed);
            }
            Record::End(end) => self.end = Some(end.clone()),
            Record::PeerClose(close) => self.peer_close(close),
            Record::BackendExit(exit) => self.backend_exit(exit),
            Record::BackendProcess(process) => self.backend_process(process),
            Record::Listener(listener) => self.queues.full_one(listener),
            // Of a trace of another kind: `crate::join` makes of them what counts here.
            Record::Accepted(_) | Record::Trace(_) | Record::Unknown => {}
        }
    }

    fn begin(&mut self, capture: &Capture) {
        self.last_ns = self.last_ns.max(capture.start_ns);
        for nginx in &capture.nginx {
            self.know(nginx);
            self.generations.loaded(nginx, 0);
        }
        self.capture = Some(capture.clone());
    }

    fn know(&mut self, nginx: &Nginx) {
        self.zones
            .insert(nginx.master_pid, time_zone::resolve(&nginx.time_zone));
        for worker in &nginx.workers {
            self.worker_of(nginx.master_pid, worker);
        }
    }

    fn worker_of(&mut self, master_pid: u32, worker: &record::Worker) {
        self.pids.insert((master_pid, worker.inner_pid), worker.pid);
        self.masters.insert(worker.pid, master_pid);
    }

    /// An instance that appeared, or whose configuration is another one now.
    fn instance(&mut self, instance: &record::Instance) {
        let nginx = &instance.nginx;
        self.know(nginx);
        let since_ns = instance.since_ns.unwrap_or(instance.ns);
        let reloaded = self.generations.loaded(nginx, since_ns);
        let Some(capture) = &mut self.capture else {
            return;
        };
        let known = capture
            .nginx
            .iter_mut()
            .find(|known| known.master_pid == nginx.master_pid);
        match known {
            Some(known) => {
                if reloaded {
                    self.reloaded.insert(nginx.master_pid);
                }
                *known = nginx.clone();
            }
            None => {
                self.appeared.insert(nginx.master_pid, instance.ns);
                capture.nginx.push(nginx.clone());
            }
        }
    }

    fn connection(&mut self, connection: &Connection) {
        let connection = without_calls::completed(connection);
        let connection = connection.as_ref();
        self.last_ns = self.last_ns.max(connection.ended_ns);
        self.networks.insert(connection.pid, connection.netns);
        let figures = self.upstreams.entry(Remote::of(connection)).or_default();
        figures.connection(connection);
        self.remember(connection);
        if connection.first_byte_ns.is_none() {
            let started = connection
                .request_started_ns
                .unwrap_or(connection.opened_ns);
            self.unanswered.insert(connection.cookie, started);
        }
        self.shutdowns.connection(connection);
        if connection.end == ConnectionEnd::Open {
            return;
        }
        let worker = self.workers.entry(connection.pid).or_default();
        worker.closed(&Rc::new(connection.clone()));
        self.look(connection.pid);
    }

    /// Takes what has been settled of a worker by now.
    fn look(&mut self, pid: u32) {
        if let Some(worker) = self.workers.get_mut(&pid) {
            worker.look(self.last_ns, &self.clock, &self.losses);
            let settled = worker.take_settled();
            self.keep(pid, settled);
        }
    }

    fn continuation(&mut self, continuation: Continuation) {
        // What a worker did next is known only where its sends are seen.
        if self.capture.as_ref().is_some_and(without_calls::is_so) {
            return;
        }
        let cookie = continuation.failed_cookie;
        match self
            .entry_of
            .get(&cookie)
            .and_then(|index| self.entries.get_mut(*index))
        {
            Some(entry) => entry.continuation = Some(continuation),
            None => {
                self.continuations.insert(cookie, continuation);
            }
        }
    }

    /// Takes leave of workers whose last lines have been read.
    fn forget_the_gone(&mut self) {
        while let Some((ns, pid)) = self.gone.front().copied()
            && ns.saturating_add(GONE_NS) < self.last_ns
        {
            self.gone.pop_front();
            self.pids.retain(|_, known| *known != pid);
            self.masters.remove(&pid);
            self.forget(pid);
        }
    }

    /// The same of processes that are no known worker and were silent for a while: a line's
    /// pid may be anything.
    fn forget_strangers(&mut self) {
        let silent = |worker: &Worker| worker.active_ns.saturating_add(SILENT_NS) < self.last_ns;
        let strangers: Vec<u32> = self
            .workers
            .iter()
            .filter(|(pid, worker)| !self.masters.contains_key(pid) && silent(worker))
            .map(|(pid, _)| *pid)
            .collect();
        strangers.into_iter().for_each(|pid| self.forget(pid));
    }

    pub(super) fn forget(&mut self, pid: u32) {
        if let Some(mut worker) = self.workers.remove(&pid) {
            let settled = worker.finish(
                self.end.as_ref().map(|end| end.ns),
                &self.clock,
                &self.losses,
            );
            self.duplicates += worker.duplicates;
            self.crowded += worker.crowded();
            self.sightings_dropped += worker.sightings_dropped;
            self.sightings_forgotten |= worker.sightings_forgotten;
            self.keep(pid, settled);
        }
    }

    fn line(&mut self, record: &record::Line) {
        self.last_ns = self.last_ns.max(record.read_ns);
        let pid_of = |inner: u32, pids: &HashMap<(u32, u32), u32>| {
            record
                .pid
                .or_else(|| pids.get(&(record.master_pid, inner)).copied())
                .or_else(|| {
                    // Two masters may write to one log, as in an upgrade of the binary.
                    let mut others = pids.iter().filter(|((_, other), _)| *other == inner);
                    let (_, pid) = others.next()?;
                    others.next().is_none().then_some(*pid)
                })
                .unwrap_or(inner)
        };
        let log = self.logs.entry(record.master_pid).or_default();
        let since_ns = log.read_before(&record.file, record.read_ns);
        let line = line::read(record);
        self.legible.line(&record.file, line.is_some());
        match line {
            None => {}
            Some(AnyLine::Other { pid, key, hash }) => {
                let pid = pid_of(pid, &self.pids);
                let worker = self.workers.get_mut(&pid);
                if worker.is_some_and(|worker| {
                    worker.other_line(key, hash, &record.file, record.read_ns)
                }) {
                    let master = self.masters.get(&pid).copied();
                    self.proven.insert(master.unwrap_or(record.master_pid));
                }
            }
            Some(AnyLine::Limiting) => self.limitings += 1,
            Some(AnyLine::Upstream(mut line)) => {
                let pid = pid_of(line.summary.pid, &self.pids);
                if line.stamp_s.is_none()
                    && let Some(zone) = self.zones.get(&record.master_pid)
                {
                    let read_ns = self.clock.realtime_ns(record.read_ns);
                    let read_s = read_ns.map(|ns| ns.div_euclid(1_000_000_000));
                    line.stamp_s = clock::stamp_seconds(line.stamp, zone, read_s);
                }
                line.since_ns = since_ns;
                if let Some(master) = self.masters.get(&pid) {
                    line.master_pid = *master;
                }
                if !line.kind.is_incident() {
                    self.other_lines += 1;
                    let worker = self.workers.get_mut(&pid);
                    if worker.is_some_and(|worker| {
                        worker.other_line(line.key, line.hash, &record.file, record.read_ns)
                    }) {
                        self.proven.insert(line.master_pid);
                    }
                    return;
                }
                line.timer_ns = self.timer_of(&line);
                let seen = self.log_calls_seen(line.master_pid);
                let worker = self.workers.entry(pid).or_default();
                worker.line(*line, self.order, seen);
                self.look(pid);
            }
        }
    }

    /// Can lines of this instance have a sighting?
    pub(super) fn log_calls_seen(&self, master_pid: u32) -> bool {
        let mut instances = self.capture.iter().flat_map(|capture| &capture.nginx);
        instances
            .find(|nginx| nginx.master_pid == master_pid)
            .is_none_or(|nginx| nginx.log_calls_seen)
    }

    pub(super) fn keep(&mut self, pid: u32, settled: Vec<Settled>) {
        for settled in settled {
            if matches!(settled.socket, Socket::Assumed(_)) {
                self.doubtful.push_back((pid, settled));
                continue;
            }
            let Settled {
                line,
                sighting,
                socket,
                end_not_met,
                order,
            } = settled;
            let mut entry = Entry {
                line,
                sighting,
                socket,
                end_not_met,
                order,
                pid,
                continuation: None,
                peer_close: None,
                peer_remembered: false,
            };
            if entry.sighting.is_some() {
                self.proven.insert(entry.line.master_pid);
            }
            if !is_failure(&entry) {
                self.other_lines += 1;
                continue;
            }
            if let Some(connection) = entry.connection()
                && let Some(figures) = self.upstreams.get_mut(&Remote::of(connection))
            {
                figures.failed(connection);
            }
            if let Some(remote) = self.remote_of(&entry)
                && let Some(figures) = self.upstreams.get_mut(&remote)
            {
                figures.heard(entry.line.spoken());
            }
            if let Some(connection) = entry.connection() {
                let (cookie, opened_ns) = (connection.cookie, connection.opened_ns);
                entry.peer_close = self.peers.close_of(connection).cloned().map(Box::new);
                entry.peer_remembered = self.peers.remember_since(opened_ns);
                entry.continuation = self.continuations.get(cookie).copied();
                self.entry_of.insert(cookie, self.entries.len());
            }
            if entry.sighting.is_none() && !matches!(entry.socket, Socket::NoneByNature(_)) {
                self.unseen.entry(pid).or_default().add(entry.ns());
            }
            self.remember_failure(&entry);
            self.note_size(&entry);
            self.entries.push(entry);
        }
    }
}

/// Bytes that are no response are a failure if they are an alert of TLS: nginx passes
/// anything else on to its client.
fn is_failure(entry: &Entry) -> bool {
    entry.line.kind != MessageKind::NotHttp
        || entry
            .connection()
            .is_some_and(|connection| end::is_tls_alert(connection))
}
