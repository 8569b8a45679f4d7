//! Upstreams over gRPC: what HTTP/2 sends between requests counts for none, and a
//! connection that it makes look used is not called stale.

use std::time::{Duration, Instant};

use lab::behaviour::Means;
use lab::clock::{PATIENCE, sleep_until, wait_for};
use lab::grpc_backend::{Call, GrpcBackend};
use lab::load::{Client, Request};
use lab::nginx::{Configuration, Upstream};
use lab::sockets::{self, State};
use lab::verdicts::{Incident, Report};

use crate::bench::{Bench, alone, records};
use crate::causes::only;

/// Silence that no message of HTTP/2's own explains.
const IDLE: Duration = Duration::from_millis(1100);

fn one_worker(backend: &GrpcBackend) -> Configuration {
    let upstream = Upstream::new("app", backend.address())
        .keepalive(4)
        .over_grpc();
    Configuration {
        workers: 1,
        ..Configuration::new(vec![upstream])
    }
}

/// Calls, one after another, that are treated so; what the client got, and the report.
#[track_caller]
fn calls(script: &[Call]) -> (Report, GrpcBackend, Vec<u16>) {
    let backend = GrpcBackend::start(script).unwrap();
    let mut bench = Bench::start(&one_worker(&backend), &[]);
    let mut statuses = Vec::new();
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    for number in 0..script.len() {
        let request = Request::post(format!("/app/{number}"), 64);
        statuses.push(client.ask(&request).unwrap().status);
    }
    let report = bench.report();
    assert_eq!(backend.connections().len(), 1);
    for upstream in &report.upstreams {
        assert_eq!(upstream.requests, None, "{upstream:?}");
    }
    (report, backend, statuses)
}

/// side, means, phase, cause, match.
#[track_caller]
fn says(incident: &Incident, words: [&str; 5]) {
    let found = [
        &incident.side,
        &incident.means,
        &incident.phase,
        &incident.cause,
        &incident.matched,
    ];
    assert_eq!(found.map(String::as_str), words, "{incident:#?}");
}

/// The connection is the backend's only one, and nothing is claimed of its requests.
#[track_caller]
fn is_on_its_only_one(incident: &Incident, backend: &GrpcBackend) {
    let connection = incident.connection.as_ref().unwrap();
    assert_eq!(connection.local, backend.connections()[0].nginx);
    assert_eq!((connection.requests, connection.reused), (None, None));
    let said = incident.evidence.join(". ");
    assert!(!said.contains("of the request"), "{said}");
}

#[test]
fn a_first_call_that_meets_a_close_met_no_stale_connection() {
    let _alone = alone();
    for (call, means) in [
        (Call::Close(Means::Fin), &["fin"][..]),
        (Call::Close(Means::Rst), &["rst"]),
        // What of nginx's acknowledgement has come by then makes it an RST.
        (Call::Vanish, &["fin", "rst"]),
    ] {
        let (report, backend, statuses) = calls(&[call]);
        assert_eq!(statuses, [502]);
        let incident = only(&report);
        assert!(means.contains(&incident.means.as_str()), "{incident:#?}");
        let words = ["backend", &incident.means, "wait", "closed-without-answer"];
        says(incident, [words[0], words[1], words[2], words[3], "exact"]);
        assert_ne!(incident.confidence, "certain");
        is_on_its_only_one(incident, &backend);
    }
}

#[test]
fn an_answer_cut_short_is_told_though_a_ping_came_last() {
    let _alone = alone();
    for means in [Means::Fin, Means::Rst] {
        let (report, backend, statuses) = calls(&[Call::CloseInAnswer(means)]);
        assert_eq!(statuses, [200]);
        let incident = only(&report);
        says(
            incident,
            ["backend", means.word(), "body", "response-aborted", "exact"],
        );
        is_on_its_only_one(incident, &backend);
    }
}

#[test]
fn a_stream_that_the_backend_resets_is_the_backends_doing() {
    let _alone = alone();
    let (report, backend, statuses) = calls(&[Call::Answer { pings: 1 }, Call::Reset(7)]);
    assert_eq!(statuses, [200, 502]);
    let incident = only(&report);
    assert_eq!(
        incident.line.message,
        "upstream rejected request with error 7"
    );
    says(
        incident,
        ["backend", "close", "wait", "closed-without-answer", "exact"],
    );
    let said = incident.evidence.join(". ");
    assert!(
        said.contains("RST_STREAM, error 7, REFUSED_STREAM"),
        "{said}"
    );
    is_on_its_only_one(incident, &backend);
}

#[test]
fn a_goodbye_to_a_first_call_is_no_stale_connection() {
    let _alone = alone();
    let (report, backend, statuses) = calls(&[Call::GoAway]);
    assert_eq!(statuses, [502]);
    let incident = only(&report);
    assert_eq!(incident.line.message, "upstream sent goaway with error 0");
    says(
        incident,
        ["backend", "close", "wait", "closed-without-answer", "exact"],
    );
    is_on_its_only_one(incident, &backend);
}

#[test]
fn pings_and_acknowledgements_make_no_requests() {
    let _alone = alone();
    let script = [0, 3, 1].map(|pings| Call::Answer { pings });
    let backend = GrpcBackend::start(&script).unwrap();
    let mut bench = Bench::start(&one_worker(&backend), &[]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    for _ in script {
        assert_eq!(
            client.ask(&Request::post("/app/x", 64)).unwrap().status,
            200
        );
    }
    let report = bench.report();
    let [record] = backend.connections().try_into().unwrap();
    assert_eq!(record.calls, 3);
    // What the kernel counts is more than that: so it is not given out as requests.
    let connections = records(&bench.trace(), "connection");
    let [connection] = connections.as_slice() else {
        panic!("{connections:#?}");
    };
    assert!(connection["exchanges"].as_u64() > Some(record.calls));
    let [upstream] = report.upstreams.as_slice() else {
        panic!("{:#?}", report.upstreams);
    };
    assert_eq!(upstream.requests, None);
    assert!(report.incidents.is_empty(), "{:#?}", report.incidents);
}

/// A call that meets a connection which the backend has ended while it was idle.
#[track_caller]
fn raced(goodbye: bool) {
    let backend = GrpcBackend::start(&[Call::Answer { pings: 1 }]).unwrap();
    let mut bench = Bench::start(&one_worker(&backend), &[]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    assert_eq!(
        client.ask(&Request::post("/app/first", 64)).unwrap().status,
        200
    );
    sleep_until(Instant::now() + IDLE);
    // The call waits for the worker first, then the end.
    let [pooled] = sockets::towards(backend.address())
        .unwrap()
        .try_into()
        .unwrap();
    let stopped = bench.nginx.stop_workers().unwrap();
    client.send(&Request::post("/app/raced", 64)).unwrap();
    let end = [(client.remote(), client.local())];
    wait_for("the call to arrive at nginx", PATIENCE, || {
        let socket = sockets::find(&end)?[0];
        Ok(socket.filter(|socket| socket.unread > 0))
    })
    .unwrap();
    backend.end_all(goodbye).unwrap();
    wait_for("the FIN to arrive at nginx", PATIENCE, || {
        let socket = sockets::find(&[(pooled.local, pooled.remote)])?[0];
        Ok(socket.filter(|socket| socket.state == State::CLOSE_WAIT))
    })
    .unwrap();
    drop(stopped);
    assert_eq!(client.receive().unwrap().status, 502);
    let report = bench.report();
    let incident = only(&report);
    let (message, means) = if goodbye {
        ("upstream sent goaway with error 0", "close")
    } else {
        ("upstream prematurely closed connection", "fin")
    };
    assert_eq!(incident.line.message, message);
    says(
        incident,
        ["backend", means, "idle", "stale-keepalive", "exact"],
    );
    // Only by its silence is it known to have been used before.
    assert_eq!(incident.confidence, "likely", "{incident:#?}");
    is_on_its_only_one(incident, &backend);
    let idle_ms = incident.connection.as_ref().unwrap().idle_ms.unwrap();
    assert!(idle_ms >= IDLE.as_secs_f64() * 1000.0, "{idle_ms}");
}

#[test]
fn a_call_on_a_connection_that_has_ended_met_a_stale_one() {
    let _alone = alone();
    raced(false);
}

#[test]
fn a_call_on_a_connection_with_a_goodbye_met_a_stale_one() {
    let _alone = alone();
    raced(true);
}

#[test]
fn nobody_who_listens_is_told_for_grpc_too() {
    let _alone = alone();
    let backend = GrpcBackend::start(&[Call::Stall]).unwrap();
    let configuration = one_worker(&backend);
    let address = backend.address();
    drop(backend);
    let mut bench = Bench::start(&configuration, &[]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    assert_eq!(
        client.ask(&Request::post("/app/x", 64)).unwrap().status,
        502
    );
    let report = bench.report();
    let incident = only(&report);
    assert_eq!(incident.upstream, address.to_string());
    says(
        incident,
        ["backend", "refused", "connect", "connect-refused", "exact"],
    );
}

#[test]
fn a_call_that_is_never_answered_is_nginxs_timer() {
    let _alone = alone();
    let backend = GrpcBackend::start(&[Call::Stall]).unwrap();
    let mut configuration = one_worker(&backend);
    for upstream in &mut configuration.upstreams {
        upstream.directives.push_str("grpc_read_timeout 500ms;");
    }
    for arguments in [&[][..], &["--no-uprobe"]] {
        let mut bench = Bench::start(&configuration, arguments);
        let mut client = Client::connect(bench.nginx.address()).unwrap();
        let request = Request::post("/app/x", 64);
        assert_eq!(client.ask(&request).unwrap().status, 504);
        let report = bench.report();
        let incident = only(&report);
        let matched = if arguments.is_empty() {
            "exact"
        } else {
            "ordered"
        };
        says(
            incident,
            ["nginx", "timeout", "wait", "read-timeout", matched],
        );
        let connection = incident.connection.as_ref().unwrap();
        assert_eq!(
            connection.local,
            backend.connections().last().unwrap().nginx
        );
        assert_eq!((connection.requests, connection.reused), (None, None));
    }
}

#[test]
fn an_answer_cut_short_is_found_without_the_uprobe_too() {
    let _alone = alone();
    let backend = GrpcBackend::start(&[Call::CloseInAnswer(Means::Fin)]).unwrap();
    let mut bench = Bench::start(&one_worker(&backend), &["--no-uprobe"]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    let request = Request::post("/app/x", 64);
    assert_eq!(client.ask(&request).unwrap().status, 200);
    let report = bench.report();
    let incident = only(&report);
    says(
        incident,
        ["backend", "fin", "body", "response-aborted", "ordered"],
    );
    is_on_its_only_one(incident, &backend);
}
