//! Two endings of a kept connection that look alike in nginx's log: over before the
//! request came, for one reason or another, or closed on the request.

use std::time::{Duration, Instant};

use lab::backend::{Backend, Connection, Habits, IPV4, Idle, Why};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, sleep_until};
use lab::load::{Client, Method, Request};
use lab::nginx::{Configuration, Upstream};
use lab::stale::{Race, race};
use lab::truth;
use lab::verdicts::compare;

use crate::bench::{Bench, alone};
use crate::causes::{is_on, says};

#[test]
fn a_request_past_the_backends_limit_is_charged_to_the_limit() {
    const LIMIT: usize = 3;
    let _alone = alone();
    let backend = Backend::start(
        IPV4,
        Habits {
            request_limit: Some(LIMIT),
            ..Habits::default()
        },
    )
    .unwrap();
    let upstream = Upstream::new("app", backend.address()).keepalive(16);
    let configuration = Configuration {
        workers: 1,
        ..Configuration::new(vec![upstream])
    };
    let mut bench = Bench::start(&configuration, &[]);
    // Connections that reach the limit unraced: by these the tool knows it.
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    for served in 1..=8 * LIMIT {
        let response = client.ask(&Request::get("/app/x")).unwrap();
        assert_eq!(response.status, 200);
        if served % LIMIT == 0 {
            // nginx reads the FIN before the next request: none is raced yet.
            let connections = served / LIMIT;
            let closed = |records: &[Connection]| {
                records.len() == connections && records.iter().all(|record| !record.is_open())
            };
            backend
                .wait_until("the close at the limit", PATIENCE, closed)
                .unwrap();
            bench.wait_until_closed(backend.address());
        }
    }
    let plan = Race {
        location: "/app/".into(),
        requests: 2,
        method: Method::Post,
        served_before: LIMIT,
    };
    let raced = race(&bench.nginx, &backend, &plan).unwrap();
    assert!(raced.responses.iter().all(|(_, got)| got.status == 502));
    let report = bench.report();
    let comparison = compare(&truth::stale(&raced.stale), &report);
    assert!(comparison.holds(), "\n{comparison}");
    for (incident, stale) in report.incidents.iter().zip(&raced.stale) {
        let record = &stale.connection;
        assert!(record.closed_because(Why::RequestLimit));
        assert_eq!(incident.phase, "idle", "{incident:#?}");
        // A limit is inferred.
        assert_eq!(incident.confidence, "likely", "{incident:#?}");
        assert_eq!(
            (incident.retried, incident.served),
            (Some(false), Some(false))
        );
    }
    let limit = report.upstream(backend.address()).unwrap().request_limit;
    assert_eq!(limit.unwrap().requests, u32::try_from(LIMIT).unwrap());
}

#[test]
fn a_refused_answer_and_a_stale_connection_after_the_same_silence_are_told_apart() {
    const TIMEOUT: Duration = Duration::from_millis(900);
    const SILENCE: Duration = Duration::from_millis(700);
    let _alone = alone();
    let backend = Backend::start(
        IPV4,
        Habits {
            idle: Some(Idle {
                after: TIMEOUT,
                means: Means::Fin,
            }),
            ..Habits::default()
        },
    )
    .unwrap();
    let upstream = Upstream::new("app", backend.address()).keepalive(16);
    let configuration = Configuration {
        workers: 1,
        ..Configuration::new(vec![upstream])
    };
    let mut bench = Bench::start(&configuration, &[]);
    let refusal = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    // A busy machine may delay a request beyond the backend's timeout; that is none.
    let mut refused = Vec::new();
    for attempt in 0..20 {
        let mut client = Client::connect(bench.nginx.address()).unwrap();
        assert_eq!(client.ask(&Request::get("/app/first")).unwrap().status, 200);
        sleep_until(Instant::now() + SILENCE);
        let target = format!("/app/refused-{attempt}");
        let request = Request::post(&target, 5).asking(refusal);
        assert_eq!(client.ask(&request).unwrap().status, 502);
        refused = backend.connections();
        refused.retain(|record| record.closed_because(Why::BeforeAnswer));
        if refused.iter().any(|record| record.answered() == 1) {
            break;
        }
    }
    assert!(refused.iter().any(|record| record.answered() == 1));
    let plan = Race {
        location: "/app/".into(),
        requests: 2,
        method: Method::Post,
        served_before: 1,
    };
    let raced = race(&bench.nginx, &backend, &plan).unwrap();
    let report = bench.report();
    let mut happened = truth::recorded(&refused);
    happened.extend(truth::stale(&raced.stale));
    let comparison = compare(&happened, &report);
    assert!(comparison.holds(), "\n{comparison}");
    for row in &comparison.rows {
        let incident = row.incident.as_ref().unwrap();
        let connection = incident.connection.as_ref().unwrap();
        if let Some(record) = refused
            .iter()
            .find(|record| record.remote == connection.local)
        {
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
            assert_eq!(connection.reused, Some(record.answered() > 0));
        } else {
            says(
                incident,
                [
                    "backend",
                    "fin",
                    "idle",
                    "stale-keepalive",
                    "certain",
                    "exact",
                ],
            );
            assert_eq!(connection.reused, Some(true));
        }
    }
}

#[test]
fn a_reset_found_before_sending_is_stale_and_its_line_speaks_of_connecting() {
    let _alone = alone();
    for address in [IPV4, lab::backend::IPV6] {
        let backend = Backend::start(
            address,
            Habits {
                idle: Some(Idle {
                    after: Duration::from_millis(400),
                    means: Means::Rst,
                }),
                ..Habits::default()
            },
        )
        .unwrap();
        let upstream = Upstream::new("app", backend.address()).keepalive(16);
        let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
        let plan = Race {
            location: "/app/".into(),
            requests: 4,
            method: Method::Post,
            served_before: 2,
        };
        let raced = race(&bench.nginx, &backend, &plan).unwrap();
        let report = bench.report();
        let comparison = compare(&truth::stale(&raced.stale), &report);
        assert!(comparison.holds(), "\n{comparison}");
        for incident in &report.incidents {
            assert_eq!(incident.line.message, "connect() failed");
            says(
                incident,
                [
                    "backend",
                    "rst",
                    "idle",
                    "stale-keepalive",
                    "certain",
                    "exact",
                ],
            );
            // Nothing was sent, so that even a POST is tried again.
            assert_eq!(
                (incident.retried, incident.served),
                (Some(true), Some(true))
            );
        }
    }
}
