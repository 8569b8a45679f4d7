//! stream and gRPC to backends over TLS: each failure on the connection that the backend
//! knows, and the words that it has behind `proxy_pass`.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use lab::backend::{Backend, Habits, IPV4, Refusing};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::PATIENCE;
use lab::load::{Client, Request};
use lab::nginx::{self, Configuration};
use lab::tls_backend::{Handshaking, Identity, Tls, Version};
use lab::verdicts::{Incident, Report};

use crate::bench::{Bench, alone};
use crate::causes::{is_on, says};

/// What a backend does, and what has to be said of it: side, means, phase, cause.
type Told = (&'static str, Backend, Option<[&'static str; 4]>);

fn over_tls(handshaking: Handshaking, behaviour: Behaviour, versions: &[Version]) -> Backend {
    let identity = Identity::self_signed("lab.test").unwrap();
    let tls = Tls::new(&identity, versions).unwrap();
    let habits = Habits {
        behaviour,
        ..Habits::default()
    };
    Backend::start_tls(IPV4, habits, tls.handshaking(handshaking)).unwrap()
}

fn in_handshake(handshaking: Handshaking) -> Backend {
    over_tls(handshaking, Behaviour::ANSWER, &Version::ALL)
}

fn after_it(kind: Kind) -> Backend {
    over_tls(Handshaking::Finish, Behaviour::of(kind), &Version::ALL)
}

/// Failures of the handshake have the same words everywhere.
fn of_handshakes() -> Vec<Told> {
    let tls = |side, means| Some([side, means, "tls", "tls-failure"]);
    vec![
        (
            "fin",
            in_handshake(Handshaking::EndAfterHello(Means::Fin)),
            tls("backend", "fin"),
        ),
        (
            "rst",
            in_handshake(Handshaking::EndAfterHello(Means::Rst)),
            tls("backend", "rst"),
        ),
        (
            "silent",
            in_handshake(Handshaking::Stall),
            tls("nginx", "timeout"),
        ),
        (
            "untrusted",
            in_handshake(Handshaking::Finish),
            tls("nginx", "close"),
        ),
    ]
}

/// The incidents at a backend.
fn at<'a>(report: &'a Report, backend: &Backend) -> Vec<&'a Incident> {
    let wanted = backend.address().to_string();
    let at = report.incidents.iter();
    at.filter(|incident| incident.upstream == wanted).collect()
}

#[track_caller]
fn each_is_told(report: &Report, told: &[Told]) {
    let mut expected = 0;
    for (name, backend, words) in told {
        let incidents = at(report, backend);
        let Some([side, means, phase, cause]) = words else {
            assert!(incidents.is_empty(), "{name}: {incidents:#?}");
            continue;
        };
        let [incident] = incidents.as_slice() else {
            panic!("{name}: {incidents:#?} in {report:#?}");
        };
        expected += 1;
        says(incident, [side, means, phase, cause, "sure", "exact"]);
        let records = backend.connections();
        assert_eq!(records.len(), 1, "{name}");
        is_on(incident, &records[0]);
    }
    // And nobody was there.
    assert_eq!(report.incidents.len(), expected + 1, "{report:#?}");
    let refused = |incident: &&Incident| incident.cause == "connect-refused";
    assert_eq!(report.incidents.iter().filter(refused).count(), 1);
    for upstream in &report.upstreams {
        assert!(upstream.requests.unwrap_or(0) <= 1, "{upstream:#?}");
    }
}

#[test]
fn grpc_over_tls_has_the_verdicts_of_proxy_over_tls() {
    let _alone = alone();
    // It speaks no HTTP/2, and takes the preface for a request.
    let mut told = of_handshakes();
    let unanswered = |means| Some(["backend", means, "wait", "closed-without-answer"]);
    told.extend([
        (
            "closed",
            after_it(Kind::CloseWithoutAnswer(Means::Fin)),
            unanswered("fin"),
        ),
        (
            "reset",
            after_it(Kind::CloseWithoutAnswer(Means::Rst)),
            unanswered("rst"),
        ),
    ]);
    let nobody = Refusing::start(IPV4).unwrap();
    let mut locations = String::new();
    let all = told
        .iter()
        .map(|(name, backend, _)| (*name, backend.address()));
    for (name, address) in all.chain([("nobody", nobody.address())]) {
        let verify = match name {
            "untrusted" => {
                "grpc_ssl_verify on; grpc_ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt;"
            }
            _ => "",
        };
        let _ = writeln!(
            locations,
            "location /{name} {{ grpc_pass grpcs://{address}; grpc_connect_timeout 1s;
             grpc_ssl_protocols TLSv1.2 TLSv1.3; {verify} }}"
        );
    }
    let configuration = Configuration {
        workers: 1,
        more: locations,
        ..Configuration::new(Vec::new())
    };
    let mut bench = Bench::start(&configuration, &[]);
    for name in told.iter().map(|told| told.0).chain(["nobody"]) {
        let mut client = Client::connect(bench.nginx.address()).unwrap();
        let status = client
            .ask(&Request::get(format!("/{name}")))
            .unwrap()
            .status;
        let expected = if name == "silent" { 504 } else { 502 };
        assert_eq!(status, expected, "{name}");
    }
    let report = bench.report();
    each_is_told(&report, &told);
    for incident in &report.incidents {
        let upstream = incident.line.upstream.as_deref().unwrap();
        assert!(upstream.starts_with("grpcs://"), "{upstream}");
    }
}

/// One session: a request, and what comes, to the end.
fn session(socket: &Path) {
    let mut client = UnixStream::connect(socket).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    // nginx may have closed it by then.
    let _ = client.write_all(b"GET /session HTTP/1.1\r\nHost: lab.test\r\n\r\n");
    let _ = client.read_to_end(&mut Vec::new());
}

#[test]
fn stream_sessions_over_tls_have_their_verdicts() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let socket = |name: &str| folder.path().join(name);
    let mut told = of_handshakes();
    // nginx gives it up without a line.
    for silent in told.iter_mut().filter(|told| told.0 == "silent") {
        silent.2 = None;
    }
    told.extend([
        // A session's ordinary end.
        (
            "closed",
            after_it(Kind::CloseWithoutAnswer(Means::Fin)),
            None,
        ),
        (
            "late",
            over_tls(
                Handshaking::Finish,
                Behaviour::ANSWER.after(std::time::Duration::from_secs(600)),
                // The tickets of 1.3 are bytes that come back (docs/limits.md).
                &[Version::Tls12],
            ),
            Some(["nginx", "timeout", "wait", "read-timeout"]),
        ),
    ]);
    let nobody = Refusing::start(IPV4).unwrap();
    let mut servers = String::new();
    let all = told
        .iter()
        .map(|(name, backend, _)| (*name, backend.address()));
    for (name, address) in all.chain([("nobody", nobody.address())]) {
        let verify = match name {
            "untrusted" => {
                "proxy_ssl_verify on; proxy_ssl_trusted_certificate \
                 /etc/ssl/certs/ca-certificates.crt;"
            }
            _ => "",
        };
        let _ = writeln!(
            servers,
            "server {{ listen unix:{}; proxy_timeout 1s; proxy_connect_timeout 1s;
             proxy_ssl on; proxy_ssl_protocols TLSv1.2 TLSv1.3; {verify} proxy_pass {address}; }}",
            socket(name).display()
        );
    }
    let configuration = Configuration {
        workers: 1,
        log_level: Some("info"),
        main: format!(
            "{}stream {{\n{servers}}}\n",
            nginx::stream_loader().unwrap()
        ),
        ..Configuration::new(Vec::new())
    };
    let mut bench = Bench::start(&configuration, &[]);
    for name in told.iter().map(|told| told.0).chain(["nobody"]) {
        session(&socket(name));
    }
    let lines = bench.nginx.upstream_lines().unwrap();
    for (name, backend, _) in told.iter().filter(|told| told.2.is_none()) {
        let address = format!("upstream: \"{}\"", backend.address());
        let error = |line: &&String| line.contains("[error]") && line.contains(&address);
        assert_eq!(lines.iter().find(error), None, "{name}");
    }
    each_is_told(&bench.report(), &told);
}
