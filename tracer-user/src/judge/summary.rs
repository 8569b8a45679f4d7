//! The report over all incidents: counts, upstreams, advice, notes.

use std::collections::BTreeMap;

use super::attempts::{self, Attempt};
use super::by_functions::{self, Past};
use super::causes::Verdict;
use super::end::ending;
use super::{Details, Judge, Judged, findings, hidden, no_live};
use crate::report::model::{
    Advice, CaptureSummary, Cause, Incident, Match, MatchCounts, Means, Phase, Report, SCHEMA,
    Side, Summary, UpstreamSummary,
};
use crate::report::words::counted;
use crate::trace::record::{EndReason, Nginx};

/// Steps of the wall clock below this are its ordinary discipline.
const CLOCK_STEP_NS: u64 = 500_000_000;

pub(super) fn report(judge: &Judge, notes: Vec<String>) -> Judged {
    let judged: Vec<_> = judge
        .entries
        .iter()
        .zip(1..)
        .map(|(entry, id)| judge.incident(entry, id))
        .collect();
    let attempts: Vec<Attempt<'_>> = judge
        .entries
        .iter()
        .zip(&judged)
        .map(|(entry, (_, phase, _))| {
            // What followed the close of a connection that may be another line's is no
            // word of this one's request.
            let own = entry.only_connection().is_some();
            let continuation = entry.continuation.as_ref().filter(|next| {
                // Nor what the worker did next, if a send before it may have been missed.
                own && !judge.losses.sends_missed(next.closed_ns..=next.next_ns)
            });
            let next_unanswered = continuation.is_some_and(|continuation| {
                let started = continuation
                    .next_cookie
                    .and_then(|next| judge.unanswered.get(next));
                started.is_some_and(|started| *started <= continuation.next_ns + SLACK_NS)
            });
            Attempt {
                entry,
                continuation,
                phase: *phase,
                next_unanswered,
            }
        })
        .collect();
    let outcomes = attempts::outcomes(&attempts);
    let details = judge
        .entries
        .iter()
        .zip(&attempts)
        .map(|(entry, attempt)| Details {
            connection: entry.connection().map(|connection| (**connection).clone()),
            logged: entry.sighting,
            continuation: attempt.continuation.copied(),
            peer_close: entry.peer_close.as_deref().cloned(),
            exit: judge.exit_of(entry).cloned(),
        })
        .collect();

    let mut incidents = Vec::with_capacity(judged.len());
    let mut verdicts = Vec::with_capacity(judged.len());
    for ((mut incident, _, verdict), outcome) in judged.into_iter().zip(outcomes) {
        incident.retried = outcome.retried;
        incident.served = outcome.served;
        incident.request_group = outcome.group as u64 + 1;
        incidents.push(incident);
        verdicts.push(verdict);
    }
    no_live::name_the_failures(judge, &mut incidents);
    let mut advice = advice(&incidents, &verdicts);
    findings::advise(judge, &incidents, &mut advice);
    let mut report = Report {
        schema: SCHEMA.to_owned(),
        capture: capture(judge),
        summary: summary(judge, &incidents),
        upstreams: upstreams(judge, &incidents),
        advice,
        joined: Vec::new(),
        notes,
        incidents,
    };
    report.notes.extend(remarks(judge));
    Judged { report, details }
}

/// A retry's connect() and its request's first byte may come a little after the step
/// that the kernel noted.
const SLACK_NS: u64 = 1_000_000_000;

#[expect(clippy::cast_precision_loss, reason = "nanoseconds shown as seconds")]
fn capture(judge: &Judge) -> CaptureSummary {
    let start_ns = judge.capture.as_ref().map_or(0, |capture| capture.start_ns);
    let end_ns = judge.end.as_ref().map_or(judge.last_ns, |end| end.ns);
    let seconds = end_ns.saturating_sub(start_ns) as f64 / 1e9;
    CaptureSummary {
        host: judge
            .capture
            .as_ref()
            .map(|capture| capture.host.clone())
            .unwrap_or_default(),
        kernel: judge
            .capture
            .as_ref()
            .map(|capture| capture.kernel.clone())
            .unwrap_or_default(),
        nginx: judge
            .capture
            .iter()
            .flat_map(|capture| &capture.nginx)
            .map(|nginx| {
                nginx
                    .version
                    .clone()
                    .unwrap_or_else(|| nginx.binary.clone())
            })
            .collect(),
        start: judge.clock.rfc3339(start_ns),
        end: judge.clock.rfc3339(end_ns),
        duration_s: (seconds * 1000.0).round() / 1000.0,
        lost: judge.lost.clone(),
        complete: judge.end.is_some(),
        hooks: judge
            .capture
            .as_ref()
            .map(|capture| capture.hooks.clone())
            .unwrap_or_default(),
    }
}

fn summary(judge: &Judge, incidents: &[Incident]) -> Summary {
    let mut matched = MatchCounts::default();
    let mut by_side: BTreeMap<Side, u64> = BTreeMap::new();
    let mut by_cause: BTreeMap<Cause, u64> = BTreeMap::new();
    let mut requests: BTreeMap<u64, Option<bool>> = BTreeMap::new();
    for incident in incidents {
        match incident.matched {
            Match::Exact => matched.exact += 1,
            Match::Ordered => matched.ordered += 1,
            Match::Window => matched.window += 1,
            Match::None => matched.none += 1,
        }
        *by_side.entry(incident.side).or_default() += 1;
        *by_cause.entry(incident.cause).or_default() += 1;
        requests.insert(incident.request_group, incident.served);
    }
    let count = |wanted| {
        requests
            .values()
            .filter(|served| **served == Some(wanted))
            .count() as u64
    };
    Summary {
        lines: incidents.len() as u64,
        other_lines: judge.other_lines,
        foreign_lines: judge.foreign,
        elsewhere_lines: judge.sightings_dropped,
        unread_lines: judge.legible.unread(),
        illegible_logs: judge.legible.alien().map(str::to_owned).collect(),
        matched,
        by_side,
        by_cause,
        requests: requests.len() as u64,
        requests_served: count(true),
        requests_failed: count(false),
    }
}

fn upstreams(judge: &Judge, incidents: &[Incident]) -> Vec<UpstreamSummary> {
    let mut all = judge.upstreams.clone();
    for (incident, entry) in incidents.iter().zip(&judge.entries) {
        let Some(remote) = judge.remote_of(entry) else {
            continue;
        };
        let figures = all.entry(remote).or_default();
        figures.incidents += 1;
        // A close in mid-response looks like one after a response until its line says more.
        let cut_short = incident.cause == Cause::ResponseAborted
            || (incident.side == Side::Backend
                && matches!(
                    incident.phase,
                    Phase::Header | Phase::Body | Phase::Upgraded
                ));
        if cut_short
            && let Some(connection) = entry.connection()
            && incident.means != Means::None
        {
            figures.was_in_flight(ending(connection));
        }
    }
    all.into_iter()
        .map(|(remote, figures)| UpstreamSummary {
            address: format!("{}{}", remote.address, judge.whose(remote)),
            name: figures.name.clone(),
            connections: figures.connects(),
            requests: figures.requests(),
            reused_ratio: figures.reused_ratio(),
            incidents: figures.incidents,
            closes: figures.closes(),
            idle_timeout: figures.settled().idle_timeout,
            request_limit: figures.settled().request_limit,
            work_timeout: judge
                .histories
                .get(&remote)
                .and_then(|history| history.work().timeout()),
            size_threshold: figures.settled().size_threshold,
            connect_ms: figures.connect_ms(),
            first_byte_ms: figures.first_byte_ms(),
        })
        .collect()
}

/// The same advice for the same upstream once, most incidents first.
fn advice(incidents: &[Incident], verdicts: &[Verdict]) -> Vec<Advice> {
    let mut advice: Vec<Advice> = Vec::new();
    let mut known: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (incident, verdict) in incidents.iter().zip(verdicts) {
        let Some(remedy) = &verdict.advice else {
            continue;
        };
        let index = *known
            .entry((&incident.upstream, &remedy.text))
            .or_insert_with(|| {
                advice.push(Advice {
                    upstream: incident.upstream.clone(),
                    text: remedy.text.clone(),
                    because: remedy.because.clone(),
                    incidents: 0,
                });
                advice.len() - 1
            });
        if let Some(advice) = advice.get_mut(index) {
            advice.incidents += 1;
        }
    }
    advice.sort_by_key(|advice| std::cmp::Reverse(advice.incidents));
    advice
}

/// What went past the kernel's TCP functions, by what the files said if that was in force.
fn past_functions(nginx: &Nginx) -> Past {
    let configuration = nginx.configuration.as_ref();
    Past::of(configuration.filter(|_| !nginx.changed_before_start))
}

/// What limits the report.
fn remarks(judge: &Judge) -> Vec<String> {
    let mut notes = Vec::new();
    let Some(capture) = &judge.capture else {
        notes.push(
            "the trace does not say where it was captured: its beginning is missing".to_owned(),
        );
        return notes;
    };
    for hook in capture.hooks.iter().filter(|hook| !hook.attached) {
        let reason = hook.reason.as_deref().unwrap_or("no reason recorded");
        notes.push(format!("{} was not attached: {reason}", hook.name));
    }
    let past: Vec<Past> = capture.nginx.iter().map(past_functions).collect();
    notes.extend(by_functions::note(&capture.hooks, &past));
    for nginx in &capture.nginx {
        let master = nginx.master_pid;
        if judge.appeared.contains_key(&master) {
            notes.push(format!(
                "{} (master {master}) appeared during the capture",
                nginx.version.as_deref().unwrap_or(&nginx.binary)
            ));
        }
        if judge.reloaded.contains(&master) {
            notes.push(format!(
                "nginx (master {master}) loaded another configuration during the capture; each \
                 incident names the settings that its worker ran with"
            ));
        }
        let name = nginx.version.as_deref().unwrap_or(&nginx.binary);
        if !nginx.log_calls_seen {
            notes.push(format!(
                "lines of {name} (master {}) were not seen being written: they are matched to \
                 connections by the order of each worker's lines and closes",
                nginx.master_pid
            ));
        }
        if let Some(problem) = &nginx.configuration_problem {
            notes.push(format!(
                "configuration of {name} (master {}): {problem}",
                nginx.master_pid
            ));
        }
    }
    let cut = judge.shutdowns.note(judge);
    // A worker that ends cuts its requests without a line at any level.
    let hidden = cut.is_none().then(|| hidden::below_level(judge)).flatten();
    notes.extend(cut.into_iter().chain(hidden).chain(hidden::limited(judge)));
    if judge.foreign > 0 {
        notes.push(format!(
            "{} of an upstream, and no call of the nginx that was captured wrote {}: a line feed in \
             what a backend or a client sent makes such lines, or another program, another nginx \
             too, that writes to the log; they count for nothing here",
            counted(
                judge.foreign,
                "line of the error log speaks",
                "lines of the error log speak"
            ),
            if judge.foreign == 1 { "it" } else { "them" },
        ));
    }
    let duplicates = judge.duplicates;
    if duplicates > 0 {
        notes.push(format!(
            "{} counted once",
            counted(
                duplicates,
                "line that stood in two logs was",
                "lines that stood in two logs were"
            )
        ));
    }
    if judge.crowded > 0 {
        notes.push(format!(
            "{} not seen being written while too many connections of one worker ended to tell \
             for certain which it was about",
            counted(judge.crowded, "line was", "lines were")
        ));
    }
    notes.extend(judge.legible.notes());
    let dropped = judge.sightings_dropped;
    if dropped > 0 {
        notes.push(format!(
            "{} seen being written but found in no log that was followed (a rotation that was \
             too quick, or another log)",
            counted(dropped, "error line was", "error lines were")
        ));
    }
    let step = judge.clock.largest_step_ns();
    if step.unsigned_abs() > CLOCK_STEP_NS {
        notes.push(format!(
            "the wall clock stepped by {} ms during the capture",
            step / 1_000_000
        ));
    }
    if judge
        .end
        .as_ref()
        .is_some_and(|end| end.reason == EndReason::Failure)
    {
        notes.push("the capture ended early because the trace could not be written".to_owned());
    }
    notes
}
