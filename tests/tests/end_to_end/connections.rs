//! The connection behind a line: the right one, its age, its requests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lab::backend::{Backend, Connection, Habits, IPV4, IPV6, Idle, Why};
use lab::behaviour::{Behaviour, Framing, Kind, Means};
use lab::clock::{PATIENCE, between, now_ns, sleep_until};
use lab::idle::{Asked, Silence};
use lab::load::{self, Client, Method, Outcome, Request};
use lab::nginx::{Configuration, Upstream};
use lab::stale::{Race, race};
use lab::truth;
use lab::verdicts::{Report, compare, compare_beside};

use crate::bench::{Bench, alone};

const IDLE: Duration = Duration::from_millis(700);

/// Requests on a connection before the one that fails.
const SERVED_BEFORE: usize = 3;

/// Asks and notes when; the status.
#[track_caller]
fn ask(client: &mut Client, request: &Request, notes: &mut Vec<Asked>) -> u16 {
    let asked_ns = now_ns();
    let response = client.ask(request).unwrap();
    assert!(response.complete);
    notes.push(Asked {
        target: request.target.clone(),
        asked_ns,
        told_ns: Some(now_ns()),
    });
    response.status
}

/// The only incident's count and silence are those of the backend's own record.
#[track_caller]
fn refused_an_answer_after_idling(address: SocketAddr) {
    let backend = Backend::start(address, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address()).keepalive(8);
    let configuration = Configuration {
        workers: 1,
        ..Configuration::new(vec![upstream])
    };
    let mut bench = Bench::start(&configuration, &[]);
    let mut notes = Vec::new();
    let mut attempts = 0;
    // A busy machine makes the bounds wide: then another sample is taken.
    for attempt in 0..20 {
        let mut client = Client::connect(bench.nginx.address()).unwrap();
        for round in 0..SERVED_BEFORE {
            let request = Request::get(format!("/app/{attempt}-{round}"));
            assert_eq!(ask(&mut client, &request, &mut notes), 200);
        }
        sleep_until(Instant::now() + IDLE);
        let target = format!("/app/{attempt}-refused");
        let refusal = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)).once();
        ask(
            &mut client,
            &Request::post(&target, 5).asking(refusal),
            &mut notes,
        );
        let records = backend
            .wait_until("the close", PATIENCE, |records| {
                records
                    .last()
                    .is_some_and(|record| record.closed_because(Why::BeforeAnswer))
            })
            .unwrap();
        let record = records.last().unwrap();
        assert_eq!(record.answered(), SERVED_BEFORE);
        let Silence::Lasted {
            least_ns,
            most_ns: Some(most_ns),
        } = Silence::before_last_request(record, &notes)
        else {
            panic!("its silence is not on record: {record:?}");
        };
        attempts += 1;
        if Duration::from_nanos(most_ns - least_ns) < Duration::from_millis(5) {
            break;
        }
    }
    let report = bench.report();
    let records = backend.connections();
    let truth = truth::recorded_beside(&records, &notes);
    let comparison = compare(&truth, &report);
    for row in &comparison.rows {
        // Cause aside: a close that meets a request on its way looks like a stale one.
        let connection = row.incident.as_ref().unwrap().connection.as_ref().unwrap();
        assert_eq!(connection.reused, Some(true));
        assert_eq!(connection.requests, Some(4));
        let problem = row.happened.idle.unwrap().problem(connection);
        assert_eq!(problem, None, "\n{comparison}");
    }
    assert_eq!(comparison.rows.len(), attempts);
    assert!(comparison.unexpected.is_empty(), "\n{comparison}");
}

#[test]
fn a_refused_request_shows_the_true_idle_time_and_request_count_on_ipv4() {
    let _alone = alone();
    refused_an_answer_after_idling(IPV4);
}

#[test]
fn a_refused_request_shows_the_true_idle_time_and_request_count_on_ipv6() {
    let _alone = alone();
    refused_an_answer_after_idling(IPV6);
}

/// Whether most of these happened after the same time: a busy machine may spread them,
/// and then there is no such time to find. Sorts them.
fn agree(closes: &mut [Duration]) -> bool {
    const SAME: Duration = Duration::from_millis(10);
    closes.sort_unstable();
    let most = closes.len() / 2 + 1;
    closes
        .windows(most)
        .any(|closes| closes[most - 1] - closes[0] < SAME)
}

#[test]
fn stale_connections_have_their_verdict_count_and_age_in_both_families_and_by_both_means() {
    let _alone = alone();
    for address in [IPV4, IPV6] {
        for means in [Means::Fin, Means::Rst] {
            let idle = Some(Idle { after: IDLE, means });
            let backend = Backend::start(
                address,
                Habits {
                    idle,
                    ..Habits::default()
                },
            )
            .unwrap();
            let upstream = Upstream::new("stale", backend.address()).keepalive(16);
            let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
            let mut truth = Vec::new();
            for served_before in [1, 4] {
                let location = "/stale/".to_owned();
                let plan = Race {
                    location,
                    requests: 4,
                    method: Method::Get,
                    served_before,
                };
                let raced = race(&bench.nginx, &backend, &plan).unwrap();
                truth.extend(truth::stale(&raced.stale));
            }
            let report = bench.report();
            let comparison = compare_beside(&truth, &report, &[&backend]);
            assert!(comparison.holds(), "{address} {means:?}\n{comparison}");
            for incident in &report.incidents {
                assert_eq!(incident.connection.as_ref().unwrap().reused, Some(true));
            }
            let inferred = report.upstream(backend.address()).unwrap().idle_timeout;
            // Those of retries too, which nobody raced.
            let mut closes: Vec<_> = backend
                .connections()
                .iter()
                .filter(|record| record.closed_because(Why::Idle))
                .map(|record| {
                    let answered = record.last_answered_ns().unwrap();
                    between(answered, record.end.unwrap().at_ns)
                })
                .collect();
            if agree(&mut closes) {
                let inferred =
                    inferred.unwrap_or_else(|| panic!("no idle timeout, in truth {closes:?}"));
                let least = closes.first().unwrap().as_secs_f64() * 1000.0;
                let most = closes.last().unwrap().as_secs_f64() * 1000.0;
                assert!(
                    (least * 0.95..=most * 1.05).contains(&inferred.ms),
                    "idle timeout {inferred:?}, in truth {closes:?}"
                );
            }
        }
    }
}

/// The behaviour of the n-th of a thousand requests: every tenth fails, in one of
/// several ways; nginx's retry of it is answered.
fn behaviour(n: usize) -> Behaviour {
    if n % 10 != 9 {
        return Behaviour::ANSWER;
    }
    let (body, framing) = (40_000, Framing::Length);
    Behaviour::of(match n / 10 % 5 {
        0 => Kind::CloseWithoutAnswer(Means::Fin),
        1 => Kind::CloseWithoutAnswer(Means::Rst),
        2 => Kind::CloseInBody {
            body,
            framing,
            means: Means::Fin,
        },
        3 => Kind::CloseInBody {
            body,
            framing: Framing::Chunked,
            means: Means::Fin,
        },
        _ => Kind::CloseInHeader(Means::Fin),
    })
    .once()
}

/// A thousand requests, eight at a time.
pub(crate) fn a_thousand_requests(address: SocketAddr) -> Vec<Outcome> {
    let requests: Vec<_> = (0..1000)
        .map(|n| Request::get(format!("/app/{n}")).asking(behaviour(n)))
        .collect();
    load::run(address, &requests, 8, true)
}

/// The connections that the backend closed on a request, by that request's target.
pub(crate) fn failed(backend: &Backend) -> BTreeMap<String, Connection> {
    let failures = [Why::BeforeAnswer, Why::InBody, Why::InHeader];
    backend
        .connections()
        .into_iter()
        .filter(|record| failures.iter().any(|&why| record.closed_because(why)))
        .map(|record| (record.requests.last().unwrap().target.clone(), record))
        .collect()
}

/// Each line's connection is the one that the backend closed on that very request.
#[track_caller]
fn every_line_has_its_own_connection(report: &Report, backend: &Backend) {
    let closed = failed(backend);
    let mut connections = BTreeSet::new();
    for incident in &report.incidents {
        assert_eq!(incident.matched, "exact", "{incident:?}");
        let connection = incident.connection.as_ref().unwrap();
        let record = &closed[incident.target().unwrap()];
        assert_eq!(
            (connection.local, connection.remote),
            (record.remote, record.local)
        );
        assert_eq!(
            connection.requests,
            u32::try_from(record.requests.len()).ok()
        );
        assert!(
            connections.insert(connection.local),
            "two lines share {connection:?}"
        );
    }
}

#[test]
fn a_hundred_failures_in_a_thousand_requests_each_have_the_right_connection() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address()).keepalive(16);
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
    let outcomes = a_thousand_requests(bench.nginx.address());
    assert_eq!(outcomes.len(), 1000);
    let lines = bench.nginx.upstream_lines().unwrap();
    let report = bench.report();
    // The backend failed a hundred requests, once each, and nginx told of them all.
    assert_eq!(lines.len(), 100);
    assert_eq!(report.incidents.len(), 100);
    assert_eq!(report.summary.matched.get("exact"), Some(&100));
    every_line_has_its_own_connection(&report, &backend);
    for incident in &report.incidents {
        let outcome = outcomes
            .iter()
            .find(|one| Some(one.request.target.as_str()) == incident.target());
        let served = outcome.unwrap().served();
        assert!(
            incident.served.is_none_or(|said| said == served),
            "{incident:?}"
        );
    }
}

/// Nothing is attached to nginx's binary, and four workers share the load: their lines
/// are matched by their order.
#[test]
fn without_the_uprobe_the_failures_of_four_workers_find_their_connections() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address()).keepalive(16);
    let configuration = Configuration {
        workers: 4,
        ..Configuration::new(vec![upstream])
    };
    let mut bench = Bench::start(&configuration, &["--no-uprobe"]);
    a_thousand_requests(bench.nginx.address());
    let report = bench.report();
    assert_eq!(report.incidents.len(), 100);
    assert_eq!(report.summary.matched.get("exact"), Some(&0));
    let closed = failed(&backend);
    let mut right = 0;
    for incident in &report.incidents {
        let record = &closed[incident.target().unwrap()];
        let found = incident.connection.as_ref();
        let is_right =
            found.is_some_and(|found| (found.local, found.remote) == (record.remote, record.local));
        assert!(is_right || incident.confidence != "certain", "{incident:?}");
        right += u32::from(is_right);
    }
    assert!(right >= 97, "{right} of 100 have their own connection");
}
