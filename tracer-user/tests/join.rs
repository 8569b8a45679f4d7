//! The lab's recorded runs, taken apart into a trace of nginx's host and one of the
//! backend's, whose clock is another: joined again, they give the verdicts that they gave
//! as one.

#![expect(
    clippy::unwrap_used,
    reason = "a test panics where something is not as it must be"
)]

use std::collections::{HashMap, HashSet};
use std::io::Cursor;
use std::net::SocketAddr;

use lab::fixture;
use lab::scenarios::ALL;
use tracer_user::join::{self, Backend, Nginx};
use tracer_user::judge::{self, Judge};
use tracer_user::report::model::Report;
use tracer_user::trace::reader::Trace;
use tracer_user::trace::record::{
    Accepted, AcceptedEnd, Anchor, BackendExit, BackendProcess, Capture, Connection, ConnectionEnd,
    Exit, Loss, PeerClose, Record, Role,
};

/// A recorded run at addresses that are no host's own.
fn recorded(scenario: &str) -> Vec<Record> {
    let trace = fixture::trace(&fixture::folder().join(scenario));
    let bytes = zstd::decode_all(std::fs::File::open(trace).unwrap()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let text = text
        .replace("127.0.0.1", "198.18.0.1")
        .replace("[::1]", "[fd00::1]")
        .replace("\"::1\"", "\"fd00::1\"");
    let trace = Trace::new(Cursor::new(text), scenario).unwrap();
    trace.map(Result::unwrap).collect()
}

/// A time of nginx's host by the clock of the backend's.
fn there(ns: u64, ahead_ns: i64) -> u64 {
    ns.checked_add_signed(ahead_ns).unwrap()
}

/// What the backend's host would have recorded of a connection.
fn accepted(
    connection: &Connection,
    close: Option<&PeerClose>,
    process: Option<&BackendProcess>,
    ahead_ns: i64,
) -> Accepted {
    let there = |ns| there(ns, ahead_ns);
    let open = close.is_none() && connection.end == ConnectionEnd::Open;
    // nginx's own FIN came before the backend closed, where that was not the first.
    let after_nginx = connection.closed_ns.unwrap_or(connection.ended_ns) + 60_000;
    let end_ns = close.map_or(after_nginx + 10_000, |close| close.ns);
    let mapped = |address: SocketAddr| match address.ip() {
        std::net::IpAddr::V4(ip) => SocketAddr::from((ip.to_ipv6_mapped(), address.port())),
        std::net::IpAddr::V6(_) => address,
    };
    Accepted {
        cookie: connection.cookie + 1,
        netns: close.map_or(9, |close| close.netns),
        local: mapped(connection.remote),
        remote: mapped(connection.local),
        // As long on its way as the two segments before.
        established_ns: connection
            .established_ns
            .map(|ns| there(ns + (ns - connection.opened_ns) / 2)),
        fin_received_ns: (close.is_none() && !open).then(|| there(after_nginx)),
        rst_received_ns: None,
        rst_sent_ns: None,
        rst_sent_reason: None,
        closed_ns: (!open).then(|| there(end_ns)),
        ended_ns: there(end_ns),
        end: if open {
            AcceptedEnd::Open
        } else {
            AcceptedEnd::Closed
        },
        socket_error: None,
        received_bytes: Some(close.map_or(connection.sent_bytes, |close| close.received_bytes)),
        sent_bytes: Some(connection.received_bytes),
        last_received_ns: connection.last_sent_ns.map(|ns| there(ns + 50_000)),
        last_sent_ns: connection.last_received_ns.map(|ns| there(ns - 50_000)),
        unread_bytes: close.map_or(0, |close| close.unread_bytes),
        pid: close
            .map(|close| close.pid)
            .or(process.map(|process| process.pid)),
        parent_pid: close
            .map(|close| close.parent_pid)
            .or(process.map(|process| process.parent_pid))
            .unwrap_or(0),
        comm: close
            .map(|close| close.comm.clone())
            .or(process.map(|process| process.comm.clone()))
            .unwrap_or_default(),
        exit: close.and_then(|close| close.exit),
        accepted: close.is_none_or(|close| close.accepted),
        may_be_copy: close.is_some_and(|close| close.may_be_copy),
        first_seen_mid_life: connection.first_seen_mid_life,
    }
}

/// One trace as two.
fn apart(records: &[Record], ahead_ns: i64) -> (Vec<Record>, Backend) {
    let (nginx, theirs) = taken_apart(records, ahead_ns);
    (nginx, backend(theirs))
}

/// A trace of a backend's host.
fn backend(records: Vec<Record>) -> Backend {
    let mut backend = Backend::new("backend.trace".to_owned());
    for record in records {
        backend.push(record);
    }
    backend
}

fn taken_apart(records: &[Record], ahead_ns: i64) -> (Vec<Record>, Vec<Record>) {
    let closes: HashMap<u64, PeerClose> = records
        .iter()
        .filter_map(|record| match record {
            Record::PeerClose(close) => Some((close.cookie, (**close).clone())),
            _ => None,
        })
        .collect();
    let processes: Vec<&BackendProcess> = records
        .iter()
        .filter_map(|record| match record {
            Record::BackendProcess(process) => Some(process),
            _ => None,
        })
        .collect();
    // Which of its connections a process ended after nginx is not in one trace.
    let who = |connection: &Connection| {
        let closed = connection.closed_ns.unwrap_or(connection.ended_ns);
        let mut there = processes
            .iter()
            .copied()
            .filter(|process| SocketAddr::new(process.address, process.port) == connection.remote);
        there.find(|process| (process.first_ns..=process.last_ns).contains(&closed))
    };
    let mut backend = vec![Record::Capture(Box::new(Capture {
        role: Role::Backend,
        host: "app-1".to_owned(),
        ..Capture::default()
    }))];
    let mut nginx = Vec::new();
    for record in records {
        match record {
            Record::PeerClose(_) => continue,
            Record::BackendExit(exit) => {
                let mut exit = exit.clone();
                exit.ns = there(exit.ns, ahead_ns);
                backend.push(Record::BackendExit(exit));
                continue;
            }
            Record::BackendProcess(_) => continue,
            Record::Anchor(anchor) => backend.push(Record::Anchor(Anchor {
                monotonic_ns: there(anchor.monotonic_ns, ahead_ns),
                ..*anchor
            })),
            Record::Connection(connection) if connection.established_ns.is_some() => {
                let close = closes.get(&connection.cookie);
                let accepted = accepted(connection, close, who(connection), ahead_ns);
                backend.push(Record::Accepted(Box::new(accepted)));
            }
            Record::End(end) => backend.push(Record::End(end.clone())),
            _ => {}
        }
        nginx.push(record.clone());
    }
    (nginx, backend)
}

fn together(records: Vec<Record>, backend: Backend) -> Report {
    together_all(records, vec![backend])
}

fn together_all(records: Vec<Record>, backends: Vec<Backend>) -> Report {
    let mut nginx = Nginx::default();
    for record in &records {
        nginx.push(record);
    }
    let mut join = join::join(&nginx, &backends);
    let mut judge = Judge::joined(
        std::mem::take(&mut join.unwatched),
        std::mem::take(&mut join.sides_lost),
    );
    for record in records {
        join.around(record, |record| judge.push(record));
    }
    join.rest(|record| judge.push(record));
    let mut report = judge.finish(join.notes).report;
    report.joined = join.summaries;
    report
}

/// What a verdict comes to.
fn verdicts(report: &Report) -> Vec<String> {
    let incidents = report.incidents.iter();
    incidents
        .map(|incident| {
            format!(
                "{} {} {} {} {} {:?}",
                incident.id,
                incident.cause,
                incident.confidence,
                incident.side,
                incident.means,
                incident.line.request
            )
        })
        .collect()
}

/// Scenarios in which the backend's side was seen.
fn watched() -> impl Iterator<Item = (&'static str, Vec<Record>)> {
    ALL.iter().filter_map(|scenario| {
        let records = recorded(scenario.name);
        let seen = records
            .iter()
            .any(|record| matches!(record, Record::PeerClose(_)));
        seen.then_some((scenario.name, records))
    })
}

#[test]
fn two_traces_give_the_verdicts_of_one_whatever_the_clock() {
    let mut different = Vec::new();
    let mut looked_at = 0;
    for (scenario, records) in watched() {
        let alone = judge::judge(records.clone()).finish(Vec::new()).report;
        let wanted = verdicts(&alone);
        looked_at += 1;
        for ahead_ns in [0, 86_400_000_000_123, -1_000_000_000] {
            let (nginx, backend) = apart(&records, ahead_ns);
            let report = together(nginx, backend);
            let found = verdicts(&report);
            let [joined] = report.joined.as_slice() else {
                panic!("{scenario}: {:?}", report.joined);
            };
            let offset = joined.clock_offset_ms.unwrap();
            let error = joined.clock_error_ms.unwrap();
            #[expect(clippy::cast_precision_loss, reason = "milliseconds need not be exact")]
            let wrong = (offset - ahead_ns as f64 / 1e6).abs() > error + 1e-3;
            if wrong {
                different.push(format!("{scenario}: {ahead_ns} ns ahead, found {joined:?}"));
            }
            let wanted: HashSet<&String> = wanted.iter().collect();
            let found: HashSet<&String> = found.iter().collect();
            let mut lines: Vec<String> = wanted
                .difference(&found)
                .map(|line| format!("{scenario} {ahead_ns} - {line}"))
                .collect();
            let more = found.difference(&wanted);
            lines.extend(more.map(|line| format!("{scenario} {ahead_ns} + {line}")));
            lines.sort_unstable();
            different.extend(lines);
        }
    }
    assert!(looked_at > 20, "{looked_at}");
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn without_the_backends_trace_the_processes_are_not_named() {
    let records = recorded("killed");
    let (nginx, backend) = apart(&records, 5_000_000);
    let alone = judge::judge(nginx.clone()).finish(Vec::new()).report;
    let count = |report: &Report| {
        let named = |incident: &&tracer_user::report::model::Incident| {
            let evidence = incident.evidence.join(" ");
            evidence.contains("SIGKILL") && evidence.contains("on app-1")
        };
        report.incidents.iter().filter(named).count()
    };
    assert_eq!(count(&alone), 0);
    assert!(count(&together(nginx, backend)) > 0);
}

/// The report, and that of nginx's trace by itself.
fn both(nginx: Vec<Record>, theirs: Vec<Record>) -> (Report, Report) {
    let alone = judge::judge(nginx.clone()).finish(Vec::new()).report;
    (together(nginx, backend(theirs)), alone)
}

#[test]
fn behind_a_translation_nothing_is_joined_and_that_is_said() {
    let (nginx, mut theirs) = taken_apart(&recorded("killed"), 1_000_000);
    for record in &mut theirs {
        if let Record::Accepted(accepted) = record {
            accepted.local.set_port(accepted.local.port() ^ 1);
        }
    }
    let (report, alone) = both(nginx, theirs);
    assert_eq!(verdicts(&report), verdicts(&alone));
    assert_eq!(report.joined[0].connections, 0);
    assert_eq!(report.joined[0].clock_offset_ms, None);
    let notes = report.notes.join("\n");
    assert!(notes.contains("share no address pair"), "{notes}");
}

#[test]
fn equal_pairs_in_two_namespaces_are_left_out_and_counted() {
    let (nginx, mut theirs) = taken_apart(&recorded("killed"), 1_000_000);
    let twins: Vec<Record> = theirs
        .iter()
        .filter_map(|record| match record {
            Record::Accepted(accepted) if accepted.exit.is_some() => {
                let mut twin = accepted.clone();
                twin.netns += 1;
                twin.cookie += 1_000_000;
                Some(Record::Accepted(twin))
            }
            _ => None,
        })
        .collect();
    assert!(!twins.is_empty());
    let many = twins.len() as u64;
    theirs.extend(twins);
    let (report, _) = both(nginx, theirs);
    assert_eq!(report.joined[0].ambiguous, many, "{:?}", report.joined);
    assert!(report.joined[0].connections > 0);
    let evidence = report.incidents.iter().flat_map(|one| &one.evidence);
    assert_eq!(evidence.filter(|text| text.contains("SIGKILL")).count(), 0);
    assert!(report.notes.iter().any(|note| note.contains("used again")));
}

#[test]
fn loopback_addresses_of_two_hosts_are_not_the_same() {
    let trace = fixture::trace(&fixture::folder().join("killed"));
    let records: Vec<Record> = Trace::open(&trace).unwrap().map(Result::unwrap).collect();
    let (nginx, theirs) = taken_apart(&records, 1_000_000);
    let (report, alone) = both(nginx, theirs);
    assert_eq!(verdicts(&report), verdicts(&alone));
    assert_eq!(report.joined[0].connections, 0);
    let told = report.notes.iter().any(|note| note.contains("loopback"));
    assert!(told, "{:?}", report.notes);
}

#[test]
fn a_backend_that_was_not_watched_at_the_time_is_not_said_to_have_lived_on() {
    // An RST that came from between, while the backend's socket was open.
    let records = recorded("middlebox_reset");
    let (nginx, theirs) = taken_apart(&records, 1_000_000);
    let said = |report: &Report| {
        let evidence = report.incidents.iter().flat_map(|one| &one.evidence);
        let open = evidence.filter(|text| text.contains("own socket was still open"));
        open.count()
    };
    let failed: HashSet<String> = {
        let report = judge::judge(records.clone()).finish(Vec::new()).report;
        let failed = report
            .incidents
            .iter()
            .filter_map(|one| one.connection.as_ref());
        failed.map(|connection| connection.local.clone()).collect()
    };
    let unwatched: Vec<Record> = theirs
        .iter()
        .filter(|record| match record {
            Record::Accepted(accepted) => {
                let remote =
                    SocketAddr::new(accepted.remote.ip().to_canonical(), accepted.remote.port());
                !failed.contains(&remote.to_string())
            }
            _ => true,
        })
        .cloned()
        .collect();
    assert!(unwatched.len() < theirs.len());
    assert_eq!(said(&both(nginx, unwatched).0), 0);
}

/// The ends that nginx's incidents had, by the connection's own address.
fn failed(records: &[Record]) -> HashMap<String, u64> {
    let report = judge::judge(records.to_vec()).finish(Vec::new()).report;
    let failed: HashSet<&String> = (report.incidents.iter())
        .filter_map(|one| Some(&one.connection.as_ref()?.local))
        .collect();
    let ends = records.iter().filter_map(|record| match record {
        Record::Connection(connection) => {
            let end = connection.rst_received_ns.or(connection.fin_received_ns)?;
            Some((connection.local.to_string(), end))
        }
        _ => None,
    });
    ends.filter(|(local, _)| failed.contains(local)).collect()
}

fn end_of(accepted: &Accepted, failed: &HashMap<String, u64>) -> Option<u64> {
    let canonical = SocketAddr::new(accepted.remote.ip().to_canonical(), accepted.remote.port());
    failed.get(&canonical.to_string()).copied()
}

fn losses(ends: &HashMap<String, u64>, later_ns: u64) -> impl Iterator<Item = Record> {
    let times: Vec<u64> = ends.values().map(|ns| ns + later_ns).collect();
    times.into_iter().map(|ns| {
        Record::Loss(Loss {
            ns: there(ns + 600_000_000, AHEAD_NS),
            since_ns: Some(there(ns - 400_000_000, AHEAD_NS)),
            what: "missed_runs:whoclosed_b_end".to_owned(),
            count: 1,
        })
    })
}

const AHEAD_NS: i64 = 7_000_000_000_000;

/// How many incidents say so, and how many there are with a connection.
fn says(report: &Report, words: &str) -> (usize, usize) {
    let with: Vec<_> = (report.incidents.iter())
        .filter(|one| one.connection.is_some())
        .collect();
    let says = |text: &String| text.contains(words);
    let said = with.iter().filter(|one| one.evidence.iter().any(says));
    (said.count(), with.len())
}

const LOST: &str = "the capture on app-1 lost something at about that time";

#[test]
fn a_side_that_is_missing_for_a_loss_at_its_time_is_said_to_be() {
    let records = recorded("stale");
    let failed = failed(&records);
    let (nginx, theirs) = taken_apart(&records, AHEAD_NS);
    let whole = both(nginx.clone(), theirs.clone()).0;
    assert_eq!(says(&whole, LOST).0, 0);
    let left: Vec<Record> = theirs
        .into_iter()
        .filter(|record| {
            !matches!(record, Record::Accepted(accepted) if end_of(accepted, &failed).is_some())
        })
        .collect();
    let with = |losses: &mut dyn Iterator<Item = Record>| {
        let theirs: Vec<Record> = left.iter().cloned().chain(losses).collect();
        both(nginx.clone(), theirs).0
    };
    let at_the_time = with(&mut losses(&failed, 0));
    let (said, of) = says(&at_the_time, LOST);
    assert!(said > 0 && said == of, "{said} of {of}");
    let later = with(&mut losses(&failed, 100_000_000_000));
    assert_eq!(says(&later, LOST).0, 0);
    assert_eq!(verdicts(&at_the_time), verdicts(&later));
}

#[test]
fn a_close_that_was_lost_does_not_show_that_the_side_was_open() {
    let records = recorded("aborted");
    let failed = failed(&records);
    let (nginx, mut theirs) = taken_apart(&records, AHEAD_NS);
    for record in &mut theirs {
        if let Record::Accepted(accepted) = record
            && end_of(accepted, &failed).is_some()
        {
            accepted.end = AcceptedEnd::Broken;
            accepted.closed_ns = None;
            accepted.rst_received_ns = None;
        }
    }
    let open = "own socket was still open";
    assert!(says(&both(nginx.clone(), theirs.clone()).0, open).0 > 0);
    theirs.extend(losses(&failed, 0));
    let report = both(nginx, theirs).0;
    assert_eq!(says(&report, open).0, 0);
    assert!(says(&report, LOST).0 > 0);
}

#[test]
fn processes_of_two_hosts_with_one_number_are_not_taken_for_one_another() {
    let (mut nginx, theirs) = taken_apart(&recorded("closed"), 1_000_000);
    let closed = theirs.iter().find_map(|record| match record {
        Record::Accepted(accepted) if accepted.fin_received_ns.is_none() => {
            Some((accepted.pid?, accepted.closed_ns? - 1_000_000))
        }
        _ => None,
    });
    let (pid, ns) = closed.unwrap();
    let named = |report: &Report| {
        let evidence = report.incidents.iter().flat_map(|one| &one.evidence);
        evidence
            .filter(|text| text.contains(&format!("process {pid} (")))
            .count()
    };
    assert!(named(&both(nginx.clone(), theirs.clone()).0) > 0);
    // On nginx's host a process of that number is killed at that moment.
    let end = nginx
        .iter()
        .position(|record| matches!(record, Record::End(_)));
    let killed = BackendExit {
        ns: ns + 1_000_000,
        pid,
        parent_pid: 1,
        comm: "other".to_owned(),
        exit: Exit::Signal(9),
    };
    nginx.insert(end.unwrap(), Record::BackendExit(killed));
    let (report, _) = both(nginx, theirs);
    assert_eq!(named(&report), 0);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("cannot be told apart"))
    );
}

#[test]
fn a_capture_that_is_given_twice_counts_once() {
    let (nginx, theirs) = taken_apart(&recorded("killed"), 1_000_000);
    let started = |records: Vec<Record>, start_ns: u64| {
        let begin = |mut record| {
            if let Record::Capture(capture) = &mut record {
                capture.start_ns = start_ns;
                capture.boot_id = Some("theirs".to_owned());
            }
            record
        };
        records.into_iter().map(begin).collect::<Vec<Record>>()
    };
    let once = together_all(nginx.clone(), vec![backend(started(theirs.clone(), 7))]);
    let twice = vec![
        backend(started(theirs.clone(), 7)),
        backend(started(theirs.clone(), 7)),
    ];
    let twice = together_all(nginx.clone(), twice);
    assert_eq!(verdicts(&twice), verdicts(&once));
    assert_eq!(twice.joined.len(), 1);
    assert_eq!(twice.joined[0].connections, once.joined[0].connections);
    let notes = twice.notes.join("\n");
    assert!(notes.contains("taken once"), "{notes}");

    // Two captures of one host, the first of which ended while all was open.
    let still_open = |mut record| {
        if let Record::Accepted(accepted) = &mut record {
            accepted.end = AcceptedEnd::Open;
            accepted.closed_ns = None;
            accepted.fin_received_ns = None;
            accepted.pid = None;
            accepted.exit = None;
        }
        record
    };
    let first: Vec<Record> = theirs.iter().cloned().map(still_open).collect();
    let both = vec![
        backend(started(first, 7)),
        backend(started(theirs.clone(), 8)),
    ];
    let both = together_all(nginx, both);
    assert_eq!(verdicts(&both), verdicts(&once));
    let joined = both.joined.iter().map(|one| one.connections);
    assert_eq!(joined.sum::<u64>(), once.joined[0].connections);
}

#[test]
fn a_capture_that_began_later_is_said_to_have_missed_that_time() {
    let (nginx, mut theirs) = taken_apart(&recorded("killed"), 1_000_000);
    let (whole, _) = both(nginx.clone(), theirs.clone());
    let said = |report: &Report| {
        report
            .notes
            .iter()
            .any(|note| note.contains("not captured"))
    };
    assert!(!said(&whole), "{:?}", whole.notes);
    let times: Vec<u64> = theirs
        .iter()
        .filter_map(|record| match record {
            Record::Anchor(anchor) => Some(anchor.monotonic_ns),
            _ => None,
        })
        .collect();
    let last = *times.last().unwrap();
    assert!(last - times[0] > 1_000_000_000, "the run is long enough");
    theirs.retain(|record| !matches!(record, Record::Anchor(one) if one.monotonic_ns < last));
    let (late, _) = both(nginx, theirs);
    assert!(said(&late), "{:?}", late.notes);
}

#[test]
fn where_the_source_is_translated_the_two_sources_are_told() {
    let (nginx, mut theirs) = taken_apart(&recorded("killed"), 1_000_000);
    for record in &mut theirs {
        if let Record::Accepted(accepted) = record {
            accepted.remote.set_ip("203.0.113.9".parse().unwrap());
        }
    }
    let (report, alone) = both(nginx, theirs);
    assert_eq!(verdicts(&report), verdicts(&alone));
    let notes = report.notes.join("\n");
    for part in ["from 198.18.0.1,", "was from 203.0.113.9", "translation"] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
}
