//! A report held against the truth.

use std::collections::BTreeSet;
use std::fmt;

use super::{Incident, Report};
use crate::truth::Happened;

/// A fault and what the report says of it.
#[derive(Clone, Debug)]
pub struct Row {
    /// The fault.
    pub happened: Happened,
    /// The incident that is about it.
    pub incident: Option<Incident>,
    /// What is wrong with it; nothing if it is right.
    pub problems: Vec<String>,
}

impl Row {
    /// The idle time that was held against what is on record of it, in words.
    fn idle(&self) -> Option<String> {
        let silence = self.happened.idle?;
        let found = self.incident.as_ref()?.connection.as_ref()?.idle_ms?;
        Some(format!(", idle for {found:.1} ms (in truth {silence})"))
    }
}

/// A report against the truth.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// One for each fault.
    pub rows: Vec<Row>,
    /// Incidents that no fault stands behind.
    pub unexpected: Vec<Incident>,
}

impl Comparison {
    /// Every fault has its right verdict and nothing else is claimed.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.unexpected.is_empty() && self.rows.iter().all(|row| row.problems.is_empty())
    }
}

/// Finds each fault's incident: by the connection where the backend recorded one, by
/// upstream and request where there was none.
#[must_use]
pub fn compare(truth: &[Happened], report: &Report) -> Comparison {
    compare_beside(truth, report, &[])
}

/// [`compare`], where retries may have met connections that these backends closed while
/// they were idle: a free retry goes to the next pooled connection, which may be as dead
/// as the first. Such an incident needs no fault of its own, but the right verdict and a
/// connection whose idle close the backend recorded.
#[must_use]
pub fn compare_beside(
    truth: &[Happened],
    report: &Report,
    backends: &[&crate::backend::Backend],
) -> Comparison {
    let idle_closes: BTreeSet<_> = backends
        .iter()
        .flat_map(|backend| backend.connections())
        .filter(|record| record.closed_because(crate::backend::Why::Idle))
        .map(|record| (record.remote, record.local))
        .collect();
    let is_retry = |incident: &Incident| {
        (incident.side.as_str(), incident.cause.as_str()) == ("backend", "stale-keepalive")
            && incident.matched == "exact"
            && incident
                .connection
                .as_ref()
                .is_some_and(|found| idle_closes.contains(&(found.local, found.remote)))
    };
    let mut taken = BTreeSet::new();
    let mut rows = Vec::new();
    for happened in truth {
        let incident = report
            .incidents
            .iter()
            .find(|incident| !taken.contains(&incident.id) && is_about(incident, happened));
        let problems = match incident {
            None => vec!["no incident".to_owned()],
            Some(incident) => {
                taken.insert(incident.id);
                problems(happened, incident)
            }
        };
        rows.push(Row {
            happened: happened.clone(),
            incident: incident.cloned(),
            problems,
        });
    }
    let unexpected = report
        .incidents
        .iter()
        .filter(|incident| !taken.contains(&incident.id) && !is_retry(incident))
        .cloned();
    Comparison {
        rows,
        unexpected: unexpected.collect(),
    }
}

fn is_about(incident: &Incident, happened: &Happened) -> bool {
    match happened.nginx_end {
        Some(nginx_end) => incident.connection.as_ref().is_some_and(|connection| {
            connection.local == nginx_end && connection.remote == happened.upstream
        }),
        None => {
            incident.upstream == happened.upstream.to_string()
                && incident.target() == happened.target.as_deref()
        }
    }
}

fn problems(happened: &Happened, incident: &Incident) -> Vec<String> {
    let mut problems = Vec::new();
    let mut expect = |what: &str, expected: String, found: String| {
        if expected != found {
            problems.push(format!("{what} is {found}, not {expected}"));
        }
    };
    let verdict = happened.fault.verdict();
    expect("side", verdict.side.into(), incident.side.clone());
    expect("means", verdict.means.into(), incident.means.clone());
    expect("cause", verdict.cause.into(), incident.cause.clone());
    expect("match", "exact".into(), incident.matched.clone());
    expect(
        "upstream",
        happened.upstream.to_string(),
        incident.upstream.clone(),
    );
    match &incident.connection {
        None => problems.push("no connection".into()),
        Some(connection) => {
            expect(
                "remote",
                happened.upstream.to_string(),
                connection.remote.to_string(),
            );
            if let Some(requests) = happened.requests {
                let found = connection.requests.map(|requests| requests.to_string());
                expect(
                    "requests",
                    requests.to_string(),
                    found.unwrap_or("unknown".into()),
                );
            }
            problems.extend(happened.idle.and_then(|idle| idle.problem(connection)));
        }
    }
    if let (Some(target), Some(found)) = (happened.target.as_deref(), incident.target())
        && target != found
    {
        problems.push(format!("request is for {found}, not {target}"));
    }
    problems
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<26} {:<22} {:<22} {:>8}  verdict",
            "fault", "upstream", "nginx's end", "incident"
        )?;
        for row in &self.rows {
            let end = row
                .happened
                .nginx_end
                .map(|end| end.to_string())
                .unwrap_or("-".into());
            let id = row
                .incident
                .as_ref()
                .map(|incident| incident.id.to_string());
            let said = match &row.incident {
                Some(incident) if row.problems.is_empty() => {
                    format!(
                        "right: {}, {}, {}{}",
                        incident.side,
                        incident.means,
                        incident.cause,
                        row.idle().unwrap_or_default()
                    )
                }
                _ => format!("WRONG: {}", row.problems.join("; ")),
            };
            writeln!(
                f,
                "{:<26} {:<22} {end:<22} {:>8}  {said}",
                row.happened.fault,
                row.happened.upstream.to_string(),
                id.unwrap_or("-".into()),
            )?;
        }
        for incident in &self.unexpected {
            writeln!(
                f,
                "WRONG: incident {} at {} ({}, {}, {}) has no fault behind it: {:?}",
                incident.id,
                incident.upstream,
                incident.side,
                incident.means,
                incident.cause,
                incident.line.message
            )?;
        }
        Ok(())
    }
}
