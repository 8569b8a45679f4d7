//! nginx tries a failed request again if it may; the report says whether it did and
//! what the client got.

use std::time::Duration;

use lab::backend::{Backend, Habits, IPV4, Idle};
use lab::behaviour::Means;
use lab::load::Method;
use lab::nginx::{Configuration, Upstream};
use lab::stale::{Race, race};
use lab::truth;
use lab::verdicts::{Incident, compare};

use crate::bench::{Bench, alone};

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
