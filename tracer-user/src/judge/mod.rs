//! From a trace to findings: a pure function. No clock, no file system, no kernel, no
//! configuration of the host that runs it; the same trace gives the same report, byte
//! for byte. The live output of a capture is the same function on a growing trace.
//!
//! Records are taken one by one ([`Judge::push`]) and kept only as long as a line may
//! need them: what stays are the incidents and each upstream's figures.

mod attempts;
mod case;
mod causes;
mod clock;
mod line;
mod samples;
mod settings;
mod summary;
mod upstreams;
mod workers;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;

use self::case::{Case, Constants, Settings, ms};
use self::causes::Verdict;
use self::clock::Clock;
use self::line::{AnyLine, UpstreamLine};
use self::upstreams::Figures;
use self::workers::{Settled, Socket, Worker};
use crate::nginx::time_zone;
use crate::report::model::{Confidence, ConnectionSummary, Incident, Match, Phase, Report};
use crate::trace::record::{
    Capture, Connection, ConnectionEnd, Continuation, End, Logged, Loss, Record,
};

/// An incident before its verdict.
#[derive(Debug)]
pub(crate) struct Entry {
    line: UpstreamLine,
    sighting: Option<Logged>,
    socket: Socket,
    order: u64,
}

impl Entry {
    fn connection(&self) -> Option<&Rc<Connection>> {
        match &self.socket {
            Socket::Found(connection) => Some(connection),
            _ => None,
        }
    }

    /// When, on the monotonic clock: exact if the line was seen being written.
    fn ns(&self) -> u64 {
        self.sighting
            .map_or(self.line.read_ns, |sighting| sighting.ns)
    }
}

/// What `show` draws a timeline from.
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// The incident's connection.
    pub connection: Option<Connection>,
    /// The sighting of its line.
    pub logged: Option<Logged>,
    /// What the worker did next.
    pub continuation: Option<Continuation>,
}

/// A report and, for each incident in its order, what it was made from.
#[derive(Debug)]
pub struct Judged {
    /// The report.
    pub report: Report,
    /// Details by incident.
    pub details: Vec<Details>,
}

/// Judges a whole trace. `notes` are what the reader has to say of the file.
pub fn judge(records: impl IntoIterator<Item = Record>) -> Judge {
    let mut judge = Judge::default();
    for record in records {
        judge.push(&record);
    }
    judge
}

/// The state of judging.
#[derive(Debug, Default)]
pub struct Judge {
    capture: Option<Capture>,
    clock: Clock,
    zones: HashMap<u32, jiff::tz::TimeZone>,
    /// Host pid of a worker by its master and the pid in its lines.
    pids: HashMap<(u32, u32), u32>,
    workers: HashMap<u32, Worker>,
    continuations: HashMap<u64, Continuation>,
    entries: Vec<Entry>,
    /// Entries before this one have been given out by [`Judge::fresh`].
    told: usize,
    upstreams: BTreeMap<SocketAddr, Figures>,
    other_lines: u64,
    unread_lines: u64,
    losses: Vec<Loss>,
    end: Option<End>,
    last_ns: u64,
    order: u64,
    /// Connections still open at the end, with the start of an unanswered request.
    unanswered: HashMap<u64, u64>,
}

impl Judge {
    /// Takes one record, in the trace's order.
    pub fn push(&mut self, record: &Record) {
        self.order += 1;
        match record {
            Record::Capture(capture) => self.begin(capture),
            Record::Anchor(anchor) => {
                self.clock.add(*anchor);
                self.last_ns = self.last_ns.max(anchor.monotonic_ns);
            }
            Record::Connection(connection) => self.connection(connection),
            Record::Logged(logged) => {
                self.last_ns = self.last_ns.max(logged.ns);
                let wall_s = self
                    .clock
                    .realtime_ns(logged.ns)
                    .map(|ns| ns.div_euclid(1_000_000_000));
                let worker = self.workers.entry(logged.pid).or_default();
                worker.logged(*logged, wall_s);
                let settled = worker.take_settled();
                self.keep(settled);
            }
            Record::Continuation(continuation) => {
                self.continuations
                    .insert(continuation.failed_cookie, *continuation);
            }
            Record::Line(line) => self.line(line),
            Record::Process(process) => {
                let key = (process.master_pid, process.worker.inner_pid);
                self.pids.insert(key, process.worker.pid);
            }
            Record::Upstream(counters) => {
                let address = SocketAddr::new(counters.address, counters.port);
                self.upstreams
                    .entry(address)
                    .or_default()
                    .counters(counters);
            }
            Record::Loss(loss) => self.losses.push(loss.clone()),
            Record::End(end) => self.end = Some(end.clone()),
            Record::Trace(_) | Record::Unknown => {}
        }
    }

    fn begin(&mut self, capture: &Capture) {
        self.last_ns = self.last_ns.max(capture.start_ns);
        for nginx in &capture.nginx {
            self.zones
                .insert(nginx.master_pid, time_zone::resolve(&nginx.time_zone));
            for worker in &nginx.workers {
                self.pids
                    .insert((nginx.master_pid, worker.inner_pid), worker.pid);
            }
        }
        self.capture = Some(capture.clone());
    }

    fn connection(&mut self, connection: &Connection) {
        self.last_ns = self.last_ns.max(connection.ended_ns);
        let figures = self.upstreams.entry(connection.remote).or_default();
        figures.connection(connection);
        if connection.end == ConnectionEnd::Open {
            if connection.first_byte_ns.is_none()
                && let Some(started) = connection.request_started_ns.or(Some(connection.opened_ns))
            {
                self.unanswered.insert(connection.cookie, started);
            }
            return;
        }
        let worker = self.workers.entry(connection.pid).or_default();
        worker.closed(&Rc::new(connection.clone()));
        let settled = worker.take_settled();
        self.keep(settled);
    }

    fn line(&mut self, record: &crate::trace::record::Line) {
        self.last_ns = self.last_ns.max(record.read_ns);
        let pid_of = |inner: u32, pids: &HashMap<(u32, u32), u32>| {
            pids.get(&(record.master_pid, inner))
                .copied()
                .unwrap_or(inner)
        };
        match line::read(record) {
            None => self.unread_lines += 1,
            Some(AnyLine::Other { pid, key }) => {
                let pid = pid_of(pid, &self.pids);
                self.workers.entry(pid).or_default().other_line(key);
            }
            Some(AnyLine::Upstream(mut line)) => {
                let pid = pid_of(line.summary.pid, &self.pids);
                if let Some(zone) = self.zones.get(&record.master_pid) {
                    line.stamp_s = clock::stamp_seconds(line.stamp, zone);
                }
                if !line.kind.is_incident() {
                    self.other_lines += 1;
                    self.workers.entry(pid).or_default().other_line(line.key);
                    return;
                }
                let worker = self.workers.entry(pid).or_default();
                worker.line(*line, self.order);
                let settled = worker.take_settled();
                self.keep(settled);
            }
        }
    }

    fn keep(&mut self, settled: Vec<Settled>) {
        for Settled {
            line,
            sighting,
            socket,
            order,
        } in settled
        {
            self.entries.push(Entry {
                line,
                sighting,
                socket,
                order,
            });
        }
    }

    /// Incidents whose line and connection have come since the last call, with what
    /// can be said by now. Their numbers are provisional.
    pub fn fresh(&mut self) -> Vec<Incident> {
        let fresh = self.entries.get(self.told..).unwrap_or_default();
        let incidents = fresh
            .iter()
            .zip(self.told..)
            .map(|(entry, index)| self.incident(entry, index as u64 + 1).0)
            .collect();
        self.told = self.entries.len();
        incidents
    }

    /// The trace is over: the report. `notes` are what its reader has to say of the file.
    #[must_use]
    pub fn finish(mut self, notes: Vec<String>) -> Judged {
        let mut pids: Vec<u32> = self.workers.keys().copied().collect();
        pids.sort_unstable();
        for pid in pids {
            if let Some(worker) = self.workers.get_mut(&pid) {
                let settled = worker.finish();
                self.keep(settled);
            }
        }
        let end_ns = self.end.as_ref().map(|end| end.ns);
        self.entries.retain(|entry| {
            // What was logged after the bell belongs to no capture.
            end_ns.is_none_or(|end| entry.sighting.is_none_or(|seen| seen.ns <= end))
        });
        self.entries.sort_by_key(|entry| (entry.ns(), entry.order));
        self.name_upstreams();
        summary::report(&self, notes)
    }

    fn name_upstreams(&mut self) {
        let Some(capture) = &self.capture else { return };
        for (address, figures) in &mut self.upstreams {
            figures.name = capture
                .nginx
                .iter()
                .filter_map(|nginx| nginx.configuration.as_ref())
                .find_map(|configuration| settings::block_of(configuration, Some(*address), ""))
                .map(|block| block.name.clone());
        }
    }

    fn settings_of(&self, line: &UpstreamLine) -> Settings {
        self.capture
            .iter()
            .flat_map(|capture| &capture.nginx)
            .find(|nginx| nginx.master_pid == line.master_pid)
            .and_then(|nginx| nginx.configuration.as_ref())
            .map(|configuration| settings::settings_for(configuration, line))
            .unwrap_or_default()
    }

    fn constants_of(&self, line: &UpstreamLine) -> Constants {
        line.peer
            .and_then(|peer| self.upstreams.get(&peer))
            .map_or_else(Constants::default, |figures| Constants {
                idle_timeout: figures.idle_timeout(),
                request_limit: figures.request_limit(),
            })
    }

    /// Records lost at about that time, which could have changed the verdict.
    fn lost_around(&self, ns: u64) -> u64 {
        const BEFORE_NS: u64 = 100_000_000;
        // Losses are counted once a second.
        const AFTER_NS: u64 = 2_100_000_000;
        self.losses
            .iter()
            .filter(|loss| loss.what != "upstream_slots")
            .filter(|loss| {
                (ns.saturating_sub(BEFORE_NS)..ns.saturating_add(AFTER_NS)).contains(&loss.ns)
            })
            .map(|loss| loss.count)
            .sum()
    }

    fn incident(&self, entry: &Entry, id: u64) -> (Incident, Phase, Verdict) {
        let settings = self.settings_of(&entry.line);
        let case = Case {
            line: &entry.line,
            sighting: entry.sighting.as_ref(),
            socket: &entry.socket,
            settings: &settings,
            constants: self.constants_of(&entry.line),
        };
        let (side, means) = case.side_and_means();
        let phase = case.phase();
        let mut verdict = causes::decide(&case);
        let lost = self.lost_around(entry.ns());
        if lost > 0 && case.matched() != Match::None {
            verdict.confidence = match verdict.confidence {
                Confidence::Certain => Confidence::Likely,
                _ => Confidence::Possible,
            };
            verdict.evidence.push(format!(
                "{lost} kernel records were lost within two seconds of it, so this is less sure"
            ));
        }
        let time = entry.sighting.map_or_else(
            || {
                entry
                    .line
                    .stamp_s
                    .map(clock::rfc3339_second)
                    .unwrap_or_default()
            },
            |sighting| self.clock.rfc3339(sighting.ns),
        );
        let incident = Incident {
            id,
            time,
            line: entry.line.summary.clone(),
            upstream: entry.line.upstream.clone(),
            side,
            means,
            phase,
            cause: verdict.cause,
            confidence: verdict.confidence,
            matched: case.matched(),
            retried: None,
            served: None,
            request_group: id,
            connection: case
                .connection()
                .map(|found| connection_summary(&case, found)),
            evidence: verdict.evidence.clone(),
            advice: verdict.advice.as_ref().map(|remedy| remedy.text.clone()),
        };
        (incident, phase, verdict)
    }
}

fn connection_summary(case: &Case<'_>, connection: &Connection) -> ConnectionSummary {
    let end = case.end_ns().unwrap_or(connection.ended_ns);
    ConnectionSummary {
        cookie: connection.cookie,
        local: connection.local.to_string(),
        remote: connection.remote.to_string(),
        worker_pid: connection.pid,
        age_ms: ms(end.saturating_sub(connection.opened_ns)),
        requests: case.requests(),
        reused: case.reused(),
        idle_ms: case.idle_ns().map(ms),
        in_flight_ms: case.in_flight_ns().map(ms),
        request_bytes: connection.request_bytes,
        response_bytes: connection.response_bytes,
        fin_received: connection.fin_received_ns.is_some(),
        rst_received: connection.rst_received_ns.is_some(),
        rst_sent: connection.rst_sent_ns.is_some(),
        closed_by_nginx: upstreams::peer_end_ns(connection).is_none(),
        first_seen_mid_life: connection.first_seen_mid_life,
    }
}
