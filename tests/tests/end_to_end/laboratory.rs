//! The lab itself: what the other tests take for granted. Needs no command under test.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lab::backend::{Backend, Habits, IPV4, IPV6, Idle, Refusing};
use lab::behaviour::{Behaviour, Framing, Kind, Means};
use lab::clock::{PATIENCE, wait_for};
use lab::load::{self, Client, Method, Request};
use lab::netns::Namespace;
use lab::nginx::{Configuration, Nginx, Upstream};
use lab::stale::{Race, race};
use lab::{processes, truth};

use crate::bench::alone;
use crate::connections;

#[test]
fn a_race_makes_as_many_stale_failures_as_it_was_asked_for() {
    let _alone = alone();
    for address in [IPV4, IPV6] {
        for (means, line) in [
            (Means::Fin, "upstream prematurely closed connection"),
            (Means::Rst, "(104: Connection reset by peer)"),
        ] {
            for method in [Method::Get, Method::Post] {
                let idle = Some(Idle {
                    after: Duration::from_millis(300),
                    means,
                });
                let backend = Backend::start(
                    address,
                    Habits {
                        idle,
                        ..Habits::default()
                    },
                )
                .unwrap();
                let upstream = Upstream::new("stale", backend.address()).keepalive(16);
                let nginx = Nginx::start(&Configuration::new(vec![upstream])).unwrap();
                let plan = Race {
                    location: "/stale/".into(),
                    requests: 5,
                    method,
                    served_before: 3,
                };
                let raced = race(&nginx, &backend, &plan).unwrap();
                assert_eq!(raced.stale.len(), 5);
                let lines = nginx.upstream_lines().unwrap();
                assert_eq!(lines.len(), 5, "{lines:?}");
                assert!(lines.iter().all(|text| text.contains(line)), "{lines:?}");
                for (target, response) in &raced.responses {
                    let of_target = lines.iter().filter(|text| text.contains(target.as_str()));
                    // A reset is found at once, so that one request may find several.
                    assert!(means == Means::Rst || of_target.count() == 1, "{lines:?}");
                    // A POST is sent before the FIN is seen; a reset is seen before.
                    let tried_again = method == Method::Get || means == Means::Rst;
                    assert_eq!(response.status, if tried_again { 200 } else { 502 });
                }
            }
        }
    }
}

#[test]
fn every_fault_gives_the_line_that_nginx_has_for_it() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let refusing = Refusing::start(IPV6).unwrap();
    let nginx = Nginx::start(&Configuration::new(vec![
        Upstream::new("faulty", backend.address()).with("proxy_read_timeout 300ms;"),
        Upstream::new("refused", refusing.address()),
    ]))
    .unwrap();
    let (body, framing) = (100_000, Framing::Length);
    let slow = Behaviour::ANSWER.after(Duration::from_secs(60));
    let of = Behaviour::of;
    for (behaviour, line) in [
        (
            of(Kind::CloseWithoutAnswer(Means::Fin)),
            "prematurely closed connection while reading response header",
        ),
        (
            of(Kind::CloseWithoutAnswer(Means::Rst)),
            "recv() failed (104",
        ),
        (
            of(Kind::CloseInHeader(Means::Fin)),
            "prematurely closed connection while reading response header",
        ),
        (
            of(Kind::CloseInBody {
                body,
                framing,
                means: Means::Fin,
            }),
            "prematurely closed connection while reading upstream",
        ),
        (
            of(Kind::CloseInBody {
                body,
                framing: Framing::Chunked,
                means: Means::Fin,
            }),
            "prematurely closed connection while reading upstream",
        ),
        (of(Kind::BigHeader { bytes: 20_000 }), "sent too big header"),
        (slow, "upstream timed out (110"),
    ] {
        let target = format!("/faulty/{}", nginx.upstream_lines().unwrap().len());
        let mut client = Client::connect(nginx.address()).unwrap();
        // What the client gets differs; the line is the point.
        let _ = client.ask(&Request::get(&target).asking(behaviour));
        let found = wait_for("the line", PATIENCE, || {
            Ok(nginx
                .upstream_lines()?
                .into_iter()
                .find(|line| line.contains(&target)))
        });
        let found = found.unwrap();
        assert!(found.contains(line), "{behaviour}: {found}");
    }
    let response = Client::connect(nginx.address())
        .unwrap()
        .ask(&Request::get("/refused/"));
    assert_eq!(response.unwrap().status, 502);
    let lines = nginx.upstream_lines().unwrap();
    assert!(
        lines.last().unwrap().contains("connect() failed (111"),
        "{lines:?}"
    );
    let settled = |records: &[lab::backend::Connection]| records.iter().all(|one| !one.is_open());
    let records = backend.wait_until("the ends", PATIENCE, settled).unwrap();
    assert_eq!(truth::recorded(&records).len(), lines.len() - 1);
}

#[test]
fn a_client_that_leaves_is_told_at_the_level_of_information() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("slow", backend.address());
    let configuration = Configuration {
        log_level: Some("info"),
        ..Configuration::new(vec![upstream])
    };
    let nginx = Nginx::start(&configuration).unwrap();
    let mut client = Client::connect(nginx.address()).unwrap();
    let slow = Behaviour::ANSWER.after(Duration::from_secs(60));
    client.send(&Request::get("/slow/").asking(slow)).unwrap();
    backend
        .wait_until("the request", PATIENCE, |records| {
            records.iter().any(|record| !record.requests.is_empty())
        })
        .unwrap();
    client.abort(Means::Fin).unwrap();
    wait_for("the line", PATIENCE, || {
        let lines = nginx.upstream_lines()?;
        Ok(lines
            .iter()
            .any(|line| line.contains("client prematurely closed"))
            .then_some(()))
    })
    .unwrap();
}

#[test]
fn a_reload_replaces_the_workers_and_the_end_leaves_no_process() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("good", backend.address()).keepalive(4);
    let nginx = Nginx::start(&Configuration::new(vec![upstream])).unwrap();
    let old = nginx.reload().unwrap();
    wait_for("the old workers to end", PATIENCE, || {
        Ok(old
            .iter()
            .all(|&pid| !processes::is_alive(pid))
            .then_some(()))
    })
    .unwrap();
    let requests = vec![Request::get("/good/"); 20];
    let outcomes = load::run(nginx.address(), &requests, 4, true);
    assert!(outcomes.iter().all(load::Outcome::served));
    let mut all = nginx.workers().unwrap();
    all.push(nginx.master_pid());
    // Even with stopped workers.
    let stopped = nginx.stop_workers().unwrap();
    std::mem::forget(stopped);
    drop(nginx);
    assert!(all.iter().all(|&pid| !processes::is_alive(pid)));
}

#[test]
fn every_tenth_of_a_thousand_requests_fails_once_on_a_connection_of_its_own() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address()).keepalive(16);
    let nginx = Nginx::start(&Configuration::new(vec![upstream])).unwrap();
    let outcomes = connections::a_thousand_requests(nginx.address());
    assert_eq!(outcomes.len(), 1000);
    let lines = nginx.upstream_lines().unwrap();
    let failed = connections::failed(&backend);
    assert_eq!((lines.len(), failed.len()), (100, 100));
    let reused = failed
        .values()
        .filter(|record| record.requests.len() > 1)
        .count();
    assert!(
        reused > 50,
        "only {reused} failures on a connection that had served before"
    );
    for target in failed.keys() {
        let request = format!("\"GET {target} HTTP/1.1\"");
        assert_eq!(
            lines.iter().filter(|line| line.contains(&request)).count(),
            1,
            "{target}"
        );
    }
}

#[test]
fn a_namespace_is_reached_filters_and_leaves_nothing() {
    let _alone = alone();
    let ours = format!("lab{}-", std::process::id());
    let interfaces = || {
        let all = fs::read_dir("/sys/class/net").unwrap();
        all.filter_map(|one| one.unwrap().file_name().into_string().ok())
            .filter(|name| name.starts_with(&ours))
            .count()
    };
    let namespace = Arc::new(Namespace::create().unwrap());
    let other = Namespace::create().unwrap();
    assert_eq!(interfaces(), 2);
    for address in [namespace.ipv4(), namespace.ipv6()] {
        let backend = namespace.backend(address, Habits::default()).unwrap();
        assert!(other.enter(|| Client::connect(backend.address())).is_err());
        let mut client = Client::connect(backend.address()).unwrap();
        assert_eq!(client.ask(&Request::get("/x")).unwrap().status, 200);
        let port = backend.address().port();
        let table = format!(
            "table inet refuse_{port} {{
                chain arriving {{
                    type filter hook input priority filter
                    tcp dport {port} reject with tcp reset
                }}
            }}"
        );
        namespace.filter(&table).unwrap();
        assert!(client.ask(&Request::get("/x")).is_err());
        assert!(Client::connect(backend.address()).is_err());
    }
    let panicked = thread::spawn(move || {
        let _inside = other.enter(|| -> anyhow::Result<()> { panic!("on purpose") });
    });
    assert!(panicked.join().is_err());
    assert_eq!(interfaces(), 1);
    drop(namespace);
    assert_eq!(interfaces(), 0);
}
