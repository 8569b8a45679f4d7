//! One incident of the report, from an entry: its case, its verdict, what losses and
//! doubts take from it.

use super::case::{Case, Constants, Settings, ms};
use super::causes::{self, Verdict};
use super::fitting::ANOTHERS;
use super::generations::in_force;
use super::line::UpstreamLine;
use super::moments::Moments;
use super::queues::FullQueue;
use super::socket::{Aligned, Socket};
use super::upstreams::Figures;
use super::{Entry, Judge, clock, end, settings, timers, without_calls};
use crate::nginx::message::SocketEvidence;
use crate::report::model::{Cause, Confidence, ConnectionSummary, Incident, Match, Phase};
use crate::report::words::counted;
use crate::trace::record::Connection;

/// `proxy_connect_timeout` unless it is set: for so long nginx tries.
const TRIES_FOR_NS: u64 = 60_000_000_000;

impl Judge {
    /// The settings that the entry's worker ran with.
    pub(super) fn settings_of(&self, entry: &Entry) -> Settings {
        let line = &entry.line;
        self.generations
            .of(line.master_pid, entry.pid, entry.ns())
            .and_then(|nginx| {
                let configuration = in_force(nginx)?;
                let version = nginx.version.as_deref();
                Some(settings::settings_for(configuration, version, line))
            })
            .unwrap_or_else(|| Settings {
                kernel_tls: true,
                ..Settings::default()
            })
    }

    /// See [`timers::of_head`].
    pub(super) fn timer_of(&self, line: &UpstreamLine) -> Option<u64> {
        let instances = self.capture.iter().flat_map(|capture| &capture.nginx);
        let own = instances
            .into_iter()
            .find(|nginx| nginx.master_pid == line.master_pid)?;
        timers::of_head(own.configuration.as_ref()?, own.version.as_deref(), line)
    }

    fn instance_of(&self, line: &UpstreamLine) -> Option<u32> {
        let several = self
            .capture
            .as_ref()
            .is_some_and(|capture| capture.nginx.len() > 1);
        several.then_some(line.master_pid)
    }

    fn constants_of(&self, entry: &Entry) -> Constants {
        self.figures_of(entry)
            .map_or_else(Constants::default, Figures::settled)
    }

    fn figures_of(&self, entry: &Entry) -> Option<&Figures> {
        self.upstreams.get(&self.remote_of(entry)?)
    }

    /// The queue of the backend's listening socket, if it was full meanwhile.
    fn full_queue(&self, entry: &Entry) -> Option<FullQueue> {
        if let Some(connection) = entry.connection() {
            return self.queues.full(
                connection.remote,
                Some(connection.netns),
                connection.opened_ns,
                connection.ended_ns,
            );
        }
        // Its connection is not known, but about when it tried is.
        let ns = entry.ns();
        self.queues
            .full(entry.line.peer?, None, ns.saturating_sub(TRIES_FOR_NS), ns)
    }

    /// Records lost at about that time, which could have changed the verdict on this line.
    fn lost_around(&self, entry: &Entry, settings: &Settings) -> u64 {
        // Sightings are lost of some lines, not of those around them.
        const AFTER_NS: u64 = 2_100_000_000;
        let ns = entry.ns();
        let near = |unseen: &Moments| {
            let before = unseen.last_before(ns.saturating_add(1));
            before.is_some_and(|before| ns - before <= AFTER_NS)
                || unseen
                    .first_after(ns)
                    .is_some_and(|after| after - ns <= AFTER_NS)
        };
        let sightings = self.unseen.get(&entry.pid).is_some_and(near);
        let of_sightings = if sightings {
            self.losses.sightings.around(entry.span_ns())
        } else {
            0
        };
        // Where the kernel encrypts, a connection does not tell what was missed of it.
        let encrypted = settings.kernel_tls
            && (entry.connection()).is_some_and(|found| found.handshake_ns.is_some());
        let of_calls = if encrypted {
            self.losses.calls_missed_around(entry.span_ns())
        } else {
            0
        };
        self.losses.verdicts.around(entry.span_ns()) + of_sightings + of_calls
    }

    /// Says why nothing is known of the backend's side, though its host was watched.
    fn side_lost(&self, entry: &Entry) -> Option<String> {
        let host = self.sides_lost.get(&entry.connection()?.cookie)?;
        entry.peer_close.is_none().then(|| {
            format!(
                "the capture on {host} lost something at about that time: the backend's side of \
                 this connection may be missing for that"
            )
        })
    }

    /// Notes what the backend gave up of a request, if this entry shows it.
    pub(super) fn note_size(&mut self, entry: &Entry) {
        let request = causes::given_up(&self.case_of(entry, &Settings::default()));
        if let (Some(remote), Some(request)) = (self.remote_of(entry), request)
            && let Some(figures) = self.upstreams.get_mut(&remote)
        {
            figures.gave_up(request);
        }
    }

    /// The same for all entries anew: by now it is known what the other sides left unread.
    pub(super) fn note_sizes(&mut self) {
        for figures in self.upstreams.values_mut() {
            figures.forget_given_up();
        }
        let entries = std::mem::take(&mut self.entries);
        for entry in &entries {
            self.note_size(entry);
        }
        self.entries = entries;
    }

    fn case_of<'a>(&'a self, entry: &'a Entry, settings: &'a Settings) -> Case<'a> {
        Case {
            line: &entry.line,
            sighting: entry.sighting.as_ref(),
            socket: &entry.socket,
            settings,
            constants: self.constants_of(entry),
            peer_close: entry.cause_of_end(),
            backend_exit: self.exit_of(entry),
            peer_open: self.peer_open(entry),
            full: self.full_queue(entry),
            figures: self.figures_of(entry),
            history: self.history_of(entry),
            end_not_met: entry.end_not_met,
            // A capture that ended in order had noted what ended until then.
            watched_until_ns: if self.end.is_some() {
                u64::MAX
            } else {
                self.last_ns
            },
        }
    }

    pub(super) fn incident(&self, entry: &Entry, id: u64) -> (Incident, Phase, Verdict) {
        let settings = self.settings_of(entry);
        let case = self.case_of(entry, &settings);
        let phase = case.phase();
        let mut verdict = causes::decide(&case);
        let (side, means) = causes::side_and_means(&case, verdict.cause);
        if verdict.cause != Cause::Unexplained {
            verdict.evidence.extend(without_connection(&case));
        }
        if let Socket::Aligned(aligned) = &entry.socket {
            weaken(&mut verdict, aligned);
        }
        without_calls::weaken(&mut verdict, &case);
        let lost = self.lost_around(entry, &settings);
        if lost > 0 && case.matched() != Match::None {
            verdict.confidence = match verdict.confidence {
                Confidence::Certain => Confidence::Likely,
                _ => Confidence::Possible,
            };
            verdict.evidence.push(format!(
                "{} lost at about that time, so this is less sure",
                counted(lost, "record was", "records were")
            ));
        } else if lost > 0 && matches!(entry.socket, Socket::Missing(_)) {
            verdict.evidence.push(format!(
                "{} lost at about that time",
                counted(lost, "record was", "records were")
            ));
        }
        verdict.evidence.extend(self.side_lost(entry));
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
        let whose = self.remote_of(entry).map(|remote| self.whose(remote));
        let whose = whose.unwrap_or_default();
        let incident = Incident {
            id,
            time,
            line: entry.line.summary.clone(),
            upstream: entry.line.upstream.clone() + &whose,
            side,
            means,
            phase,
            cause: verdict.cause,
            confidence: verdict.confidence,
            matched: case.matched(),
            candidates: case.candidates(),
            retried: None,
            served: None,
            request_group: id,
            instance: self.instance_of(&entry.line),
            connection: case
                .connection()
                .map(|found| connection_summary(&case, found)),
            evidence: verdict.evidence.clone(),
            advice: verdict.advice.as_ref().map(|remedy| remedy.text.clone()),
        };
        (incident, phase, verdict)
    }
}

/// A verdict is no surer than the connection that it rests on.
fn weaken(verdict: &mut Verdict, aligned: &Aligned) {
    let most = match aligned {
        Aligned { ordered: false, .. } => Confidence::Possible,
        Aligned { forced: false, .. } => Confidence::Likely,
        _ => Confidence::Certain,
    };
    // The surest comes first.
    verdict.confidence = verdict.confidence.max(most);
    verdict.evidence.push(match aligned {
        Aligned { forced: true, .. } => "the line was not seen being written; of the \
            connections that its worker closed then this one alone shows what it reports"
            .to_owned(),
        Aligned { ordered: true, .. } => "the line was not seen being written; the order of \
            its worker's lines and closes leaves this connection alone"
            .to_owned(),
        Aligned { candidates: 1, .. } => "the line was not seen being written; this \
            connection may be another line's"
            .to_owned(),
        Aligned { candidates, .. } => format!(
            "the line was not seen being written; this is one of {candidates} connections that \
             it may be about"
        ),
    });
}

/// Why the verdict rests on the line alone, if a connection would have told more.
fn without_connection(case: &Case<'_>) -> Option<String> {
    if case.line.kind.socket() == SocketEvidence::NoSocket {
        return None;
    }
    match case.socket {
        Socket::Found(_) | Socket::Aligned(_) => None,
        Socket::NoneByNature(why) => Some(format!("there is no connection to look at: {why}")),
        Socket::Missing(why) => Some(format!("its connection is not known: {why}")),
        Socket::Assumed(_) => Some(format!("its connection is not known: {ANOTHERS}")),
    }
}

fn connection_summary(case: &Case<'_>, connection: &Connection) -> ConnectionSummary {
    let end = case.end_ns().unwrap_or(connection.ended_ns);
    let measured = !without_calls::is_unmeasured(connection);
    ConnectionSummary {
        cookie: connection.cookie,
        local: connection.local.to_string(),
        remote: connection.remote.to_string(),
        worker_pid: connection.pid,
        age_ms: ms(end.saturating_sub(connection.opened_ns)),
        requests: case.requests(),
        requests_at_least: case.requests_at_least(),
        reused: case.reused(),
        idle_ms: case.idle_ns().map(ms),
        in_flight_ms: case.in_flight_ns().map(ms),
        request_bytes: measured.then_some(connection.request_bytes),
        response_bytes: measured.then_some(connection.response_bytes),
        fin_received: connection.fin_received_ns.is_some(),
        rst_received: connection.rst_received_ns.is_some(),
        rst_sent: connection.rst_sent_ns.is_some(),
        closed_by_nginx: end::peer_end_ns(connection).is_none(),
        first_seen_mid_life: connection.first_seen_mid_life,
        calls_unseen: connection.calls_unseen,
        missed_calls: connection.missed_calls,
        filled_in: connection.filled_in,
    }
}
