//! The lines of one request against the connections that carried it on the wire.
//!
//! nginx makes the attempts of a request one after the other, and each one that fails
//! leaves a line. So the lines of one target at one upstream, in the log's order, belong
//! to the connections that carried this target, in the wire's order. Only an attempt that
//! failed before its request left (refused, reset before nginx sent) has a line and was
//! not on the wire: its line does not say that nginx was reading. If the last attempt
//! went well, one connection more than there are lines carried the target.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::LogLine;
use crate::verdicts::{Incident, Report};

/// A target, seen on the wire on its way to an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The request's target. Of all requests of clients only one has it.
    pub target: String,
    /// The upstream's address.
    pub upstream: SocketAddr,
    /// nginx's ends of the connections that carried it, in order.
    pub ends: Vec<SocketAddr>,
    /// The last of them may have brought an answer.
    pub answered: bool,
}

/// What a witness says of an incident's connection: that the tool found the right one,
/// or what is wrong with it.
pub(super) type Told = Result<(), String>;

/// What the wire says, by the number of the incident; nothing of incidents whose request
/// was not seen on it.
pub(super) fn compare(report: &Report, log: &[LogLine], wire: &[Carried]) -> HashMap<u64, Told> {
    let mut lines: BTreeMap<(&str, &str), Vec<(&Incident, bool)>> = BTreeMap::new();
    let mut incidents: Vec<&Incident> = report.incidents.iter().collect();
    incidents.sort_by_key(|incident| incident.line.offset);
    for incident in incidents {
        let line = log.iter().find(|line| line.offset == incident.line.offset);
        let (Some(line), Some(target)) = (line, incident.target()) else {
            continue;
        };
        let of_target = lines.entry((target, &incident.upstream)).or_default();
        of_target.push((incident, was_sent(&line.text)));
    }
    let mut told = HashMap::new();
    for carried in wire {
        let upstream = carried.upstream.to_string();
        let Some(lines) = lines.get(&(carried.target.as_str(), upstream.as_str())) else {
            continue;
        };
        compare_request(lines, carried, &mut told);
    }
    told
}

/// Whether the request left before the attempt failed: nginx reads only then.
fn was_sent(line: &str) -> bool {
    [
        "while reading response header from upstream",
        "while reading upstream",
        "while proxying upgraded connection",
    ]
    .iter()
    .any(|action| line.contains(action))
}

fn compare_request(lines: &[(&Incident, bool)], carried: &Carried, told: &mut HashMap<u64, Told>) {
    let mut left = carried.ends.as_slice();
    let mut unsent = None;
    for (incident, sent) in lines {
        let found = incident.connection.as_ref().map(|found| found.local);
        match left {
            [next, rest @ ..] if *sent || found == Some(*next) => {
                let right = found == Some(*next);
                let right = right.then_some(()).ok_or(format!("the wire has {next}"));
                told.insert(incident.id, right);
                left = rest;
            }
            // Not on the wire: what carried another attempt cannot be its connection.
            _ => {
                if let Some(carrier) = carried.ends.iter().find(|end| Some(**end) == found) {
                    let wrong = format!("{carrier} carried another attempt");
                    told.insert(incident.id, Err(wrong));
                }
                unsent = Some(incident.id);
            }
        }
    }
    // Each that carried it and brought no answer has failed, and has a line.
    if let (Some(id), [failed, ..]) = (unsent, left)
        && left.len() > usize::from(carried.answered)
    {
        let wrong = format!("{failed} carried the request, failed and has no line");
        told.insert(id, Err(wrong));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const READING: &str = "while reading response header from upstream";
    const SENDING: &str = "while sending request to upstream";

    /// The tool's connections of a request's lines, by their ports, against the wire's.
    fn told(lines: &[(&str, u16)], ends: &[u16], answered: bool) -> Vec<Option<bool>> {
        let incident = |(number, (_, port)): (usize, &(&str, u16))| {
            json!({
                "id": number, "upstream": "127.0.0.1:9000", "side": "", "means": "", "phase": "",
                "cause": "", "confidence": "", "match": "", "request_group": 1, "evidence": [],
                "line": { "message": "m", "request": "GET /x HTTP/1.1", "file": "f",
                          "offset": number },
                "connection": { "local": format!("127.0.0.1:{port}"),
                                "remote": "127.0.0.1:9000", "worker_pid": 7 },
            })
        };
        let incidents: Vec<_> = lines.iter().enumerate().map(incident).collect();
        let report = json!({
            "schema": "", "capture": { "lost": {} }, "summary": { "lines": 0, "matched": {} },
            "incidents": incidents, "upstreams": [],
        });
        let log = lines
            .iter()
            .enumerate()
            .map(|(number, (action, _))| LogLine {
                offset: number as u64,
                text: (*action).to_owned(),
            });
        let carried = Carried {
            target: "/x".into(),
            upstream: "127.0.0.1:9000".parse().unwrap(),
            ends: ends
                .iter()
                .map(|port| ([127, 0, 0, 1], *port).into())
                .collect(),
            answered,
        };
        let report = Report::parse(report.to_string().as_bytes()).unwrap();
        let told = compare(&report, &log.collect::<Vec<_>>(), &[carried]);
        let said = |id: usize| told.get(&(id as u64)).map(Result::is_ok);
        (0..lines.len()).map(said).collect()
    }

    #[test]
    fn lines_of_a_request_belong_to_the_connections_that_carried_it_in_order() {
        let lines = [(READING, 1), (READING, 2)];
        assert_eq!(told(&lines, &[1, 2, 3], true), [Some(true), Some(true)]);
        assert_eq!(told(&lines, &[2, 1, 3], true), [Some(false), Some(false)]);
        assert_eq!(told(&lines, &[3, 2], false), [Some(false), Some(true)]);
        assert_eq!(told(&[(READING, 7)], &[1], false), [Some(false)]);
    }

    #[test]
    fn an_attempt_that_failed_before_its_request_left_needs_no_packet() {
        let lines = [(SENDING, 1), (READING, 2)];
        assert_eq!(told(&lines, &[2, 3], true), [None, Some(true)]);
        // One that was sent in part is on the wire.
        assert_eq!(told(&lines, &[1, 2], false), [Some(true), Some(true)]);
        assert_eq!(told(&lines, &[2, 1], false), [Some(false), Some(true)]);
    }

    #[test]
    fn a_connection_that_carried_a_failed_request_needs_a_line() {
        assert_eq!(told(&[(SENDING, 9)], &[1], false), [Some(false)]);
        assert_eq!(told(&[(SENDING, 9)], &[1], true), [None]);
        assert_eq!(told(&[(SENDING, 9)], &[1, 2], true), [Some(false)]);
    }
}
