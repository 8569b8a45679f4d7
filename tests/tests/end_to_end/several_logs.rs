//! Several error logs in several contexts at several levels: each line counts once, and
//! what the level hides is said once.

use std::net::SocketAddr;

use lab::backend::{Backend, Connection, Habits, IPV4, Why};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, wait_for};
use lab::load::{self, Client, Request};
use lab::nginx::{Configuration, Nginx, Upstream};
use lab::verdicts::Report;

use crate::bench::{Bench, alone};

const EACH: usize = 10;

fn fail(bench: &Bench, location: &str) {
    let close = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    let requests: Vec<_> = (0..EACH)
        .map(|n| Request::post(format!("/{location}/{n}"), 3).asking(close))
        .collect();
    let outcomes = load::run(bench.nginx.address(), &requests, 2, false);
    assert!(outcomes.iter().all(|outcome| !outcome.served()));
}

/// Clients that leave while the backend works; waits until nginx has given up for them.
fn leave(bench: &Bench, backend: &Backend, location: &str) -> Vec<SocketAddr> {
    let never = Behaviour::ANSWER.after(std::time::Duration::from_secs(600));
    let clients: Vec<Client> = (0..EACH)
        .map(|n| {
            let mut client = Client::connect(bench.nginx.address()).unwrap();
            let request = Request::get(format!("/{location}/left-{n}")).asking(never);
            client.send(&request).unwrap();
            client
        })
        .collect();
    let left = |record: &&Connection| {
        let target = record.requests.last().map(|request| &request.target);
        target.is_some_and(|target| target.starts_with(&format!("/{location}/left-")))
    };
    let all_have = |records: &[Connection]| records.iter().filter(left).count() == EACH;
    backend
        .wait_until("the requests", PATIENCE, all_have)
        .unwrap();
    for client in clients {
        client.abort(Means::Fin).unwrap();
    }
    let gone = |records: &[Connection]| {
        let mut left = records.iter().filter(left);
        left.all(|record| record.end.is_some_and(|end| end.why == Why::PeerInFlight))
    };
    let records = backend
        .wait_until("nginx to give up", PATIENCE, gone)
        .unwrap();
    let left = records.iter().filter(left);
    left.map(|record| record.remote).collect()
}

fn lines(bench: &Bench, log: &str) -> usize {
    let path = bench.nginx.prefix().join(log);
    Nginx::upstream_lines_of(&path).unwrap().len()
}

fn notes<'a>(report: &'a Report, text: &str) -> Vec<&'a String> {
    let found = report.notes.iter().filter(|note| note.contains(text));
    found.collect()
}

const HIDDEN: &str = "with a request in flight and logged nothing";

#[test]
fn a_line_counts_once_whatever_logs_of_its_context_it_stands_in() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let own = Upstream::new("own", backend.address())
        .with("error_log logs/location.log warn; error_log logs/copy.log error;");
    let configuration = Configuration {
        error_logs: vec!["logs/main.log".to_owned()],
        log_level: Some("warn"),
        http: "error_log logs/http.log error;\n".to_owned(),
        more: "error_log logs/server.log error; error_log logs/detail.log info;\n".to_owned(),
        ..Configuration::new(vec![own, Upstream::new("plain", backend.address())])
    };
    let mut bench = Bench::start(&configuration, &[]);
    for location in ["own", "plain"] {
        let mut client = Client::connect(bench.nginx.address()).unwrap();
        let good = Request::get(format!("/{location}/good"));
        assert_eq!(client.ask(&good).unwrap().status, 200);
        fail(&bench, location);
    }
    let left = leave(&bench, &backend, "plain");
    wait_for("nginx's lines", PATIENCE, || {
        Ok((lines(&bench, "logs/detail.log") >= 2 * EACH).then_some(()))
    })
    .unwrap();
    // Where nginx wrote what, by the files themselves.
    for (log, count) in [
        ("logs/main.log", 0),
        ("logs/http.log", 0),
        ("logs/server.log", EACH),
        ("logs/detail.log", 2 * EACH),
        ("logs/location.log", EACH),
        ("logs/copy.log", EACH),
    ] {
        assert_eq!(lines(&bench, log), count, "{log}");
    }
    let report = bench.report();
    assert_eq!(report.incidents.len(), 3 * EACH);
    let mut expected: Vec<(SocketAddr, &str)> = backend
        .connections()
        .iter()
        .filter(|record| record.closed_because(Why::BeforeAnswer))
        .map(|record| (record.remote, "closed-without-answer"))
        .chain(left.iter().map(|end| (*end, "client-abort")))
        .collect();
    for incident in &report.incidents {
        assert_eq!(incident.matched, "exact", "{incident:#?}");
        let found = (
            incident.connection.as_ref().unwrap().local,
            incident.cause.as_str(),
        );
        let at = expected.iter().position(|one| *one == found);
        expected.remove(at.unwrap_or_else(|| panic!("{incident:#?}")));
    }
    assert!(expected.is_empty(), "{expected:?}");
    let twice = format!(
        "{} lines that stood in two logs were counted once",
        2 * EACH
    );
    assert_eq!(notes(&report, &twice).len(), 1, "{:#?}", report.notes);
    assert!(notes(&report, HIDDEN).is_empty(), "{:#?}", report.notes);
}

#[test]
fn a_level_that_hides_clients_that_left_is_told_once_although_another_log_is_finer() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let configuration = Configuration {
        error_logs: vec!["logs/main.log".to_owned()],
        log_level: Some("info"),
        // Requests' lines go here, and nowhere else.
        more: "error_log logs/server.log;\n".to_owned(),
        ..Configuration::new(vec![Upstream::new("app", backend.address())])
    };
    let mut bench = Bench::start(&configuration, &[]);
    fail(&bench, "app");
    assert_eq!(leave(&bench, &backend, "app").len(), EACH);
    let report = bench.report();
    assert_eq!(report.incidents.len(), EACH);
    let told = notes(&report, HIDDEN);
    assert_eq!(told.len(), 1, "{:#?}", report.notes);
    assert!(
        told[0].contains(&format!("nginx closed {EACH} connections")),
        "{told:?}"
    );
}
