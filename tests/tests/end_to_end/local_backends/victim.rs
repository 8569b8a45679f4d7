//! One request to a process that ends it, and what the trace has of it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use lab::clock::PATIENCE;
use lab::load::{Client, Request};
use lab::memory_cgroup::MemoryCgroup;
use lab::netns::Namespace;
use lab::nginx::{Configuration, Upstream};
use lab::processes;
use lab::verdicts::Incident;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::bench::{Bench, records};
use crate::causes::only;

/// A backend that takes one request and ends.
pub(crate) struct Victim {
    pub(crate) child: Child,
    said: BufReader<ChildStdout>,
}

impl Victim {
    #[track_caller]
    pub(crate) fn start(mode: &str, body: usize, listen: Option<SocketAddr>) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_victim"));
        let mut command = processes::bound_to_us(program);
        let mut child = command
            .args([mode, &body.to_string()])
            .args(listen.map(|address| address.to_string()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// The next line that it prints.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// The next address that it prints.
    #[track_caller]
    pub(crate) fn address(&mut self) -> SocketAddr {
        let address: SocketAddr = self.line().parse().unwrap();
        (address.ip().to_canonical(), address.port()).into()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        processes::end(&mut self.child, Signal::KILL, PATIENCE);
    }
}

/// Bytes of the request's body, unless a scene says otherwise.
const BODY: usize = 1024;

/// What is done besides the request.
#[derive(Default)]
pub(crate) struct Scene<'a> {
    /// Bytes of the request's body.
    pub(crate) body: Option<usize>,
    /// Where the victim listens, if not at 127.0.0.1.
    pub(crate) listen: Option<SocketAddr>,
    /// In another network namespace than nginx.
    pub(crate) inside: Option<&'a Namespace>,
    /// Where nginx finds it, if not there.
    pub(crate) host: Option<&'a str>,
    /// Sent once the request is there.
    pub(crate) signal: Option<Signal>,
    /// Limits its memory.
    pub(crate) cgroup: Option<&'a MemoryCgroup>,
    /// It ends by itself.
    pub(crate) ends: bool,
    /// The name of the process that is told to have closed, if it is another.
    pub(crate) closer: Option<&'a str>,
    /// More options of the capture.
    pub(crate) options: &'a [&'a str],
}

/// What became of one request to a victim.
pub(crate) struct Seen {
    /// The record of its side.
    pub(crate) peer: Value,
    /// That of nginx's side.
    pub(crate) connection: Value,
    /// Those of its process's end.
    pub(crate) exits: Vec<Value>,
    /// Those of the processes that held the connection.
    processes: Vec<Value>,
    /// Its pid.
    pub(crate) pid: u32,
    /// What it said after the request had come.
    pub(crate) said: String,
    /// What the report says of the request.
    pub(crate) incident: Incident,
}

#[track_caller]
pub(crate) fn one_request(mode: &str) -> Seen {
    Scene::default().one_request(mode)
}

impl Scene<'_> {
    #[track_caller]
    pub(crate) fn one_request(&self, mode: &str) -> Seen {
        let body = self.body.unwrap_or(BODY);
        let start = || Victim::start(mode, body, self.listen);
        let mut victim = match self.inside {
            Some(namespace) => namespace.enter(|| Ok(start())).unwrap(),
            None => start(),
        };
        let mut backend = victim.address();
        if let Some(host) = self.host {
            let mut found = (host, backend.port()).to_socket_addrs().unwrap();
            backend = found.next().unwrap();
        }
        let pid = victim.child.id();
        if let Some(cgroup) = self.cgroup {
            cgroup.take(pid).unwrap();
        }
        let upstream = Upstream::new("app", backend);
        let mut bench = Bench::start(&Configuration::new(vec![upstream]), self.options);
        let mut client = Client::connect(bench.nginx.address()).unwrap();
        client.send(&Request::post("/app/one", body)).unwrap();
        let nginx_side = victim.address();
        if let Some(signal) = self.signal {
            processes::signal(pid, signal).unwrap();
        }
        assert_eq!(client.receive().unwrap().status, 502);
        if self.ends {
            victim.child.wait().unwrap();
        }
        // A descendant may have the pipe still.
        let said = if mode == "inherit" {
            victim.line()
        } else {
            String::new()
        };
        let report = bench.report();

        let trace = bench.trace();
        let connections: Vec<Value> = records(&trace, "connection")
            .into_iter()
            .filter(|record| record["local"] == json!(nginx_side.to_string()))
            .collect();
        let [connection] = connections.as_slice() else {
            panic!("{connections:#?}");
        };
        let peers = records(&trace, "peer_close");
        let [peer] = peers.as_slice() else {
            panic!("{peers:#?}");
        };
        assert_eq!(peer["cookie"], connection["cookie"]);
        let same_netns = peer["netns"] == connection["netns"];
        assert_eq!(same_netns, self.inside.is_none());
        assert_eq!(peer["accepted"], true);
        assert_eq!(peer["received_bytes"], connection["sent_bytes"]);
        assert_eq!(peer["comm"], self.closer.unwrap_or("victim"));
        assert!(peer["ns"].as_u64() < connection["ended_ns"].as_u64());
        // It had the whole request, so nothing was on its way when nginx closed.
        if connection["rst_received_ns"].is_null() {
            assert_eq!(connection["unacked_at_close"], 0);
        }
        let processes = records(&trace, "backend_process");
        for process in &processes {
            assert_eq!(process["address"], json!(backend.ip()));
            assert_eq!(process["port"], backend.port());
            assert_eq!(process["netns"], connection["netns"]);
            for same in ["pid", "parent_pid", "comm"] {
                assert_eq!(process[same], peer[same]);
            }
            assert_eq!(process["connections"], 1);
            assert_eq!(process["first_ns"], peer["ns"]);
            assert_eq!(process["last_ns"], peer["ns"]);
        }
        Seen {
            peer: peer.clone(),
            connection: connection.clone(),
            exits: records(&trace, "backend_exit"),
            processes,
            pid,
            said,
            incident: only(&report).clone(),
        }
    }
}

impl Seen {
    /// It was the victim itself that ended the connection, so; nobody else is told.
    #[track_caller]
    pub(crate) fn is_its_own(&self, exit: Value) {
        assert_eq!(self.peer["pid"], self.pid);
        assert_eq!(self.peer["parent_pid"], std::process::id());
        assert_eq!(self.peer["exit"], exit);
        assert_eq!(self.processes.len(), 1, "{:#?}", self.processes);
    }
}
