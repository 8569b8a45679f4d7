//! Connections that were open, and silent, before either host was captured.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use lab::backend::{Connection, Habits};
use lab::behaviour::{Behaviour, Kind};
use lab::clock::{PATIENCE, now_ns, wait_for};
use lab::load::{Client, Method, Request};
use lab::netns::Namespace;
use lab::nginx::{Configuration, Nginx, Upstream};
use lab::process_backend::{ProcessBackend, Spec, program};
use lab::stale::{Race, pooled_by};
use lab::tool::Capture;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{elsewhere, has_the_offset, report};
use crate::bench::{Bench, alone, records};

const CONNECTIONS: usize = 50;
const SERVED_BEFORE: usize = 2;
/// The kernel's clock for bytes may be off by one of its ticks.
const TICK_NS: u64 = 10_000_000;

/// What both traces tell of connections that were open before.
struct Seen {
    together: Value,
    accepted: Vec<Value>,
    /// What the backend wrote down itself.
    truth: Vec<(u32, Connection)>,
    pid: u32,
}

/// A backend in another network namespace.
#[track_caller]
fn backend_in(namespace: &Namespace) -> ProcessBackend {
    let spec = Spec {
        address: namespace.ipv4(),
        habits: Habits::default(),
        graceful: false,
    };
    let program = program().unwrap();
    namespace
        .enter(|| ProcessBackend::start(&program, spec))
        .unwrap()
}

/// An nginx with so many kept-alive connections to it.
#[track_caller]
fn pooled(backend: &ProcessBackend, connections: usize) -> (Nginx, Vec<Client>) {
    let upstream = Upstream::new("app", backend.address())
        .keepalive(64)
        .with("proxy_next_upstream off;");
    let nginx = Nginx::start(&Configuration::new(vec![upstream])).unwrap();
    let plan = Race {
        location: "/app/".to_owned(),
        requests: connections,
        method: Method::Get,
        served_before: SERVED_BEFORE,
    };
    let clients = pooled_by(&nginx, &plan).unwrap();
    (nginx, clients)
}

/// So many kept-alive connections, both captures, and then what makes them fail.
#[track_caller]
fn open_before_both(fail: impl FnOnce(&mut ProcessBackend, &mut [Client])) -> Seen {
    let namespace = Namespace::create().unwrap();
    let mut backend = backend_in(&namespace);
    let (nginx, mut clients) = pooled(&backend, CONNECTIONS);
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("backend.trace");
    let capture = Capture::of_backend(backend.address().port(), &there).unwrap();
    let mut bench = Bench::before(nginx, &["--no-local-backends"]);
    fail(&mut backend, &mut clients);
    bench.wait_until_closed(backend.address());
    capture.finish().unwrap().succeeded().unwrap();
    let alone = bench.report();
    assert_eq!(alone.incidents.len(), CONNECTIONS);
    for kind in ["peer_close", "backend_exit", "backend_process"] {
        assert!(records(&bench.trace(), kind).is_empty(), "{kind}");
    }
    Seen {
        together: report(&[&bench.trace(), &elsewhere(&there)]),
        accepted: records(&there, "accepted"),
        truth: backend.connections().unwrap(),
        pid: backend.pid(),
    }
}

impl Seen {
    /// Each connection of the backend's own record has one of the capture's, and each
    /// incident is one of them: this process ended it, and this is said of it.
    #[track_caller]
    fn is_joined(&self, cause: &str, says: &str) {
        assert_eq!(self.truth.len(), CONNECTIONS);
        assert_eq!(self.accepted.len(), CONNECTIONS);
        for accepted in &self.accepted {
            assert_eq!(accepted["first_seen_mid_life"], true, "{accepted:#}");
            assert!(accepted["established_ns"].is_null(), "{accepted:#}");
            assert_eq!(accepted["pid"], self.pid, "{accepted:#}");
            assert_eq!(accepted["accepted"], true, "{accepted:#}");
        }
        let joined = &self.together["joined"][0];
        assert_eq!(joined["connections"], CONNECTIONS, "{joined:#}");
        assert_eq!(joined["ambiguous"], 0, "{joined:#}");
        has_the_offset(joined);
        let incidents = self.together["incidents"].as_array().unwrap();
        assert_eq!(incidents.len(), CONNECTIONS);
        let process = format!("process {} (whoclosed-backe", self.pid);
        for incident in incidents {
            assert_eq!(incident["cause"], cause, "{incident:#}");
            assert_eq!(incident["connection"]["first_seen_mid_life"], true);
            let evidence = incident["evidence"].to_string();
            for part in [process.as_str(), "on app-1", says] {
                assert!(evidence.contains(part), "{part}: {incident:#}");
            }
            let local = &incident["connection"]["local"];
            let target = incident["line"]["request"].as_str().unwrap();
            let truth = self
                .truth
                .iter()
                .find(|(_, record)| json!(record.remote.to_string()) == *local)
                .unwrap();
            let last = truth.1.requests.last().unwrap();
            assert!(target.contains(&last.target), "{incident:#}");
        }
    }
}

#[test]
fn fifty_connections_open_before_both_captures_are_joined_when_the_backend_is_killed() {
    let _alone = alone();
    let seen = open_before_both(|backend, clients| {
        let never = Behaviour::ANSWER.after(Duration::from_secs(600));
        for (index, client) in clients.iter_mut().enumerate() {
            let request = Request::get(format!("/app/waiting-{index}-")).asking(never);
            client.send(&request).unwrap();
        }
        wait_for("the requests", PATIENCE, || {
            let arrived = backend.connections()?;
            let all = arrived
                .iter()
                .all(|(_, record)| record.requests.len() == SERVED_BEFORE + 1);
            Ok(all.then_some(()))
        })
        .unwrap();
        backend.signal(Signal::KILL).unwrap();
        backend.wait(PATIENCE).unwrap();
        for client in clients {
            assert_eq!(client.receive().unwrap().status, 502);
        }
    });
    seen.is_joined("backend-killed", "SIGKILL (9)");
    for accepted in &seen.accepted {
        assert_eq!(accepted["exit"], json!({"signal": 9}), "{accepted:#}");
    }
}

#[test]
fn fifty_connections_open_before_both_captures_are_joined_when_bodies_are_left_unread() {
    let _alone = alone();
    const BODY: usize = 3000;
    let seen = open_before_both(|_, clients| {
        let refuse = Behaviour::of(Kind::RefuseBody);
        for (index, client) in clients.iter_mut().enumerate() {
            let request = Request::post(format!("/app/refused-{index}-"), BODY).asking(refuse);
            assert_eq!(client.ask(&request).unwrap().status, 502);
        }
    });
    let unread = seen
        .accepted
        .iter()
        .map(|accepted| accepted["unread_bytes"].as_u64().unwrap());
    assert!(
        unread
            .clone()
            .all(|bytes| bytes > 0 && bytes <= BODY as u64),
        "{:?}",
        Vec::from_iter(unread)
    );
    seen.is_joined("closed-without-answer", "bytes of nginx's unread");
}

/// Nothing happens to them in either capture: all that is known is what the kernel kept.
#[test]
fn connections_that_stay_silent_are_taken_over_and_joined() {
    let _alone = alone();
    let namespace = Namespace::create().unwrap();
    let backend = backend_in(&namespace);
    let (nginx, clients) = pooled(&backend, 5);
    // A connection that this host opened, from the same port at another address.
    let port = backend.address().port();
    let elsewhere_listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let opened = from_port(port, elsewhere_listening.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("backend.trace");
    let capture = Capture::of_backend(port, &there).unwrap();
    let mut bench = Bench::before(nginx, &["--no-local-backends"]);
    let before = now_ns();
    capture.finish().unwrap().succeeded().unwrap();
    bench.report();
    drop((clients, opened));
    let truth = backend.connections().unwrap();
    let accepted = records(&there, "accepted");
    assert_eq!(accepted.len(), 5, "{accepted:#?}");
    for (pid, record) in &truth {
        assert_eq!(*pid, backend.pid());
        let found = accepted
            .iter()
            .find(|accepted| accepted["remote"] == json!(record.remote.to_string()))
            .unwrap();
        assert_eq!(found["end"], "open", "{found:#}");
        assert_eq!(found["first_seen_mid_life"], true, "{found:#}");
        assert!(found["established_ns"].is_null(), "{found:#}");
        // The last request came before its answer was written, within a tick.
        let answer = record.requests.last().unwrap().answer.unwrap();
        for (field, earliest) in [
            ("last_received_ns", 0),
            ("last_sent_ns", answer.began_ns - TICK_NS),
        ] {
            let ns = found[field].as_u64().unwrap();
            assert!((earliest..before + TICK_NS).contains(&ns), "{found:#}");
        }
        let received_ns = found["last_received_ns"].as_u64().unwrap();
        assert!(received_ns <= answer.began_ns + TICK_NS, "{found:#}");
    }
    let together = report(&[&bench.trace(), &elsewhere(&there)]);
    let joined = &together["joined"][0];
    assert_eq!(joined["connections"], 5, "{together:#}");
    has_the_offset(joined);
}

/// Connects from this port.
#[track_caller]
fn from_port(port: u16, to: SocketAddr) -> TcpStream {
    let from = SocketAddr::from(([127, 0, 0, 1], port));
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    rustix::net::bind(&socket, &from).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    TcpStream::from(socket)
}
