//! Backends that are processes of this host: the trace tells which process ended its
//! side of a connection, how, and what it left unread.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use lab::clock::PATIENCE;
use lab::load::{Client, Request};
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
    fn start(mode: &str) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_victim"));
        let mut command = processes::bound_to_us(program);
        let mut child = command.arg(mode).stdout(Stdio::piped()).spawn().unwrap();
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
    let mut victim = Victim::start(mode);
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
    assert_eq!(peer["netns"], connection["netns"]);
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
