//! Hosts on which nobody sees nginx's sends and receives: what is still said is right,
//! what cannot be known is called unknown, and nothing is called certain that rests on it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lab::backend::{Backend, Connection, Habits, IPV4, IPV6, Idle, Why};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{between, now_ns, sleep_until};
use lab::idle::{Asked, Silence};
use lab::load::{Client, Method, Request};
use lab::nginx::{Configuration, Upstream};
use lab::stale::{Race, race};
use lab::truth;
use lab::verdicts::{Incident, Report, compare_beside};
use serde_json::json;

use crate::bench::{Bench, alone, records};

/// What the kernel's ticks may add to a silence, or take from it: one at each end.
const TICKS_MS: f64 = 20.0;

const BLIND: &[&str] = &["--no-io-tracepoints", "--no-fentry"];

const SERVED_BEFORE: usize = 2;

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[track_caller]
fn says_that_calls_are_unseen(bench: &Bench, report: &Report) {
    let said = report
        .notes
        .iter()
        .filter(|note| note.contains("requests cannot be counted"));
    assert_eq!(said.count(), 1, "{:#?}", report.notes);
    for record in records(&bench.trace(), "connection") {
        assert_eq!(record["calls_unseen"], json!(true), "{record}");
    }
}

/// Requests on kept-alive connections that the backend closes without an answer.
#[track_caller]
fn refused_after_idling(address: SocketAddr) {
    let backend = Backend::start(address, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address())
        .keepalive(8)
        .with("proxy_next_upstream off;");
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), BLIND);
    let mut asked = BTreeMap::new();
    let mut notes = Vec::new();
    let mut ask = |client: &mut Client, request: &Request| {
        let asked_ns = now_ns();
        let status = client.ask(request).unwrap().status;
        notes.push(Asked {
            target: request.target.clone(),
            asked_ns,
            told_ns: Some(now_ns()),
        });
        status
    };
    for (index, means) in [Means::Fin, Means::Rst, Means::Fin, Means::Rst]
        .into_iter()
        .enumerate()
    {
        let mut client = Client::connect(bench.nginx.address()).unwrap();
        for round in 0..SERVED_BEFORE {
            let request = Request::get(format!("/app/before-{index}-{round}"));
            assert_eq!(ask(&mut client, &request), 200);
        }
        sleep_until(Instant::now() + Duration::from_millis(300));
        let refusal = Behaviour::of(Kind::CloseWithoutAnswer(means)).after(
            // Far more than a tick, so that the end is in no doubt.
            Duration::from_millis(60),
        );
        let target = format!("/app/refused-{index}");
        let request = Request::get(&target).asking(refusal);
        asked.insert(target, means);
        assert_eq!(ask(&mut client, &request), 502);
    }
    let report = bench.report();
    says_that_calls_are_unseen(&bench, &report);
    assert_eq!(report.incidents.len(), asked.len(), "{report:#?}");
    let closed = backend.connections();
    for incident in &report.incidents {
        let means = asked[incident.target().unwrap()];
        assert_eq!(
            [
                incident.side.as_str(),
                incident.means.as_str(),
                incident.cause.as_str(),
                incident.matched.as_str(),
            ],
            ["backend", means.word(), "closed-without-answer", "exact"],
            "{incident:#?}"
        );
        assert_ne!(incident.confidence, "certain", "{incident:#?}");
        let record = closed
            .iter()
            .find(|record| record.requests.last().unwrap().target == incident.target().unwrap())
            .unwrap();
        let silence = Silence::before_last_request(record, &notes);
        holds_against(incident, record, silence);
    }
    let upstream = report.upstream(backend.address()).unwrap();
    assert_eq!(upstream.requests, None);
    assert_eq!(upstream.connections, closed.len() as u64);
}

/// The right connection, its ages, and no count.
#[track_caller]
fn holds_against(incident: &Incident, record: &Connection, silence: Silence) {
    let connection = incident.connection.as_ref().unwrap();
    assert_eq!(
        (connection.local, connection.remote),
        (record.remote, record.local)
    );
    assert_eq!(connection.requests, None, "{incident:#?}");
    assert_eq!(connection.reused, Some(true), "{incident:#?}");
    assert!(connection.idle_ms.is_some(), "{incident:#?}");
    assert_eq!(silence.problem(connection), None, "{incident:#?}");
    // nginx connects before the backend accepts, and hears of the end after it is made.
    let lived = milliseconds(between(record.accepted_ns, record.end.unwrap().at_ns));
    assert!(
        connection.age_ms > lived - TICKS_MS,
        "{} ms, in truth {lived} and more",
        connection.age_ms
    );
}

#[test]
fn without_its_calls_ends_and_silences_are_right_and_counts_unknown() {
    let _alone = alone();
    for address in [IPV4, IPV6] {
        refused_after_idling(address);
    }
}

#[test]
fn without_its_calls_stale_connections_are_found_and_never_called_certain() {
    let _alone = alone();
    for means in [Means::Fin, Means::Rst] {
        let idle = Some(Idle {
            after: Duration::from_millis(700),
            means,
        });
        let habits = Habits {
            idle,
            ..Habits::default()
        };
        let backend = Backend::start(IPV4, habits).unwrap();
        let upstream = Upstream::new("stale", backend.address()).keepalive(16);
        let mut bench = Bench::start(&Configuration::new(vec![upstream]), BLIND);
        let plan = Race {
            location: "/stale/".to_owned(),
            requests: 4,
            method: Method::Get,
            served_before: SERVED_BEFORE,
        };
        let raced = race(&bench.nginx, &backend, &plan).unwrap();
        let mut truth = truth::stale(&raced.stale);
        for happened in &mut truth {
            happened.requests = None;
        }
        let report = bench.report();
        says_that_calls_are_unseen(&bench, &report);
        let comparison = compare_beside(&truth, &report, &[&backend]);
        assert!(comparison.holds(), "{means:?}\n{comparison}");
        for incident in &report.incidents {
            assert_ne!(incident.confidence, "certain", "{incident:#?}");
            assert_eq!(incident.connection.as_ref().unwrap().requests, None);
        }
        let upstream = report.upstream(backend.address()).unwrap();
        assert_eq!(
            (upstream.requests, upstream.request_limit.is_none()),
            (None, true)
        );
    }
}

#[test]
fn without_its_calls_the_idle_timeout_is_inferred_from_the_kernels_memory() {
    let _alone = alone();
    let idle = Some(Idle {
        after: Duration::from_millis(600),
        means: Means::Fin,
    });
    let habits = Habits {
        idle,
        ..Habits::default()
    };
    let backend = Backend::start(IPV4, habits).unwrap();
    let upstream = Upstream::new("app", backend.address()).keepalive(16);
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), BLIND);
    let mut clients: Vec<Client> = (0..5)
        .map(|_| Client::connect(bench.nginx.address()).unwrap())
        .collect();
    // At once, so that each has a connection of its own.
    let slowly = Behaviour::ANSWER.after(Duration::from_millis(200));
    std::thread::scope(|scope| {
        for (index, client) in clients.iter_mut().enumerate() {
            scope.spawn(move || {
                let request = Request::get(format!("/app/{index}")).asking(slowly);
                assert_eq!(client.ask(&request).unwrap().status, 200);
            });
        }
    });
    bench.wait_until_closed(backend.address());
    let report = bench.report();
    let closes: Vec<f64> = backend
        .connections()
        .iter()
        .filter(|record| record.closed_because(Why::Idle))
        .map(|record| {
            let answered = record.last_answered_ns().unwrap();
            milliseconds(between(answered, record.end.unwrap().at_ns))
        })
        .collect();
    let least = closes.iter().copied().fold(f64::INFINITY, f64::min);
    let most = closes.iter().copied().fold(0.0, f64::max);
    let inferred = report.upstream(backend.address()).unwrap().idle_timeout;
    let inferred = inferred.unwrap_or_else(|| panic!("no idle timeout, in truth {closes:?}"));
    assert!(
        (least - TICKS_MS..=most * 1.02 + TICKS_MS).contains(&inferred.ms),
        "{inferred:?}, in truth {least} to {most}"
    );
}

#[test]
fn what_takes_the_place_of_the_tracepoints_is_recorded_and_counts_if_the_host_lets_it() {
    const REQUESTS: u64 = 7;
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address()).keepalive(4);
    let more = &["--no-io-tracepoints"];
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), more);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    for index in 0..REQUESTS {
        let request = Request::get(format!("/app/{index}"));
        assert_eq!(client.ask(&request).unwrap().status, 200);
    }
    let report = bench.report();
    let [capture] = records(&bench.trace(), "capture").try_into().unwrap();
    let hooks = capture["hooks"].as_array().unwrap();
    let found = |name: &str| hooks.iter().find(|hook| hook["name"] == name).unwrap();
    let (sends, receives) = (found("sock_send_length"), found("sock_recv_length"));
    let by_functions = sends["by"]
        .as_str()
        .is_some_and(|by| by.starts_with("fexit tcp_sendmsg"));
    assert_eq!(sends["attached"], json!(by_functions), "{sends}");
    assert_eq!(receives["attached"], json!(by_functions), "{receives}");
    let reason = sends["reason"].as_str().unwrap();
    assert!(
        reason.contains("tracepoint: withheld on request"),
        "{reason}"
    );
    let requests = report.upstream(backend.address()).unwrap().requests;
    assert_eq!(requests, by_functions.then_some(REQUESTS));
}
