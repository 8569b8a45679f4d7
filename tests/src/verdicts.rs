//! A report as far as tests look at it, and its comparison with the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::truth::Happened;

/// The parts of `report --format json` that tests look at.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// `whoclosed.report/1`.
    pub schema: String,
    /// Where and when.
    pub capture: Captured,
    /// Counts.
    pub summary: Summary,
    /// One for each upstream error line.
    pub incidents: Vec<Incident>,
    /// One for each backend.
    pub upstreams: Vec<Upstream>,
    /// What limits it.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Where and when.
#[derive(Clone, Debug, Deserialize)]
pub struct Captured {
    /// What was lost, by kind.
    pub lost: BTreeMap<String, u64>,
    /// The trace has its end.
    #[serde(default)]
    pub complete: bool,
}

/// Counts.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    /// Upstream error lines.
    pub lines: u64,
    /// Lines by strength of their match.
    pub matched: BTreeMap<String, u64>,
    /// Lines about upstreams that nginx did not write.
    #[serde(default)]
    pub foreign_lines: u64,
}

/// One line and its verdict.
#[derive(Clone, Debug, Deserialize)]
pub struct Incident {
    /// Number from 1.
    pub id: u64,
    /// The line.
    pub line: Line,
    /// Backend address.
    pub upstream: String,
    /// Who.
    pub side: String,
    /// How.
    pub means: String,
    /// When in the connection's life.
    pub phase: String,
    /// Why.
    pub cause: String,
    /// How sure that is.
    pub confidence: String,
    /// Strength of the match.
    #[serde(rename = "match")]
    pub matched: String,
    /// nginx tried again.
    pub retried: Option<bool>,
    /// The client got an answer.
    pub served: Option<bool>,
    /// The same for all incidents of one client request.
    pub request_group: u64,
    /// Master of the nginx that logged it, where there are several.
    #[serde(default)]
    pub instance: Option<u32>,
    /// Sentences.
    pub evidence: Vec<String>,
    /// The connection.
    pub connection: Option<Connection>,
}

/// Parts of the line.
#[derive(Clone, Debug, Deserialize)]
pub struct Line {
    /// The message.
    pub message: String,
    /// The request line.
    pub request: Option<String>,
    /// The upstream as nginx wrote it.
    #[serde(default)]
    pub upstream: Option<String>,
    /// The log that it stands in.
    pub file: String,
    /// Byte in that file.
    pub offset: u64,
    /// Number of the client connection.
    pub connection: Option<u64>,
}

/// The connection.
#[derive(Clone, Debug, Deserialize)]
pub struct Connection {
    /// nginx's end.
    pub local: SocketAddr,
    /// The backend's end.
    pub remote: SocketAddr,
    /// The worker on this host.
    pub worker_pid: u32,
    /// Requests on it.
    pub requests: Option<u32>,
    /// It had served one before.
    pub reused: Option<bool>,
    /// So many at least, where the number is not known.
    #[serde(default)]
    pub requests_at_least: Option<u32>,
    /// Silence before the last request.
    pub idle_ms: Option<f64>,
    /// Open before the capture began.
    #[serde(default)]
    pub first_seen_mid_life: bool,
}

/// One backend.
#[derive(Clone, Debug, Deserialize)]
pub struct Upstream {
    /// Its address.
    pub address: String,
    /// connect() calls.
    pub connections: u64,
    /// Requests sent, where they are known.
    pub requests: Option<u64>,
    /// Its idle timeout.
    pub idle_timeout: Option<Inferred>,
    /// How many requests it allows on a connection.
    pub request_limit: Option<Limit>,
    /// How long it works on a request before it gives up.
    #[serde(default)]
    pub work_timeout: Option<Inferred>,
    /// How large a request it takes.
    #[serde(default)]
    pub size_threshold: Option<Size>,
}

/// An inferred size: of head and body.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Size {
    /// Sent of the smallest request that failed, until it did.
    pub bytes: u64,
    /// The greatest that was answered, within 25 %.
    pub answered_bytes: u64,
}

/// An inferred number.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Limit {
    /// Requests on a connection.
    pub requests: u32,
    /// Closes that it rests on.
    pub samples: u64,
}

/// An inferred time.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Inferred {
    /// Milliseconds.
    pub ms: f64,
    /// Closes that it rests on.
    pub samples: u64,
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// If it is not JSON of this shape.
    pub fn parse(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).with_context(|| {
            let text = String::from_utf8_lossy(json);
            format!(
                "not a report: {}",
                text.chars().take(200).collect::<String>()
            )
        })
    }

    /// The backend's part.
    #[must_use]
    pub fn upstream(&self, address: SocketAddr) -> Option<&Upstream> {
        let address = address.to_string();
        self.upstreams
            .iter()
            .find(|upstream| upstream.address == address)
    }
}

impl Incident {
    /// Target in the line's request.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.line.request.as_deref()?.split(' ').nth(1)
    }
}

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
                        "right: {}, {}, {}",
                        incident.side, incident.means, incident.cause
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::truth::Fault;

    fn fault(port: u16, fault: Fault) -> Happened {
        Happened {
            fault,
            upstream: SocketAddr::from(([127, 0, 0, 1], 9000)),
            nginx_end: Some(SocketAddr::from(([127, 0, 0, 1], port))),
            target: Some("/x".into()),
            requests: Some(2),
        }
    }

    fn incident(id: u64, port: u16, cause: &str) -> Value {
        json!({
            "id": id, "upstream": "127.0.0.1:9000", "side": "backend", "means": "fin",
            "phase": "wait", "cause": cause, "confidence": "certain", "match": "exact",
            "retried": true, "served": null, "request_group": id, "evidence": [],
            "line": { "message": "upstream prematurely closed connection", "request": "GET /x HTTP/1.1",
                      "file": "/logs/error.log", "offset": 0, "connection": 1 },
            "connection": {
                "local": format!("127.0.0.1:{port}"), "remote": "127.0.0.1:9000", "worker_pid": 7,
                "requests": 2, "reused": true, "idle_ms": 1.5,
            },
        })
    }

    fn report(incidents: Vec<Value>) -> Report {
        let json = json!({
            "schema": "whoclosed.report/1", "capture": { "lost": {} },
            "summary": { "lines": incidents.len(), "matched": { "exact": 0 } },
            "incidents": incidents,
            "upstreams": [{ "address": "127.0.0.1:9000", "connections": 9,
                             "idle_timeout": { "ms": 1000.2, "samples": 4 } }],
        });
        Report::parse(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn right_verdicts_hold() {
        let truth = [fault(1, Fault::Stale), fault(2, Fault::ClosedBeforeAnswer)];
        let report = report(vec![
            incident(1, 2, "closed-without-answer"),
            incident(2, 1, "stale-keepalive"),
        ]);
        let comparison = compare(&truth, &report);
        assert!(comparison.holds(), "{comparison}");
        assert_eq!(
            report
                .upstream(truth[0].upstream)
                .unwrap()
                .idle_timeout
                .unwrap()
                .samples,
            4
        );
    }

    #[test]
    fn a_wrong_a_missing_and_a_needless_verdict_each_fail() {
        let truth = [fault(1, Fault::Stale)];
        let wrong = compare(
            &truth,
            &report(vec![incident(1, 1, "closed-without-answer")]),
        );
        assert!(!wrong.holds());
        assert!(
            wrong
                .to_string()
                .contains("cause is closed-without-answer, not stale-keepalive")
        );
        let missing = compare(&truth, &report(vec![]));
        assert!(!missing.holds());
        assert!(missing.to_string().contains("no incident"));
        let needless = compare(&[], &report(vec![incident(7, 1, "stale-keepalive")]));
        assert!(!needless.holds());
        assert!(needless.to_string().contains("incident 7"));
    }

    #[test]
    fn another_connection_is_not_taken_for_the_right_one() {
        let comparison = compare(
            &[fault(1, Fault::Stale)],
            &report(vec![incident(1, 2, "stale-keepalive")]),
        );
        assert!(!comparison.holds());
        assert_eq!(comparison.unexpected.len(), 1);
    }

    #[test]
    fn one_incident_does_not_serve_two_faults() {
        let truth = [fault(1, Fault::Stale), fault(1, Fault::Stale)];
        assert!(!compare(&truth, &report(vec![incident(1, 1, "stale-keepalive")])).holds());
    }
}
