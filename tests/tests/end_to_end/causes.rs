//! One test for each way in which an attempt fails: every word of its verdict, and the
//! connection that it is about.

use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use lab::backend::{Backend, Connection, Ended, Habits, IPV4, Overfull, Why};
use lab::behaviour::{Behaviour, Framing, Kind, Means};
use lab::clock::{PATIENCE, wait_for};
use lab::load::{Client, Request};
use lab::nginx::{Configuration, Upstream};
use lab::sockets::{self, State};
use lab::verdicts::{Incident, Report};

use crate::bench::{Bench, alone};

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(600);
/// Every word of a verdict.
type Words = [&'static str; 6];

/// side, means, phase, cause, confidence, match. `sure` stands for `certain` and for
/// `likely`: whether everything more special is excluded depends on when nginx, on a
/// busy host, comes to read what has arrived.
#[track_caller]
pub(crate) fn says(incident: &Incident, mut words: Words) {
    if words[4] == "sure" {
        words[4] = match incident.confidence.as_str() {
            "likely" => "likely",
            _ => "certain",
        };
    }
    let lost = |sentence: &String| sentence.contains("kernel records were lost");
    if words[4] == "certain" && incident.evidence.iter().any(lost) {
        // The host was so busy that nobody can be certain.
        words[4] = "likely";
    }
    let found = [
        &incident.side,
        &incident.means,
        &incident.phase,
        &incident.cause,
        &incident.confidence,
        &incident.matched,
    ];
    assert_eq!(found.map(String::as_str), words, "{incident:#?}");
}

/// The client got no answer from anybody else.
#[track_caller]
fn was_the_end(incident: &Incident) {
    assert_eq!(incident.retried, Some(false), "{incident:#?}");
    assert_eq!(incident.served, Some(false), "{incident:#?}");
}

/// The connection is the one that the backend recorded.
#[track_caller]
pub(crate) fn is_on(incident: &Incident, record: &Connection) {
    let connection = incident.connection.as_ref().unwrap();
    assert_eq!(connection.local, record.remote, "{incident:#?}");
    assert_eq!(connection.remote, record.local, "{incident:#?}");
    assert_eq!(incident.upstream, record.local.to_string());
}

/// The only incident.
#[track_caller]
pub(crate) fn only(report: &Report) -> &Incident {
    assert_eq!(report.incidents.len(), 1, "{:#?}", report.incidents);
    &report.incidents[0]
}

fn one_worker(upstream: Upstream) -> Configuration {
    Configuration {
        workers: 1,
        ..Configuration::new(vec![upstream])
    }
}

fn backend() -> Backend {
    Backend::start(IPV4, Habits::default()).unwrap()
}

/// One request that asks for this behaviour, with this directive in force; its only
/// incident and the backend's record of its connection.
#[track_caller]
fn one_failure(behaviour: Kind, body: usize, directives: &str) -> (Incident, Connection) {
    let backend = backend();
    let upstream = Upstream::new("app", backend.address()).with(directives);
    let mut bench = Bench::start(&one_worker(upstream), &[]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    let request = if body == 0 {
        Request::get("/app/x")
    } else {
        Request::post("/app/x", body)
    };
    client
        .send(&request.asking(Behaviour::of(behaviour)))
        .unwrap();
    // What the client gets, if anything, is not the point: that it is over is.
    let _ = client.receive();
    let report = bench.report();
    let records = backend.connections();
    assert_eq!(records.len(), 1, "{records:#?}");
    (only(&report).clone(), records[0].clone())
}

#[test]
fn a_client_that_leaves_is_told_apart_from_a_backend_that_closes() {
    let _alone = alone();
    let backend = backend();
    let configuration = Configuration {
        log_level: Some("info"),
        ..one_worker(Upstream::new("app", backend.address()))
    };
    for means in [Means::Fin, Means::Rst] {
        let mut bench = Bench::start(&configuration, &[]);
        let earlier = backend.connections().len();
        let mut client = Client::connect(bench.nginx.address()).unwrap();
        let slow = Behaviour::ANSWER.after(FOREVER);
        client.send(&Request::get("/app/x").asking(slow)).unwrap();
        let read = |records: &[Connection]| {
            records
                .get(earlier)
                .is_some_and(|record| !record.requests.is_empty())
        };
        backend.wait_until("the request", PATIENCE, read).unwrap();
        client.abort(means).unwrap();
        let records = backend
            .wait_until("nginx to go", PATIENCE, |records| {
                !records[earlier].is_open()
            })
            .unwrap();
        let record = records.last().unwrap();
        assert_eq!(record.end.unwrap().how, Ended::PeerClosed);
        assert_eq!(record.end.unwrap().why, Why::PeerInFlight);
        let report = bench.report();
        let incident = only(&report);
        says(
            incident,
            [
                "client",
                "close",
                "wait",
                "client-abort",
                "certain",
                "exact",
            ],
        );
        was_the_end(incident);
        is_on(incident, record);
    }
}

#[test]
fn an_upstream_without_a_live_peer_has_no_connection_and_belongs_to_the_attempt_before() {
    let _alone = alone();
    let (one, two) = (backend(), backend());
    // Through /once/ the first server fails and is disabled; through /app/ the second
    // fails, and then nobody is left.
    let configuration = Configuration {
        more: "location /once/ { proxy_pass http://app; proxy_next_upstream off; \
               proxy_set_header Connection close; }\n"
            .to_owned(),
        ..one_worker(Upstream::new("app", one.address()).and(two.address()))
    };
    let mut bench = Bench::start(&configuration, &[]);
    let refuse = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    for target in ["/once/x", "/app/x"] {
        let response = client.ask(&Request::get(target).asking(refuse)).unwrap();
        assert_eq!(response.status, 502);
    }
    let report = bench.report();
    let [first, second, nobody] = report.incidents.as_slice() else {
        panic!("{:#?}", report.incidents);
    };
    is_on(first, &one.connections()[0]);
    is_on(second, &two.connections()[0]);
    says(
        nobody,
        [
            "nginx",
            "none",
            "connect",
            "no-live-upstreams",
            "certain",
            "none",
        ],
    );
    assert!(nobody.connection.is_none());
    assert_eq!(nobody.upstream, "app");
    assert_eq!(nobody.request_group, second.request_group);
    assert_ne!(first.request_group, second.request_group);
    for incident in &report.incidents {
        was_the_end(incident);
    }
}

#[test]
fn a_connect_that_a_full_queue_leaves_unanswered_times_out_on_the_socket_that_asked() {
    let _alone = alone();
    let backend = Overfull::start().unwrap();
    let upstream = Upstream::new("app", backend.address()).with("proxy_connect_timeout 1s;");
    let mut bench = Bench::start(&one_worker(upstream), &[]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    client.send(&Request::get("/app/x")).unwrap();
    // Nobody accepts it, so that only the kernel's own table knows it.
    let asking = wait_for("nginx's connect", PATIENCE, || {
        let sockets = sockets::towards(backend.address())?;
        Ok(sockets
            .into_iter()
            .find(|socket| socket.state == State::SYN_SENT))
    })
    .unwrap();
    assert_eq!(client.receive().unwrap().status, 504);
    let report = bench.report();
    let incident = only(&report);
    says(
        incident,
        [
            "nginx",
            "timeout",
            "connect",
            "backlog-full",
            "certain",
            "exact",
        ],
    );
    was_the_end(incident);
    let connection = incident.connection.as_ref().unwrap();
    assert_eq!(connection.local, asking.local);
    assert_eq!(connection.remote, backend.address());
    assert_eq!(connection.requests, Some(0));
    assert_eq!(incident.upstream, backend.address().to_string());
}

#[test]
fn an_address_without_a_way_to_it_is_unreachable_without_a_connection() {
    let _alone = alone();
    // No TCP connection can be made to a group: tcp_v4_connect() gives ENETUNREACH.
    let group: SocketAddr = "224.0.0.1:9".parse().unwrap();
    let mut bench = Bench::start(&one_worker(Upstream::new("app", group)), &[]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    assert_eq!(client.ask(&Request::get("/app/x")).unwrap().status, 502);
    let report = bench.report();
    let incident = only(&report);
    assert_eq!(
        incident.line.message,
        format!("connect() to {group} failed")
    );
    says(
        incident,
        [
            "network",
            "unreachable",
            "connect",
            "unreachable",
            "certain",
            "none",
        ],
    );
    assert!(incident.connection.is_none());
    assert_eq!(incident.upstream, group.to_string());
    // Without a connection the tool may not know; it must not claim the contrary.
    assert_ne!(incident.retried, Some(true));
    assert_ne!(incident.served, Some(true));
}

#[test]
fn a_backend_that_stops_reading_makes_nginx_give_up_sending() {
    let _alone = alone();
    let (incident, record) = one_failure(
        Kind::StopReading,
        16 << 20,
        "client_max_body_size 0; proxy_send_timeout 1s;",
    );
    assert_eq!(record.requests[0].body_bytes, 0);
    says(
        &incident,
        [
            "nginx",
            "timeout",
            "send",
            "send-timeout",
            "certain",
            "exact",
        ],
    );
    was_the_end(&incident);
    is_on(&incident, &record);
}

#[test]
fn a_backend_that_falls_silent_in_its_body_is_timed_out_in_the_body() {
    let _alone = alone();
    let stall = Kind::StallInBody { body: 20_000 };
    let (incident, record) = one_failure(stall, 0, "proxy_read_timeout 1s;");
    assert_eq!(record.requests[0].answered_ns(), None);
    says(
        &incident,
        [
            "nginx",
            "timeout",
            "body",
            "read-timeout",
            "certain",
            "exact",
        ],
    );
    was_the_end(&incident);
    is_on(&incident, &record);
}

#[test]
fn a_response_cut_in_header_or_body_by_fin_or_rst_is_aborted_by_the_backend() {
    let _alone = alone();
    let in_body = |means| Kind::CloseInBody {
        body: 20_000,
        framing: Framing::Length,
        means,
    };
    for (kind, means, phase) in [
        (Kind::CloseInHeader(Means::Fin), "fin", "header"),
        (Kind::CloseInHeader(Means::Rst), "rst", "header"),
        (in_body(Means::Fin), "fin", "body"),
        (in_body(Means::Rst), "rst", "body"),
    ] {
        let (incident, record) = one_failure(kind, 0, "");
        says(
            &incident,
            ["backend", means, phase, "response-aborted", "sure", "exact"],
        );
        was_the_end(&incident);
        is_on(&incident, &record);
    }
}

#[test]
fn a_header_that_nginx_does_not_take_is_nginxs_own_close() {
    let _alone = alone();
    for kind in [Kind::InvalidHeader, Kind::BigHeader { bytes: 20_000 }] {
        let (incident, record) = one_failure(kind, 0, "");
        let how = record.end.unwrap().how;
        assert!(
            matches!(how, Ended::PeerClosed | Ended::PeerReset),
            "{how:?}"
        );
        says(
            &incident,
            [
                "nginx",
                "close",
                "header",
                "response-rejected",
                "certain",
                "exact",
            ],
        );
        was_the_end(&incident);
        is_on(&incident, &record);
    }
}

#[test]
fn a_unix_socket_has_no_connection_to_show_and_no_verdict_is_certain() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    // nginx's workers are another user.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), std::fs::Permissions::clone(&open)).unwrap();
    let path = folder.path().join("backend.sock");
    let missing = folder.path().join("missing.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, open).unwrap();
    let closing = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
    });
    let unix = |path: &std::path::Path| format!("unix:{}", path.display());
    let configuration = Configuration {
        workers: 1,
        ..Configuration::new(vec![
            Upstream::new("closing", unix(&path)),
            Upstream::new("missing", unix(&missing)),
        ])
    };
    let mut bench = Bench::start(&configuration, &[]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    for target in ["/closing/x", "/missing/x"] {
        assert_eq!(client.ask(&Request::get(target)).unwrap().status, 502);
    }
    closing.join().unwrap();
    let report = bench.report();
    assert_eq!(report.incidents.len(), 2);
    for (incident, path) in report.incidents.iter().zip([&path, &missing]) {
        assert_eq!(incident.matched, "none", "{incident:#?}");
        assert!(incident.connection.is_none());
        assert_ne!(incident.confidence, "certain", "{incident:#?}");
        assert_eq!(incident.upstream, unix(path));
        let said = incident.evidence.join(". ");
        assert!(said.contains("unix socket"), "{said:?}");
    }
}

#[test]
fn tls_to_a_plain_port_is_never_certainly_something_else() {
    let _alone = alone();
    let backend = backend();
    let upstream = Upstream::new("app", backend.address()).over_tls();
    let mut bench = Bench::start(&one_worker(upstream), &[]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    assert_eq!(client.ask(&Request::get("/app/x")).unwrap().status, 502);
    let report = bench.report();
    let incident = only(&report);
    assert_eq!(incident.phase, "tls", "{incident:#?}");
    assert_eq!(incident.matched, "exact", "{incident:#?}");
    is_on(incident, &backend.connections()[0]);
    let connection = incident.connection.as_ref().unwrap();
    // The flights of a handshake are no requests.
    assert_eq!(connection.requests, None);
    assert_eq!(connection.reused, None);
    let right = ["protocol-mismatch", "tls-failure"].contains(&incident.cause.as_str());
    assert!(right || incident.confidence != "certain", "{incident:#?}");
}
