//! Backends that are processes of this host: the trace tells which process ended its
//! side of a connection, how, what it left unread, and how the process itself ended.

mod named;
pub(crate) mod victim;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use lab::backend::{Backend, Habits, IPV4};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, wait_for};
use lab::load::{Client, Request};
use lab::memory_cgroup::MemoryCgroup;
use lab::netns::Namespace;
use lab::nginx::{Configuration, Upstream};
use lab::process_backend::{ProcessBackend, Spec};
use lab::{processes, tool};
use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use serde_json::{Value, json};

use self::victim::{Scene, one_request};
use crate::bench::{Bench, alone, records};

#[test]
fn a_killed_backends_side_tells_its_process_and_signal() {
    let _alone = alone();
    let scene = Scene {
        signal: Some(Signal::KILL),
        ends: true,
        ..Scene::default()
    };
    let seen = scene.one_request("wait");
    seen.is_its_own(json!({"signal": 9}));
    // Its end is told with the connection's already.
    assert!(seen.exits.is_empty(), "{:#?}", seen.exits);
}

#[test]
fn a_backend_that_aborts_tells_its_signal() {
    let _alone = alone();
    one_request("abort").is_its_own(json!({"signal": 6}));
}

#[test]
fn a_thread_that_aborts_ends_the_connections_of_all() {
    let _alone = alone();
    one_request("thread-aborts").is_its_own(json!({"signal": 6}));
}

#[test]
fn a_backend_that_exits_tells_its_status() {
    let _alone = alone();
    one_request("exit").is_its_own(json!({"code": 3}));
}

#[test]
fn a_backend_without_memory_left_tells_that() {
    let _alone = alone();
    let cgroup = MemoryCgroup::create(48 << 20).unwrap();
    let scene = Scene {
        cgroup: Some(&cgroup),
        ends: true,
        ..Scene::default()
    };
    let seen = scene.one_request("out-of-memory");
    seen.is_its_own(json!("out_of_memory"));
}

#[test]
fn a_backend_that_closes_by_a_call_tells_what_it_left_unread() {
    let _alone = alone();
    let seen = one_request("unread");
    seen.is_its_own(Value::Null);
    assert_eq!(seen.peer["unread_bytes"], 1024);
    let connection = &seen.connection;
    assert!(connection["rst_received_ns"].is_u64(), "{connection}");
}

#[test]
fn a_reset_by_a_call_is_the_processs_own() {
    let _alone = alone();
    let seen = one_request("reset");
    seen.is_its_own(Value::Null);
    assert_eq!(seen.peer["unread_bytes"], 0);
    assert!(seen.connection["fin_received_ns"].is_null());
    assert!(seen.connection["rst_received_ns"].is_u64());
}

#[test]
fn a_process_that_closes_by_a_call_and_exits_is_told_to_have_exited_once() {
    let _alone = alone();
    let scene = Scene {
        ends: true,
        ..Scene::default()
    };
    let seen = scene.one_request("close-then-exit");
    seen.is_its_own(Value::Null);
    let [exit] = seen.exits.as_slice() else {
        panic!("{:#?}", seen.exits);
    };
    for same in ["pid", "parent_pid", "comm"] {
        assert_eq!(exit[same], seen.peer[same]);
    }
    assert_eq!(exit["exit"], json!({"code": 5}));
    assert!(exit["ns"].as_u64() > seen.peer["ns"].as_u64());
}

#[test]
fn what_a_starting_child_closes_last_is_its_parents_close() {
    let _alone = alone();
    let seen = one_request("close-beside-a-start");
    seen.is_its_own(Value::Null);
    // Nor is the child's end that of a backend.
    assert!(seen.exits.is_empty(), "{:#?}", seen.exits);
}

#[test]
fn what_a_starting_child_closes_by_itself_is_not_put_down_to_its_programs_end() {
    let _alone = alone();
    let seen = one_request("close-in-a-start");
    assert_eq!(seen.peer["parent_pid"], seen.pid);
    assert_eq!(seen.peer["exit"], Value::Null);
    // The child's program did end, and soon.
    let [exit] = seen.exits.as_slice() else {
        panic!("{:#?}", seen.exits);
    };
    assert_eq!(
        (&exit["pid"], &exit["comm"]),
        (&seen.peer["pid"], &json!("true"))
    );
    let incident = &seen.incident;
    assert_eq!(incident.cause, "closed-without-answer", "{incident:#?}");
    assert_ne!(incident.confidence, "certain", "{incident:#?}");
    let said = incident.evidence.join(". ");
    assert!(!said.contains("exited"), "{said}");
}

#[test]
fn the_last_process_that_holds_a_connection_is_the_one_that_ends_it() {
    let _alone = alone();
    let seen = one_request("inherit");
    assert_eq!(
        json!(seen.peer["pid"]),
        json!(seen.said.parse::<u32>().unwrap())
    );
    assert_eq!(seen.peer["parent_pid"], seen.pid);
    assert_eq!(seen.peer["exit"], json!({"code": 4}));
}

#[test]
fn a_backend_is_found_over_ipv6_and_behind_a_listener_for_both_families() {
    let _alone = alone();
    for (listen, host) in [
        ("[::1]:0", "::1"),
        ("[::]:0", "127.0.0.1"),
        ("[::]:0", "::1"),
    ] {
        let scene = Scene {
            listen: Some(listen.parse().unwrap()),
            host: Some(host),
            ..Scene::default()
        };
        scene.one_request("exit").is_its_own(json!({"code": 3}));
    }
}

#[test]
fn a_backend_is_found_across_network_namespaces() {
    let _alone = alone();
    let namespace = Namespace::create().unwrap();
    for address in [namespace.ipv4(), namespace.ipv6()] {
        let scene = Scene {
            listen: Some(address),
            inside: Some(&namespace),
            ..Scene::default()
        };
        scene.one_request("exit").is_its_own(json!({"code": 3}));
    }
}

/// What the lab's remote backends rest on.
#[test]
fn nothing_is_seen_of_a_backend_behind_a_redirection() {
    let _alone = alone();
    let namespace = Arc::new(Namespace::create().unwrap());
    for address in [namespace.ipv4(), namespace.ipv6()] {
        let near = namespace.backend(address, Habits::default()).unwrap();
        let far = namespace.remote_backend(address, Habits::default());
        let far = far.unwrap();
        let upstream = |name, backend: &Backend| Upstream::new(name, backend.address());
        let configuration =
            Configuration::new(vec![upstream("near", &near), upstream("far", &far)]);
        let mut bench = Bench::start(&configuration, &[]);
        let mut client = Client::connect(bench.nginx.address()).unwrap();
        let close = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
        for target in ["/near/one", "/far/one"] {
            let response = client.ask(&Request::get(target).asking(close)).unwrap();
            assert_eq!(response.status, 502);
        }
        bench.wait_until_closed(near.address());
        bench.wait_until_closed(far.address());
        let report = bench.report();
        assert_eq!(report.incidents.len(), 2);
        let connections = records(&bench.trace(), "connection");
        let cookie = |backend: &Backend| {
            let remote = json!(backend.address().to_string());
            let mut found = connections
                .iter()
                .filter(|record| record["remote"] == remote);
            found.next().expect("no connection")["cookie"].clone()
        };
        let peers: Vec<_> = records(&bench.trace(), "peer_close")
            .iter()
            .map(|record| record["cookie"].clone())
            .collect();
        assert_eq!(peers, [cookie(&near)]);
        assert_ne!(cookie(&near), cookie(&far));
        // Its own records have the address that nginx knows.
        let end = &far.connections()[0];
        assert_eq!(end.local, far.address());
    }
}

/// How many connections of the calling thread's network namespace came about by cookie.
fn by_cookie() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names
        .split_whitespace()
        .position(|name| name == "SyncookiesRecv");
    let value = values.split_whitespace().nth(at.unwrap());
    value.unwrap().parse().unwrap()
}

#[test]
fn a_connection_that_came_about_by_a_syn_cookie_is_joined() {
    let _alone = alone();
    // The setting is that of a network namespace, and this is one of the thread's own.
    let thread = std::thread::spawn(|| {
        #[expect(
            deprecated,
            reason = "its fault is CLONE_FILES, which takes descriptors from their owners"
        )]
        rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
        let ip = processes::which("ip").unwrap();
        tool::finish(Command::new(ip).args(["link", "set", "lo", "up"]))
            .unwrap()
            .succeeded()
            .unwrap();
        // Every connection, not only those that find the queue full.
        fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").unwrap();
        let before = by_cookie();
        let seen = one_request("exit");
        assert!(by_cookie() > before);
        seen.is_its_own(json!({"code": 3}));
    });
    thread.join().unwrap();
}

#[test]
fn a_server_that_closes_its_connections_before_it_exits_is_told_to_have_exited() {
    let _alone = alone();
    let spec = Spec {
        address: IPV4,
        habits: Habits::default(),
        graceful: true,
    };
    let program = Path::new(env!("CARGO_BIN_EXE_whoclosed-backend"));
    let mut backend = ProcessBackend::start(program, spec).unwrap();
    let upstream = Upstream::new("app", backend.address()).keepalive(8);
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    assert_eq!(
        client.ask(&Request::get("/app/served")).unwrap().status,
        200
    );
    let stalled = "close after=600000".parse().unwrap();
    client
        .send(&Request::post("/app/cut", 16).asking(stalled))
        .unwrap();
    wait_for("the request", PATIENCE, || {
        let connections = backend.connections()?;
        let requests = connections.iter().flat_map(|(_, one)| &one.requests);
        Ok((requests.count() == 2).then_some(()))
    })
    .unwrap();
    backend.signal(Signal::TERM).unwrap();
    assert_eq!(client.receive().unwrap().status, 502);
    let death = backend.wait(PATIENCE).unwrap();
    assert_eq!(death.status.code(), Some(0));
    let report = bench.report();
    let trace = bench.trace();
    let peers = records(&trace, "peer_close");
    let [peer] = peers.as_slice() else {
        panic!("{peers:#?}");
    };
    assert_eq!(
        (&peer["pid"], &peer["exit"]),
        (&json!(death.pid), &Value::Null)
    );
    let exits = records(&trace, "backend_exit");
    let [exit] = exits.as_slice() else {
        panic!("{exits:#?}");
    };
    assert_eq!(exit["pid"], death.pid);
    assert_eq!(exit["parent_pid"], std::process::id());
    assert_eq!(exit["exit"], json!({"code": 0}));
    let exited_ns = exit["ns"].as_u64().unwrap();
    assert!(peer["ns"].as_u64().unwrap() < exited_ns);
    assert!(exited_ns < death.seen_ns);
    let incident = &report.incidents[0];
    assert_eq!(incident.cause, "backend-exited", "{incident:#?}");
    assert_eq!(incident.confidence, "likely");
}

#[test]
fn a_process_is_known_by_connections_that_nginx_ended_too() {
    let _alone = alone();
    let spec = Spec {
        address: IPV4,
        habits: Habits::default(),
        graceful: false,
    };
    let program = Path::new(env!("CARGO_BIN_EXE_whoclosed-backend"));
    let backend = ProcessBackend::start(program, spec).unwrap();
    let mut configuration = Configuration::new(Vec::new());
    configuration.http = format!(
        "upstream app {{ server {}; keepalive 8; keepalive_requests 1; }}\n",
        backend.address()
    );
    "location /app/ { proxy_pass http://app; proxy_set_header Connection \"\"; }\n"
        .clone_into(&mut configuration.more);
    let mut bench = Bench::start(&configuration, &[]);
    for number in 0..3 {
        let mut client = Client::connect(bench.nginx.address()).unwrap();
        let request = Request::get(format!("/app/{number}"));
        assert_eq!(client.ask(&request).unwrap().status, 200);
    }
    bench.wait_until_closed(backend.address());
    bench.report();
    let trace = bench.trace();
    assert!(records(&trace, "peer_close").is_empty());
    let processes = records(&trace, "backend_process");
    let last = processes.last().unwrap();
    assert_eq!(last["pid"], backend.pid());
    assert_eq!(last["connections"], 3);
    assert_eq!(last["port"], backend.address().port());
}
