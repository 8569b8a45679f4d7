//! Backends that are processes of this host: the trace tells which process ended its
//! side of a connection, how, and what it left unread.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;

use lab::backend::{Backend, Habits, IPV4, IPV6};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::PATIENCE;
use lab::load::{Client, Request};
use lab::netns::Namespace;
use lab::nginx::{Configuration, Upstream};
use lab::processes;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::bench::{Bench, alone};

/// A backend that takes one request and ends.
struct Victim {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Victim {
    #[track_caller]
    fn start(mode: &str, address: SocketAddr) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_victim"));
        let mut command = processes::bound_to_us(program);
        let command = command.arg(mode).arg(address.to_string());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// The next address that it prints.
    #[track_caller]
    fn address(&mut self) -> SocketAddr {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        processes::end(&mut self.child, Signal::KILL, PATIENCE);
    }
}

/// All records of a trace.
#[track_caller]
fn records(trace: &Path) -> Vec<Value> {
    let text = zstd::decode_all(File::open(trace).unwrap()).unwrap();
    let text = String::from_utf8(text).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// One request to a victim; the record of its side, its pid, and the record of nginx's
/// side.
#[track_caller]
fn one_request(mode: &str, signal: Option<Signal>) -> (Value, u32, Value) {
    let sides = one_request_to(Victim::start(mode, IPV4), signal);
    assert_eq!(sides.0["netns"], sides.2["netns"]);
    sides
}

#[track_caller]
fn one_request_to(mut victim: Victim, signal: Option<Signal>) -> (Value, u32, Value) {
    let backend = victim.address();
    let upstream = Upstream::new("app", backend);
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    client.send(&Request::post("/app/one", 1024)).unwrap();
    let nginx_side = victim.address();
    if let Some(signal) = signal {
        processes::signal(victim.child.id(), signal).unwrap();
    }
    assert_eq!(client.receive().unwrap().status, 502);
    bench.wait_until_closed(backend);
    bench.report();
    let records = records(&bench.trace());
    let place = |kind: &str, of: &dyn Fn(&Value) -> bool| {
        let mut found = records
            .iter()
            .enumerate()
            .filter(|(_, record)| record["kind"] == kind && of(record));
        let one = found.next();
        assert!(found.next().is_none(), "more than one {kind}");
        one.unwrap_or_else(|| panic!("no {kind} in {records:#?}"))
    };
    let (at, connection) = place("connection", &|record| {
        record["local"] == json!(nginx_side.to_string())
    });
    let (before, peer) = place("peer_close", &|_| true);
    assert!(before < at, "the backend's side ended first");
    assert_eq!(peer["cookie"], connection["cookie"]);
    assert_eq!(peer["accepted"], true);
    assert_eq!(peer["received_bytes"], connection["sent_bytes"]);
    assert_eq!(peer["comm"], "victim");
    assert_eq!(peer["parent_pid"], std::process::id());
    // It had the whole request, so nothing was on its way when nginx closed.
    if connection["rst_received_ns"].is_null() {
        assert_eq!(connection["unacked_at_close"], 0);
    }
    (peer.clone(), victim.child.id(), connection.clone())
}

#[test]
fn a_killed_backends_side_tells_its_process_and_signal() {
    let _alone = alone();
    let (peer, pid, _) = one_request("wait", Some(Signal::KILL));
    assert_eq!(peer["pid"], pid);
    assert_eq!(peer["exit"], json!({"signal": 9}));
}

#[test]
fn a_backend_that_aborts_tells_its_signal() {
    let _alone = alone();
    let (peer, pid, _) = one_request("abort", None);
    assert_eq!(peer["pid"], pid);
    assert_eq!(peer["exit"], json!({"signal": 6}));
}

#[test]
fn a_backend_that_exits_tells_its_status() {
    let _alone = alone();
    let (peer, pid, _) = one_request("exit", None);
    assert_eq!(peer["pid"], pid);
    assert_eq!(peer["exit"], json!({"code": 3}));
}

#[test]
fn a_backend_that_closes_by_a_call_tells_what_it_left_unread() {
    let _alone = alone();
    let (peer, pid, connection) = one_request("unread", None);
    assert_eq!(peer["pid"], pid);
    assert_eq!(peer["exit"], Value::Null);
    assert_eq!(peer["unread_bytes"], 1024);
    assert!(connection["rst_received_ns"].is_u64(), "{connection}");
}

#[test]
fn a_killed_backends_side_is_joined_over_ipv6() {
    let _alone = alone();
    let victim = Victim::start("wait", IPV6);
    let (peer, pid, connection) = one_request_to(victim, Some(Signal::KILL));
    assert_eq!(peer["pid"], pid);
    assert_eq!(peer["exit"], json!({"signal": 9}));
    assert_eq!(peer["netns"], connection["netns"]);
}

#[test]
fn a_killed_backends_side_is_joined_across_network_namespaces() {
    let _alone = alone();
    let namespace = Namespace::create().unwrap();
    for address in [namespace.ipv4(), namespace.ipv6()] {
        let victim = namespace.enter(|| Ok(Victim::start("wait", address)));
        let (peer, pid, connection) = one_request_to(victim.unwrap(), Some(Signal::KILL));
        assert_eq!(peer["pid"], pid);
        assert_eq!(peer["exit"], json!({"signal": 9}));
        assert_ne!(peer["netns"], connection["netns"]);
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
        let records = records(&bench.trace());
        let cookie = |backend: &Backend| {
            let remote = json!(backend.address().to_string());
            let of_it = |record: &&Value| record["remote"] == remote;
            let mut found = records.iter().filter(of_it);
            found.next().expect("no connection")["cookie"].clone()
        };
        let peers: Vec<_> = records
            .iter()
            .filter(|record| record["kind"] == "peer_close")
            .map(|record| record["cookie"].clone())
            .collect();
        assert_eq!(peers, [cookie(&near)]);
        assert_ne!(cookie(&near), cookie(&far));
        // Its own records have the address that nginx knows.
        let end = &far.connections()[0];
        assert_eq!(end.local, far.address());
    }
}
