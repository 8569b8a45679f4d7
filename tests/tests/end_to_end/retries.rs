//! nginx tries a failed request again if it may; the report says whether it did and
//! what the client got.

use std::time::Duration;

use lab::backend::{Backend, Habits, IPV4, Idle, Refusing};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::load::{Client, Method, Request};
use lab::nginx::{Configuration, Upstream};
use lab::stale::{Race, race};
use lab::truth;
use lab::verdicts::{Incident, Report, compare};

use crate::bench::{Bench, alone};
use crate::causes::{is_on, only, says};

/// One request that fails on a stale connection; its status and its only incident.
#[track_caller]
fn one_stale_request(method: Method) -> (u16, Incident) {
    let idle = Some(Idle {
        after: Duration::from_millis(500),
        means: Means::Fin,
    });
    let backend = Backend::start(
        IPV4,
        Habits {
            idle,
            ..Habits::default()
        },
    )
    .unwrap();
    let upstream = Upstream::new("stale", backend.address()).keepalive(8);
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
    let plan = Race {
        location: "/stale/".into(),
        requests: 1,
        method,
        served_before: 1,
    };
    let raced = race(&bench.nginx, &backend, &plan).unwrap();
    let (_, response) = raced.responses[0];
    let report = bench.report();
    let comparison = compare(&truth::stale(&raced.stale), &report);
    assert!(comparison.holds(), "\n{comparison}");
    assert_eq!(report.incidents.len(), 1);
    (response.status, report.incidents[0].clone())
}

#[test]
fn a_get_that_fails_on_a_stale_connection_is_retried_and_served() {
    let _alone = alone();
    let (status, incident) = one_stale_request(Method::Get);
    assert_eq!(status, 200);
    assert_eq!(incident.retried, Some(true));
    assert_eq!(incident.served, Some(true));
}

#[test]
fn a_post_that_fails_on_a_stale_connection_is_not_served() {
    let _alone = alone();
    let (status, incident) = one_stale_request(Method::Post);
    assert_eq!(status, 502);
    assert_eq!(incident.retried, Some(false));
    assert_eq!(incident.served, Some(false));
}

/// One GET: its status and the report.
#[track_caller]
fn one_get(configuration: &Configuration) -> (u16, Report) {
    let mut bench = Bench::start(configuration, &[]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    let response = client.ask(&Request::get("/app/x")).unwrap();
    (response.status, bench.report())
}

fn one_worker(upstreams: Vec<Upstream>) -> Configuration {
    Configuration {
        // Each worker begins with the first server.
        workers: 1,
        ..Configuration::new(upstreams)
    }
}

fn doing(behaviour: Behaviour) -> Backend {
    let habits = Habits {
        behaviour,
        ..Habits::default()
    };
    Backend::start(IPV4, habits).unwrap()
}

#[test]
fn a_get_that_is_refused_by_one_peer_and_answered_by_the_next_is_served() {
    let _alone = alone();
    let nobody = Refusing::start(IPV4).unwrap();
    let backend = doing(Behaviour::ANSWER);
    let upstream = Upstream::new("app", nobody.address()).and(backend.address());
    let (status, report) = one_get(&one_worker(vec![upstream]));
    assert_eq!(status, 200);
    assert_eq!(backend.connections()[0].answered(), 1);
    let incident = only(&report);
    says(
        incident,
        [
            "backend",
            "refused",
            "connect",
            "connect-refused",
            "certain",
            "exact",
        ],
    );
    assert_eq!(incident.upstream, nobody.address().to_string());
    assert_eq!(
        incident.connection.as_ref().unwrap().remote,
        nobody.address()
    );
    assert_eq!(
        (incident.retried, incident.served),
        (Some(true), Some(true))
    );
}

#[test]
fn a_get_that_two_peers_fail_is_two_incidents_of_one_request() {
    let _alone = alone();
    let closing = doing(Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)));
    let resetting = doing(Behaviour::of(Kind::CloseWithoutAnswer(Means::Rst)));
    let upstream = Upstream::new("app", closing.address()).and(resetting.address());
    let (status, report) = one_get(&one_worker(vec![upstream]));
    assert_eq!(status, 502);
    let [first, second] = report.incidents.as_slice() else {
        panic!("{:#?}", report.incidents);
    };
    for (incident, backend, means) in [(first, &closing, "fin"), (second, &resetting, "rst")] {
        is_on(incident, &backend.connections()[0]);
        // It has answered nothing yet: a limit of its own is not excluded.
        says(
            incident,
            [
                "backend",
                means,
                "wait",
                "closed-without-answer",
                "likely",
                "exact",
            ],
        );
        assert_eq!(incident.served, Some(false), "{incident:#?}");
    }
    assert_eq!(first.request_group, second.request_group);
    assert_eq!(first.retried, Some(true));
    assert_eq!(second.retried, Some(false));
}

#[test]
fn a_request_that_an_error_page_saves_is_not_called_unserved() {
    let _alone = alone();
    let closing = doing(Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)));
    let saving = doing(Behaviour::ANSWER);
    let (status, report) = one_get(&one_worker(vec![
        Upstream::new("app", closing.address()).with("error_page 502 = /saving/x;"),
        Upstream::new("saving", saving.address()),
    ]));
    assert_eq!(status, 200);
    assert_eq!(saving.connections()[0].answered(), 1);
    let incident = only(&report);
    is_on(incident, &closing.connections()[0]);
    assert_ne!(incident.served, Some(false), "{incident:#?}");
}
