//! Sends and receives that no program saw, as on a busy host whose kernel skips programs:
//! found by the bytes that they moved, and never a wrong claim. And second programs at the
//! same places, which must count nothing twice.

use std::collections::BTreeSet;
use std::time::Duration;

use lab::attached::{Link, held_by, listed};
use lab::backend::{Backend, Habits, IPV4, IPV6};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, wait_for};
use lab::load::{Client, Request};
use lab::nginx::{Configuration, Upstream};
use lab::verdicts::Report;
use serde_json::Value;

use crate::bench::{Bench, alone, records};

const CLIENTS: usize = 6;
const REQUESTS: u32 = 25;

/// Requests of one size on kept-alive connections; each client's last gets no answer.
fn in_use(backend: &Backend, options: &[&str]) -> (Bench, Report) {
    let upstream = Upstream::new("app", backend.address())
        .keepalive(8)
        .with("proxy_next_upstream off;");
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), options);
    for client_number in 0..CLIENTS {
        let means = [Means::Fin, Means::Rst][client_number % 2];
        let mut client = Client::connect(bench.nginx.address()).unwrap();
        for number in 0..REQUESTS {
            let request = Request::get(format!("/app/{client_number}-{:02}", number));
            assert_eq!(client.ask(&request).unwrap().status, 200);
        }
        let refusal =
            Behaviour::of(Kind::CloseWithoutAnswer(means)).after(Duration::from_millis(60));
        let request = Request::get(format!("/app/{client_number}-{means:?}")).asking(refusal);
        assert_eq!(client.ask(&request).unwrap().status, 502);
    }
    let report = bench.report();
    (bench, report)
}

fn number(record: &Value, name: &str) -> u64 {
    record[name].as_u64().unwrap_or(0)
}

/// Each line has its connection, with the side and the means that the backend chose.
#[track_caller]
fn are_right(report: &Report, backend: &Backend) {
    assert_eq!(report.incidents.len(), CLIENTS, "{report:#?}");
    let truth = backend.connections();
    for incident in &report.incidents {
        let target = incident.target().unwrap();
        let means = if target.ends_with("Fin") {
            "fin"
        } else {
            "rst"
        };
        let told = (incident.side.as_str(), incident.means.as_str());
        assert_eq!(told, ("backend", means), "{incident:#?}");
        let truth = truth
            .iter()
            .find(|truth| truth.requests.last().unwrap().target == target)
            .unwrap();
        if let Some(connection) = &incident.connection {
            assert_eq!(connection.local, truth.remote, "{incident:#?}");
        }
        let right = incident.cause == "closed-without-answer";
        assert!(right || incident.confidence != "certain", "{incident:#?}");
    }
}

/// What was filled in lies between what was seen.
#[track_caller]
fn in_order(record: &Value) {
    let at = |name| number(record, name);
    let age = at("ended_ns") - at("opened_ns");
    assert!(at("idle_before_ns") <= age, "{record:#}");
    let first_byte = record["first_byte_ns"].as_u64();
    if let Some(first_byte) = first_byte.filter(|ns| *ns != 0) {
        assert!(at("request_started_ns") <= first_byte, "{record:#}");
        assert!(first_byte <= at("last_received_ns"), "{record:#}");
    }
}

/// The connections' records, each with the number of requests that its backend served.
fn beside_the_truth(bench: &Bench, backend: &Backend) -> Vec<(Value, u64)> {
    let truth = backend.connections();
    let records = records(&bench.trace(), "connection");
    assert_eq!(records.len(), truth.len());
    let pair = |record: Value| {
        let local = record["local"].as_str().unwrap();
        let truth = truth
            .iter()
            .find(|truth| truth.remote.to_string() == local)
            .unwrap();
        (record, truth.requests.len() as u64)
    };
    records.into_iter().map(pair).collect()
}

#[test]
fn second_programs_count_nothing_twice() {
    let _alone = alone();
    for address in [IPV4, IPV6] {
        let backend = Backend::start(address, Habits::default()).unwrap();
        let (bench, report) = in_use(&backend, &["--twins"]);
        are_right(&report, &backend);
        for incident in &report.incidents {
            assert_eq!(incident.cause, "closed-without-answer", "{incident:#?}");
            let connection = incident.connection.as_ref().unwrap();
            assert_eq!(connection.requests, Some(REQUESTS + 1), "{incident:#?}");
        }
        let mut sizes = Vec::new();
        for (record, requests) in beside_the_truth(&bench, &backend) {
            assert_eq!(number(&record, "exchanges"), requests, "{record:#}");
            assert_eq!(number(&record, "missed_calls"), 0, "{record:#}");
            sizes.push(number(&record, "received_bytes") / (requests - 1));
        }
        // Every answer is as long as the next.
        sizes.dedup();
        assert_eq!(sizes.len(), 1, "{sizes:?}");
    }
}

/// By now the capture has given up what it needed to load programs.
#[test]
fn a_second_program_is_attached_when_the_first_has_missed_a_run() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address()).keepalive(8);
    let configuration = Configuration::new(vec![upstream]);
    let mut bench = Bench::start(&configuration, &["--miss-calls", "50"]);
    let pid = bench.capture().pid();
    let attached = || -> BTreeSet<String> {
        let programs = listed("prog").unwrap();
        let links = held_by(pid).unwrap().links;
        let name = |link: &Link| {
            programs.get(&link.program)?["name"]
                .as_str()
                .map(str::to_owned)
        };
        links.values().filter_map(name).collect()
    };
    let twins = ["whoclosed_sendt", "whoclosed_recvt"];
    assert!(!twins.iter().any(|twin| attached().contains(*twin)));
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    wait_for("the second programs", PATIENCE, || {
        let answer = client.ask(&Request::get("/app/kept")).unwrap();
        assert_eq!(answer.status, 200);
        let attached = attached();
        Ok(twins
            .iter()
            .all(|twin| attached.contains(*twin))
            .then_some(()))
    })
    .unwrap();
    bench.report();
}

#[test]
fn calls_that_no_program_saw_are_found_by_their_bytes() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let (exact, _) = in_use(&backend, &[]);
    let (first, requests) = &beside_the_truth(&exact, &backend)[0];
    let answer = number(first, "received_bytes") / (requests - 1);
    assert!(answer > 0);

    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let (bench, report) = in_use(&backend, &["--miss-calls", "30"]);
    are_right(&report, &backend);
    let mut gaps = 0;
    for (record, requests) in beside_the_truth(&bench, &backend) {
        let missed = number(&record, "missed_calls");
        let exchanges = number(&record, "exchanges");
        assert!(exchanges <= requests, "{record:#}");
        // A gap may hide as many exchanges as were missed in a row.
        assert!(exchanges == requests || missed > 0, "{record:#}");
        // The bytes are all there.
        let received = number(&record, "received_bytes");
        assert_eq!(received, answer * (requests - 1), "{record:#}");
        in_order(&record);
        gaps += missed;
    }
    assert!(gaps > 0, "nothing was missed");
    let lost = &report.capture.lost;
    assert!(
        lost.contains_key("missed_runs:sends_on_request"),
        "{lost:?}"
    );
}
