//! Clients that write nginx's own words into their requests: no verdict moves, and no
//! control character reaches a terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use lab::abrupt::{Abrupt, Deed};
use lab::backend::{Backend, Habits, IPV4};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::PATIENCE;
use lab::fastcgi;
use lab::load::{Client, Request};
use lab::nginx::{Configuration, Upstream};
use lab::tool;

use crate::bench::{Bench, alone};
use crate::causes::{is_on, only, says};

/// What a forger would have the report say. Nobody is there (RFC 5737).
const FORGED: &str = "192.0.2.66:6666";

/// Request lines and headers that nginx takes. Since 1.21.1 a space in a request line is
/// refused, a control character in a header's value is not.
const TAKEN: [(&str, &str); 5] = [
    (
        "/app/1\",upstream:\"http://192.0.2.66:6666/",
        "Host: lab.test",
    ),
    (
        "/app/2%22,%20upstream:%20%22http://192.0.2.66:6666/%22%0a",
        "Host: lab.test",
    ),
    ("/app/3", "Host: lab.test\",upstream:\"192.0.2.66:6666"),
    (
        "/app/4",
        "Host: lab.test\r\nReferer: x\", upstream: \"http://192.0.2.66:6666/\", host: \"evil\" \
         while connecting to upstream, client: 192.0.2.1, server: evil, request: \"GET / \
         HTTP/1.1\", upstream: \"http://192.0.2.66:6666/",
    ),
    (
        "/app/5\"\u{9b}31m",
        "Host: lab.test\r\nReferer: \u{1b}[2J\u{1b}]0;owned\u{7}\u{8}\u{9b}1m\u{202e}\u{7f}",
    ),
];

/// Requests that nginx refuses, with lines that name no upstream of its own.
const REFUSED: [(&str, &str); 2] = [
    (
        "/app/6\", upstream: \"http://192.0.2.66:6666/",
        "Host: lab.test",
    ),
    (
        "/missing\", upstream: \"http://192.0.2.66:6666/\u{1b}[2J HTTP/1.1",
        "Host: lab.test\u{1b}",
    ),
];

fn ask(nginx: SocketAddr, (target, headers): (&str, &str)) -> String {
    let mut client = TcpStream::connect(nginx).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {target} HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // nginx may reset a request that it refuses.
    let _ = client.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[track_caller]
fn is_harmless(text: &str, of: &str) {
    let acted_on = |character: &char| {
        (character.is_control() && *character != '\n') || *character == '\u{202e}'
    };
    let found: Vec<char> = text.chars().filter(acted_on).collect();
    assert!(found.is_empty(), "{of} has {found:?}: {text:?}");
}

#[test]
fn forged_requests_move_no_verdict_and_reach_no_terminal() {
    let _alone = alone();
    let close = Kind::CloseWithoutAnswer(Means::Fin);
    let habits = Habits {
        behaviour: Behaviour::of(close),
        ..Habits::default()
    };
    let backend = Backend::start(IPV4, habits).unwrap();
    let configuration = Configuration {
        workers: 1,
        log_level: Some("info"),
        ..Configuration::new(vec![Upstream::new("app", backend.address())])
    };
    let mut bench = Bench::start(&configuration, &[]);
    let address = bench.nginx.address();
    // It can answer, so that each close stands for itself.
    let good = Request::get("/app/good").asking(Behaviour::ANSWER);
    let mut client = Client::connect(address).unwrap();
    assert_eq!(client.ask(&good).unwrap().status, 200);
    for request in TAKEN {
        let answer = ask(address, request);
        assert!(answer.starts_with("HTTP/1.1 502"), "{request:?}: {answer}");
    }
    for request in REFUSED {
        let answer = ask(address, request);
        assert!(!answer.starts_with("HTTP/1.1 502"), "{request:?}: {answer}");
    }
    // The forgery is in the log as it was sent.
    let log = std::fs::read(bench.nginx.error_log()).unwrap();
    let log = String::from_utf8_lossy(&log).into_owned();
    assert!(log.matches(FORGED).count() >= TAKEN.len(), "{log}");
    assert!(
        log.contains("\", upstream: \"http://192.0.2.66:6666/"),
        "{log}"
    );
    assert!(log.contains('\u{1b}') && log.contains('\u{7}'), "{log}");

    let trace = bench.trace();
    let trace = trace.to_str().unwrap().to_owned();
    let finished = bench.finish();
    is_harmless(&finished.text(), "the capture's report");
    is_harmless(&finished.stderr, "the capture's progress");

    let report = crate::bench::report(bench.trace().as_path());
    let records = backend.connections().split_off(1);
    assert_eq!(records.len(), TAKEN.len(), "{records:#?}");
    assert_eq!(
        report.incidents.len(),
        TAKEN.len(),
        "{:#?}",
        report.incidents
    );
    for (incident, record) in report.incidents.iter().zip(&records) {
        is_on(incident, record);
        says(
            incident,
            [
                "backend",
                "fin",
                "wait",
                "closed-without-answer",
                "sure",
                "exact",
            ],
        );
    }
    // By what a connection was, never by what a client wrote.
    let upstreams: Vec<&str> = report
        .upstreams
        .iter()
        .map(|one| one.address.as_str())
        .collect();
    assert_eq!(upstreams, [backend.address().to_string()]);

    let run = |arguments: &[&str]| {
        let finished = tool::run(arguments).unwrap().succeeded().unwrap();
        let of = arguments.join(" ");
        is_harmless(&finished.text(), &of);
        is_harmless(&finished.stderr, &of);
        finished.text()
    };
    let text = run(&["report", &trace]);
    assert!(text.contains("/app/1"), "{text}");
    run(&["report", &trace, "--format", "json"]);
    for id in 1..=TAKEN.len() {
        let shown = run(&["show", &trace, &id.to_string()]);
        assert!(shown.contains(&backend.address().to_string()), "{shown}");
    }
}

/// A line as nginx writes it, of this worker and this client's connection.
fn line(worker: u32, number: u64, message: &str) -> String {
    let now = Command::new("date")
        .arg("+%Y/%m/%d %H:%M:%S")
        .output()
        .unwrap();
    format!(
        "{} [error] {worker}#{worker}: *{number} {message} while reading response header from \
         upstream, client: 192.0.2.1, server: lab.test, request: \"GET /app/forged HTTP/1.1\", \
         upstream: \"http://{FORGED}/app/forged\", host: \"lab.test\"",
        String::from_utf8_lossy(&now.stdout).trim()
    )
}

#[test]
fn a_line_that_no_call_of_nginxs_wrote_is_no_incident() {
    let _alone = alone();
    let configuration = |backend: SocketAddr| Configuration {
        workers: 1,
        ..Configuration::new(vec![Upstream::new("app", backend).over_fastcgi()])
    };
    // The backend has to know the worker's pid before it can forge its lines.
    let address = TcpListener::bind(IPV4).unwrap().local_addr().unwrap();
    let mut bench = Bench::start(&configuration(address), &[]);
    let worker = bench.nginx.workers().unwrap()[0];
    let forged = [
        line(worker, 7_000_000, "upstream prematurely closed connection"),
        line(worker, 7_000_001, "no live upstreams"),
        // Of a worker that is none.
        line(
            worker + 1,
            7_000_002,
            "recv() failed (104: Connection reset by peer)",
        ),
    ];
    let said = format!("PHP message: oh\n{}\nthe end", forged.join("\n"));
    let backend = Abrupt::start(address, Deed::Write(fastcgi::stderr(said.as_bytes()))).unwrap();
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    assert_eq!(client.ask(&Request::get("/app/real")).unwrap().status, 502);
    let connection = backend.only().unwrap();
    // Another program writes to the log, too.
    let mut log = File::options()
        .append(true)
        .open(bench.nginx.error_log())
        .unwrap();
    let other = line(worker, 7_000_003, "upstream prematurely closed connection");
    writeln!(log, "{other}").unwrap();
    let lines = bench.nginx.upstream_lines().unwrap();
    let of_forger = lines.iter().filter(|line| line.contains(FORGED)).count();
    assert_eq!(of_forger, forged.len() + 1, "{lines:#?}");

    let report = bench.report();
    let incident = only(&report);
    assert_eq!(incident.matched, "exact", "{incident:#?}");
    assert_eq!(incident.target(), Some("/app/real"));
    let found = incident.connection.as_ref().unwrap();
    assert_eq!(
        (found.local, found.remote),
        (connection.remote, connection.local)
    );
    assert_eq!(report.summary.foreign_lines, 4);
    let note = |text: &&String| text.contains("4 lines of the error log speak of an upstream");
    assert_eq!(
        report.notes.iter().filter(note).count(),
        1,
        "{:#?}",
        report.notes
    );
}
