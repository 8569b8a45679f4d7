//! Connections that were open before the capture began, and answers that nginx is late
//! to read: what is known of their past, held against the backend's own record.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use lab::backend::{Backend, Connection, Habits, IPV4, IPV6, Idle, Why};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, between, now_ns, sleep_until};
use lab::idle::{Asked, Silence};
use lab::load::{Client, Method, Request};
use lab::nginx::{Configuration, Nginx, Upstream};
use lab::stale::{Race, pooled_by};
use lab::tls_backend::{Identity, Tls, Version};

use crate::bench::{Bench, alone, records};

/// What the kernel's ticks may add to an idle age, or take from it.
const TICK_MS: f64 = 10.0;

const SERVED_BEFORE: usize = 2;

/// So many idle connections in the pools, each of which has served [`SERVED_BEFORE`]
/// requests; the clients that asked for them.
#[track_caller]
fn pooled(nginx: &Nginx, backend: &Backend, requests: usize) -> Vec<Client> {
    let plan = Race {
        location: "/app/".to_owned(),
        requests,
        method: Method::Get,
        served_before: SERVED_BEFORE,
    };
    let clients = pooled_by(nginx, &plan).unwrap();
    backend
        .wait_until("the answers", PATIENCE, |records| {
            records.len() == requests
                && records
                    .iter()
                    .all(|record| record.answered() == SERVED_BEFORE)
        })
        .unwrap();
    clients
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[track_caller]
fn nginx_before(backend: &Backend) -> Nginx {
    let upstream = Upstream::new("app", backend.address())
        .keepalive(64)
        .with("proxy_next_upstream off;");
    Nginx::start(&Configuration::new(vec![upstream])).unwrap()
}

#[track_caller]
fn fail_on_idle_connections(address: SocketAddr, connections: usize) {
    let backend = Backend::start(address, Habits::default()).unwrap();
    let nginx = nginx_before(&backend);
    let asked_ns = now_ns();
    let mut clients = pooled(&nginx, &backend, connections);
    // The last answer before, of all of them.
    let mut notes = vec![Asked {
        target: format!("/app/before-{}", SERVED_BEFORE - 1),
        asked_ns,
        told_ns: Some(now_ns()),
    }];
    sleep_until(Instant::now() + Duration::from_millis(300));
    let mut bench = Bench::before(nginx, &[]);
    let refusal = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    for (index, client) in clients.iter_mut().enumerate() {
        let target = format!("/app/refused-{index}");
        let asked_ns = now_ns();
        let request = Request::get(&target).asking(refusal);
        assert_eq!(client.ask(&request).unwrap().status, 502);
        let told_ns = Some(now_ns());
        notes.push(Asked {
            target,
            asked_ns,
            told_ns,
        });
    }
    let report = bench.report();
    let closed = backend.connections();
    assert_eq!(closed.len(), connections, "nginx opened no new connection");
    assert_eq!(report.incidents.len(), connections);
    let mut seen = BTreeSet::new();
    for incident in &report.incidents {
        assert_eq!(incident.matched, "exact", "{incident:?}");
        assert_eq!(incident.cause, "closed-without-answer", "{incident:?}");
        let connection = incident.connection.as_ref().unwrap();
        assert!(connection.first_seen_mid_life, "{incident:?}");
        assert_eq!(connection.reused, Some(true), "{incident:?}");
        assert_eq!(connection.requests, None, "{incident:?}");
        assert_eq!(connection.requests_at_least, Some(2), "{incident:?}");
        let target = incident.target().unwrap();
        let record = closed
            .iter()
            .find(|record| record.requests.last().unwrap().target == target)
            .unwrap();
        assert_eq!(
            (connection.local, connection.remote),
            (record.remote, record.local)
        );
        let silence = Silence::before_last_request(record, &notes);
        assert_eq!(silence.problem(connection), None, "{incident:?}");
        assert!(connection.idle_ms.is_some(), "{incident:?}");
        assert!(
            seen.insert(connection.local),
            "two lines share a connection"
        );
    }
    only_upstream_connections(&bench, &backend);
}

/// The clients' connections are none of nginx's upstreams', though nginx holds them too.
#[track_caller]
fn only_upstream_connections(bench: &Bench, backend: &Backend) {
    for record in records(&bench.trace(), "connection") {
        let remote: SocketAddr = record["remote"].as_str().unwrap().parse().unwrap();
        assert_eq!(remote, backend.address(), "{record}");
    }
}

#[test]
fn fifty_connections_idle_when_the_capture_began_have_their_ages_when_they_fail() {
    let _alone = alone();
    fail_on_idle_connections(IPV4, 50);
}

#[test]
fn connections_of_ipv6_that_were_idle_when_the_capture_began_have_their_ages_too() {
    let _alone = alone();
    fail_on_idle_connections(IPV6, 5);
}

/// The silences after which the backend closed idle connections, least and most.
fn true_timeouts(backend: &Backend) -> (f64, f64) {
    let closes: Vec<_> = backend
        .connections()
        .iter()
        .filter(|record| record.closed_because(Why::Idle))
        .map(|record| {
            let answer = record.requests.last().unwrap().answer.unwrap();
            let closed_ns = record.end.unwrap().at_ns;
            milliseconds(between(answer.began_ns, closed_ns))
        })
        .collect();
    let least = closes.iter().copied().fold(f64::INFINITY, f64::min);
    let most = closes.iter().copied().fold(0.0, f64::max);
    (least, most)
}

#[test]
fn the_idle_timeout_is_inferred_from_connections_that_were_open_before_the_capture() {
    let _alone = alone();
    let idle = Some(Idle {
        after: Duration::from_secs(1),
        means: Means::Fin,
    });
    let habits = Habits {
        idle,
        ..Habits::default()
    };
    let backend = Backend::start(IPV4, habits).unwrap();
    let nginx = nginx_before(&backend);
    // The connections outlive the start of the capture however long that takes.
    let hold = backend.hold_closes();
    let clients = pooled(&nginx, &backend, 6);
    let mut bench = Bench::before(nginx, &[]);
    drop(hold);
    backend
        .wait_until("the closes", PATIENCE, |records| {
            records.iter().all(|record| !record.is_open())
        })
        .unwrap();
    bench.wait_until_closed(backend.address());
    drop(clients);
    let report = bench.report();
    let (least, most) = true_timeouts(&backend);
    let inferred = report.upstream(backend.address()).unwrap();
    let inferred = inferred.idle_timeout.expect("six closes agree");
    assert!(
        (least - TICK_MS..=most * 1.02 + TICK_MS).contains(&inferred.ms),
        "{inferred:?}, in truth {least} to {most}"
    );
}

/// Answers the first request of its only connection and leaves the second waiting, until
/// it is told to close; then says what nginx's end was.
fn leaving_one_waiting(
    listener: &TcpListener,
    waiting: &Sender<()>,
    close: &Receiver<()>,
) -> SocketAddr {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (mut stream, nginx_end) = listener.accept().unwrap();
    let read_request = |stream: &mut TcpStream| {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            read.push(byte[0]);
        }
    };
    read_request(&mut stream);
    stream.write_all(ANSWER).unwrap();
    read_request(&mut stream);
    waiting.send(()).unwrap();
    close.recv().unwrap();
    nginx_end
}

#[test]
fn a_request_in_flight_when_the_capture_began_has_its_connection_and_no_count() {
    let _alone = alone();
    let listener = TcpListener::bind(IPV4).unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = Upstream::new("app", address)
        .keepalive(4)
        .with("proxy_next_upstream off;");
    let nginx = Nginx::start(&Configuration::new(vec![upstream])).unwrap();
    let mut client = Client::connect(nginx.address()).unwrap();
    let ((waits, waiting), (close, closing)) = (channel(), channel());
    let backend = thread::spawn(move || leaving_one_waiting(&listener, &waits, &closing));
    let request = Request::get("/app/answered");
    assert_eq!(client.ask(&request).unwrap().status, 200);
    client.send(&Request::get("/app/waiting")).unwrap();
    waiting.recv_timeout(PATIENCE).unwrap();
    let mut bench = Bench::before(nginx, &[]);
    close.send(()).unwrap();
    let nginx_end = backend.join().unwrap();
    assert_eq!(client.receive().unwrap().status, 502);
    let report = bench.report();
    assert_eq!(report.incidents.len(), 1);
    let incident = &report.incidents[0];
    let connection = incident.connection.as_ref().unwrap();
    assert_eq!(incident.matched, "exact", "{incident:?}");
    assert_eq!(connection.local, nginx_end);
    assert!(connection.first_seen_mid_life);
    assert_eq!((connection.requests, connection.reused), (None, Some(true)));
    assert_eq!(connection.idle_ms, None, "{incident:?}");
    let told = incident.evidence.join("\n");
    assert!(told.contains("began before the capture"), "{told}");
    // The other end had been open as long.
    assert!(told.contains("which held the other end"), "{told}");
}

/// These clients ask one request after the other, each below its location, until they are
/// told to stop.
fn in_full_use<T>(
    clients: impl IntoIterator<Item = (Client, &'static str)>,
    meanwhile: impl FnOnce() -> T,
) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for (mut client, location) in clients {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let response = client.ask(&Request::get(location)).unwrap();
                    assert_eq!(response.status, 200);
                }
            });
        }
        let given = meanwhile();
        stop.store(true, Ordering::Relaxed);
        given
    })
}

/// Connections that are there before the capture begins and for as long as it lasts.
const LASTING: usize = 16;

/// Whatever nginx does with a connection in the moment in which it is taken over: what
/// came before stands for one exchange, or for two if the second was under way, and what
/// comes after is counted once.
#[test]
fn connections_in_full_use_when_the_capture_begins_lose_no_request_and_count_none_twice() {
    let _alone = alone();
    // Neither end closes what serves `/app/`: from the moment in which a capture sees new
    // connections to the one in which it takes over the old ones, a busy machine serves
    // more than the thousand requests that nginx allows each by default.
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let lasting = Upstream::new("app", backend.address())
        .keepalive(64)
        .keepalive_requests(u32::MAX / 2);
    let closing = Upstream::new("closing", backend.address()).keepalive(64);
    let nginx = Nginx::start(&Configuration::new(vec![lasting, closing])).unwrap();
    let requests = |records: &[Connection]| -> usize {
        records.iter().map(|record| record.requests.len()).sum()
    };
    let clients = pooled(&nginx, &backend, LASTING);
    let ends = backend.connections().into_iter();
    let mut open: BTreeSet<_> = ends.map(|record| record.remote.to_string()).collect();
    let clients = clients.into_iter().map(|client| (client, "/app/x"));
    let others: Vec<_> = (0..4)
        .map(|_| (Client::connect(nginx.address()).unwrap(), "/closing/x"))
        .collect();
    let mut bench = in_full_use(clients.chain(others), || {
        let bench = Bench::before(nginx, &[]);
        let before = requests(&backend.connections());
        backend
            .wait_until("more requests", PATIENCE, |records| {
                requests(records) >= before + 200
            })
            .unwrap();
        bench
    });
    let address = backend.address();
    let truth = backend.stop();
    bench.wait_until_closed(address);
    let lost = bench.report().capture.lost;
    for record in records(&bench.trace(), "connection") {
        let number = |name: &str| record[name].as_u64().unwrap_or(0);
        let local = record["local"].as_str().unwrap();
        // Ports may be used again: the last with this one is the one that was open.
        let truth = truth
            .iter()
            .rev()
            .find(|truth| truth.remote.to_string() == local)
            .unwrap();
        let opened_ns = number("opened_ns");
        let after = truth
            .requests
            .iter()
            .filter(|request| request.arrived_ns > opened_ns)
            .count() as u64;
        let counted = number("exchanges");
        if record["first_seen_mid_life"] == true {
            open.remove(local);
            // A request that the worker was just sending arrives later and was before.
            let before = counted.checked_sub(after);
            assert!(
                matches!(before, Some(1 | 2)),
                "{before:?}: {record:#}\nlost: {lost:?}"
            );
        } else {
            let served = truth.requests.len() as u64;
            assert_eq!(counted, served, "{record:#}\nlost: {lost:?}");
        }
        // nginx itself closes one that has had a thousand requests.
        if record["fin_received_ns"].is_u64() {
            assert_eq!(number("exchanges_at_end"), counted, "{record:#}");
            assert_eq!(record["awaiting_at_end"], false, "{record:#}");
        }
    }
    assert!(
        open.is_empty(),
        "open when the capture began and not taken over: {open:?}; lost: {lost:?}"
    );
}

/// nginx's close_notify on an idle connection is no request, though its handshake was not
/// seen.
#[test]
fn over_tls_neither_count_nor_reuse_are_claimed_and_a_farewell_is_no_request() {
    let _alone = alone();
    for version in Version::ALL {
        let identity = Identity::self_signed("lab.test").unwrap();
        let tls = Tls::new(&identity, &[version]).unwrap();
        let habits = Habits {
            idle: Some(Idle {
                after: IDLE,
                means: Means::Fin,
            }),
            ..Habits::default()
        };
        let backend = Backend::start_tls(IPV4, habits, tls).unwrap();
        let upstream = Upstream::new("app", backend.address())
            .keepalive(8)
            .with(&format!("proxy_ssl_protocols {};", version.name()))
            .with("proxy_next_upstream off;")
            .over_tls();
        let nginx = Nginx::start(&Configuration::new(vec![upstream])).unwrap();
        let hold = backend.hold_closes();
        let mut clients = pooled(&nginx, &backend, 4);
        let mut bench = Bench::before(nginx, &[]);
        let refusal = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
        let request = Request::get("/app/refused").asking(refusal);
        assert_eq!(clients[0].ask(&request).unwrap().status, 502);
        drop(hold);
        backend
            .wait_until("the closes", PATIENCE, |records| {
                records.iter().all(|record| !record.is_open())
            })
            .unwrap();
        bench.wait_until_closed(backend.address());
        let report = bench.report();
        assert_eq!(report.incidents.len(), 1, "{version:?}");
        let incident = &report.incidents[0];
        let connection = incident.connection.as_ref().unwrap();
        assert!(connection.first_seen_mid_life, "{incident:?}");
        assert_eq!(connection.requests, None, "{incident:?}");
        assert_eq!(connection.requests_at_least, None, "{incident:?}");
        let told = incident.evidence.join("\n");
        assert!(!told.contains("first request"), "{told}");
        let seen = records(&bench.trace(), "connection");
        assert_eq!(seen.len(), 4, "{version:?}: {seen:#?}");
        for record in seen {
            let refused = record["local"] == connection.local.to_string();
            let exchanges = if refused { 2 } else { 1 };
            assert_eq!(record["exchanges"], exchanges, "{version:?}: {record:#}");
            assert_eq!(record["first_seen_mid_life"], true);
        }
    }
}

const IDLE: Duration = Duration::from_millis(1000);
const LATE: Duration = Duration::from_millis(200);

#[test]
fn the_idle_timeout_is_right_though_nginx_reads_the_answers_late() {
    let _alone = alone();
    let idle = Some(Idle {
        after: IDLE,
        means: Means::Fin,
    });
    let habits = Habits {
        idle,
        ..Habits::default()
    };
    let backend = Backend::start(IPV4, habits).unwrap();
    let mut bench = Bench::before(nginx_before(&backend), &[]);
    // On a busy machine the workers may continue after the backend's close: that is
    // another failure, and no sample of this one.
    let in_time = (0..10).any(|attempt| late_answers(&bench, &backend, attempt));
    assert!(in_time, "the machine is too busy");
    let report = bench.report();
    let (least, most) = true_timeouts(&backend);
    let inferred = report.upstream(backend.address()).unwrap();
    let inferred = inferred.idle_timeout.expect("four closes agree");
    assert!(
        (least - TICK_MS..=most * 1.02 + TICK_MS).contains(&inferred.ms),
        "{inferred:?}, in truth {least} to {most}"
    );
    let late = records(&bench.trace(), "connection")
        .iter()
        .filter(|record| !record["last_arrival_ns"].is_null())
        .count();
    assert!(late >= 4, "{late} answers were read late");
}

/// Four answers that come while the workers are stopped; then idle closes. Were they
/// after nginx had read the answers?
#[track_caller]
fn late_answers(bench: &Bench, backend: &Backend, attempt: usize) -> bool {
    let earlier = backend.connections().len();
    let mut clients: Vec<_> = (0..4)
        .map(|_| Client::connect(bench.nginx.address()).unwrap())
        .collect();
    let together = Behaviour::of(Kind::AnswerTogether { requests: 1000 });
    for client in &mut clients {
        let request = Request::get(format!("/app/late-{attempt}")).asking(together);
        client.send(&request).unwrap();
    }
    backend
        .wait_until("the requests", PATIENCE, |records| {
            records.len() == earlier + 4
                && records[earlier..]
                    .iter()
                    .all(|record| record.requests.len() == 1)
        })
        .unwrap();
    let stopped = bench.nginx.stop_workers().unwrap();
    backend.answer_waiting(4).unwrap();
    backend
        .wait_until("the answers", PATIENCE, |records| {
            records[earlier..]
                .iter()
                .all(|record| record.answered() == 1)
        })
        .unwrap();
    sleep_until(Instant::now() + LATE);
    drop(stopped);
    for client in &mut clients {
        assert_eq!(client.receive().unwrap().status, 200);
    }
    let read_ns = now_ns();
    let closed = backend
        .wait_until("the closes", PATIENCE + IDLE, |records| {
            records.iter().all(|record| !record.is_open())
        })
        .unwrap();
    bench.wait_until_closed(backend.address());
    closed[earlier..]
        .iter()
        .all(|record| record.end.unwrap().at_ns > read_ns)
}
