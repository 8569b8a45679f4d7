//! The report for people: the first screen says what happened, who closed, why
//! and what to change; incidents and upstreams follow.
//!
//! Whatever comes from logs, clients, backends or file names passes
//! [`escape`](super::escape::escape) on its way out.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

pub use super::page::TextOptions;
pub use super::words::{one_line, verdict_sentence};

use anstyle::Style;

use super::advice;
use super::escape::escape;
use super::incidents;
use super::model::{Cause, Confidence, Incident, Joined, Means, Report, Side, Summary};
use super::page::{BAD, DIM, GOOD, HEADING, PLAIN, Page, WARNING};
use super::upstreams;
use super::words::{NAME, clock, count, counted, date_time, milliseconds, who_and_how};

/// Columns of the table of causes before an upstream.
const WHY_WIDTH: usize = 7 + 2 + 21 + 2 + 19 + 2 + 8 + 2;
/// Longest sentence of the judge that is shown whole.
pub(super) const SENTENCE: usize = 600;

/// Writes a whole report.
///
/// # Errors
///
/// If `out` fails.
pub fn render(report: &Report, options: &TextOptions, out: &mut impl Write) -> fmt::Result {
    let mut page = Page::new(out, *options);
    capture(&mut page, report)?;
    happened(&mut page, report)?;
    joined(&mut page, &report.joined)?;
    notes(&mut page, report)?;
    if !report.incidents.is_empty() {
        causes(&mut page, &report.incidents)?;
    }
    if !report.advice.is_empty() {
        advice::render(&mut page, &report.advice)?;
    }
    if !report.incidents.is_empty() {
        incidents::render(&mut page, &report.incidents)?;
    }
    if !report.upstreams.is_empty() {
        upstreams::render(&mut page, &report.upstreams)?;
    }
    Ok(())
}

/// Writes one incident in full.
///
/// # Errors
///
/// If `out` fails.
pub fn render_incident(
    incident: &Incident,
    options: &TextOptions,
    out: &mut impl Write,
) -> fmt::Result {
    incidents::in_full(&mut Page::new(out, *options), incident, true)
}

fn capture<W: Write>(page: &mut Page<'_, W>, report: &Report) -> fmt::Result {
    let capture = &report.capture;
    let mut instances: Vec<(&str, u64)> = Vec::new();
    for version in &capture.nginx {
        match instances.iter_mut().find(|(known, _)| known == version) {
            Some((_, number)) => *number += 1,
            None => instances.push((version, 1)),
        }
    }
    let nginx: Vec<_> = instances
        .iter()
        .map(|(version, number)| match number {
            1 => escape(version, NAME),
            _ => format!("{number} x {}", escape(version, NAME)),
        })
        .collect();
    let kernel = escape(&capture.kernel, NAME);
    let mut text = if capture.host.is_empty() && capture.kernel.is_empty() {
        "the beginning of this trace is missing, and with it where it is from".to_owned()
    } else {
        format!("{}, Linux {kernel}", escape(&capture.host, NAME))
    };
    if !nginx.is_empty() {
        text.push_str(&format!(", {}", nginx.join(", ")));
    }
    page.labelled(HEADING, "whoclosed  ", PLAIN, &text)?;
    let start = date_time(&capture.start);
    let same_day = capture.start.get(..10) == capture.end.get(..10);
    let end = if same_day {
        clock(&capture.end)
    } else {
        date_time(&capture.end)
    };
    page.paragraph("           ", DIM, &format!("{start} to {end} UTC"))
}

fn happened<W: Write>(page: &mut Page<'_, W>, report: &Report) -> fmt::Result {
    page.gap()?;
    let summary = &report.summary;
    let seconds = format!("{:.1} s", report.capture.duration_s);
    let place = match report.capture.host.as_str() {
        "" => String::new(),
        host => format!(" on {}", escape(host, NAME)),
    };
    if report.incidents.is_empty() {
        let when = format!("{seconds}{place}");
        let (style, text) = none(summary, &when);
        page.labelled(PLAIN, "", style, &text)?;
        return watched(page, report);
    }
    let errors = counted(summary.lines, "upstream error", "upstream errors");
    page.paragraph("", HEADING, &format!("{errors} in {seconds}{place}."))?;
    let failed = summary.requests_failed;
    let unknown = summary
        .requests
        .saturating_sub(summary.requests_served + failed);
    let mut parts = Vec::new();
    if summary.requests_served > 0 {
        parts.push(format!(
            "{} served all the same",
            count(summary.requests_served)
        ));
    }
    if failed > 0 {
        parts.push(format!("{} failed", count(failed)));
    }
    if unknown > 0 {
        parts.push(format!("{} with unknown outcome", count(unknown)));
    }
    if !parts.is_empty() {
        let requests = counted(
            summary.requests,
            "client request was hit",
            "client requests were hit",
        );
        let style = if failed > 0 { BAD } else { PLAIN };
        page.paragraph("", style, &format!("{requests}: {}.", parts.join(", ")))?;
    }
    page.gap()?;

    let mut sides: Vec<_> = summary
        .by_side
        .iter()
        .filter(|(_, number)| **number > 0)
        .collect();
    sides.sort_by_key(|(_, number)| std::cmp::Reverse(**number));
    let sides: Vec<_> = sides
        .iter()
        .map(|(side, number)| format!("{side} {}", count(**number)))
        .collect();
    page.paragraph("Who closed  ", PLAIN, &sides.join(", "))?;
    let matched = &summary.matched;
    let ties: Vec<_> = [
        (matched.exact, "exactly"),
        (matched.ordered, "by order"),
        (matched.window, "with several candidates"),
        (matched.none, "without a socket"),
    ]
    .iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, how)| format!("{} {how}", count(*number)))
    .collect();
    page.paragraph("Matched     ", PLAIN, &ties.join(", "))
}

/// That there is no incident, and whether that means that there was no error.
fn none(summary: &Summary, when: &str) -> (Style, String) {
    let elsewhere = summary.elsewhere_lines;
    if elsewhere > 0 {
        let lines = counted(elsewhere, "error line", "error lines");
        let text = format!(
            "No upstream error was found in {when} in the logs that were followed, but nginx was \
             seen writing {lines} elsewhere (see below)."
        );
        return (WARNING, text);
    }
    let text = match summary.illegible_logs.as_slice() {
        [] => return (GOOD, format!("No upstream error was logged in {when}.")),
        [file] => format!(
            "No upstream error was found in {when}, but {} does not look like an error log of \
             nginx's (see below).",
            escape(file, NAME)
        ),
        files => format!(
            "No upstream error was found in {when}, but {} of the logs that were followed do not \
             look like nginx's (see below).",
            count(files.len() as u64)
        ),
    };
    (WARNING, text)
}

/// The traces of backends' hosts, and how sure their times are.
fn joined<W: Write>(page: &mut Page<'_, W>, joined: &[Joined]) -> fmt::Result {
    for trace in joined.iter().filter(|trace| trace.connections > 0) {
        let connections = counted(trace.connections, "connection", "connections");
        let clock = match (trace.clock_offset_ms, trace.clock_error_ms) {
            (Some(_), _) if trace.one_clock => "the same clock as here".to_owned(),
            (Some(offset), Some(error)) => format!(
                "its clock is {:.3} ms {} of nginx's host's, give or take {} (from {}, spread {})",
                offset.abs(),
                if offset < 0.0 { "behind" } else { "ahead" },
                milliseconds(error),
                counted(trace.clock_samples, "connection", "connections"),
                milliseconds(trace.clock_spread_ms.unwrap_or(0.0))
            ),
            _ => String::new(),
        };
        let host = escape(&trace.host, NAME);
        let text = format!("{host}, {connections}; {clock}");
        page.paragraph("Joined with ", PLAIN, &text)?;
    }
    Ok(())
}

/// What was looked at, for a report without incidents.
fn watched<W: Write>(page: &mut Page<'_, W>, report: &Report) -> fmt::Result {
    let connections = report
        .upstreams
        .iter()
        .map(|upstream| upstream.connections)
        .sum();
    let known = report.upstreams.iter().map(|upstream| upstream.requests);
    let unknown = known.clone().any(|requests| requests.is_none());
    let requests = known.flatten().sum();
    let backends = report.upstreams.len() as u64;
    let text = if backends == 0 {
        "nginx opened no upstream connection in that time.".to_owned()
    } else {
        format!(
            "Watched: {}{}, {} to {}.",
            counted(requests, "request", "requests"),
            if unknown {
                " and an unknown number more"
            } else {
                ""
            },
            counted(connections, "connection", "connections"),
            counted(backends, "backend", "backends")
        )
    };
    page.paragraph("", PLAIN, &text)
}

fn notes<W: Write>(page: &mut Page<'_, W>, report: &Report) -> fmt::Result {
    let lost: Vec<_> = report
        .capture
        .lost
        .iter()
        .map(|(what, number)| format!("{} {}", escape(what, NAME), count(*number)))
        .collect();
    if lost.is_empty() && report.notes.is_empty() && report.capture.complete {
        return Ok(());
    }
    page.gap()?;
    page.line(&[(WARNING, "What limits this report")])?;
    if !lost.is_empty() {
        page.labelled(
            WARNING,
            "  ! ",
            PLAIN,
            &format!("lost: {}", lost.join(", ")),
        )?;
    }
    if !report.capture.complete {
        let text = "the trace has no end record: the capture was killed or is still running";
        page.labelled(WARNING, "  ! ", PLAIN, text)?;
    }
    for note in &report.notes {
        page.labelled(WARNING, "  ! ", PLAIN, &escape(note, SENTENCE))?;
    }
    Ok(())
}

/// A row of the table of causes.
#[derive(Default)]
struct Row<'a> {
    incidents: usize,
    upstreams: BTreeMap<&'a str, u64>,
    confidences: BTreeMap<Confidence, u64>,
}

impl Row<'_> {
    /// The upstream with most of its incidents, and how many others have some.
    fn most(&self) -> String {
        let mut upstreams: Vec<_> = self.upstreams.iter().collect();
        upstreams.sort_by_key(|(name, number)| (std::cmp::Reverse(**number), **name));
        let first = upstreams
            .first()
            .map_or_else(String::new, |(name, _)| escape(name, NAME));
        match upstreams.len() {
            0 | 1 => first,
            more => format!("{first} +{}", more - 1),
        }
    }
}

fn causes<W: Write>(page: &mut Page<'_, W>, incidents: &[Incident]) -> fmt::Result {
    let mut rows: BTreeMap<(Cause, Side, Means), Row<'_>> = BTreeMap::new();
    for incident in incidents {
        let row = rows
            .entry((incident.cause, incident.side, incident.means))
            .or_default();
        row.incidents += 1;
        *row.upstreams.entry(&incident.upstream).or_default() += 1;
        *row.confidences.entry(incident.confidence).or_default() += 1;
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(key, row)| (std::cmp::Reverse(row.incidents), *key));
    page.heading("Why")?;
    let named: Vec<_> = rows.iter().map(|(_, row)| row.most()).collect();
    let widest = named.iter().map(|name| name.chars().count()).max();
    // Without room for upstreams beside the rest each has a line of its own.
    let beside = WHY_WIDTH + widest.unwrap_or(0) <= page.width();
    let digits = if beside { 7 } else { 6 };
    let mut header = format!(
        "{:>digits$}  {:<21}  {:<19}  {:<8}",
        "errors", "cause", "closed by", "sure"
    );
    header.push_str(if beside { "  upstream" } else { "" });
    page.line(&[(DIM, header.trim_end())])?;
    for (((cause, side, means), row), upstream) in rows.iter().zip(&named) {
        let sure = match row.confidences.keys().next_back() {
            // The weakest stands for all, so that none is oversold.
            Some(weakest) => weakest.word(),
            None => "",
        };
        let number = count(row.incidents as u64);
        let mut rest = format!("{:<19}  {sure:<8}", who_and_how(*side, *means));
        if beside {
            rest += &format!("  {upstream}");
        }
        page.line(&[
            (HEADING, &format!("{number:>digits$}  ")),
            (incidents::side_style(*side), &format!("{cause:<21}  ")),
            (PLAIN, rest.trim_end()),
        ])?;
        if !beside {
            page.paragraph("        ", PLAIN, upstream)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "text_samples.rs"]
pub(super) mod samples;

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
