//! Ways to listen, and to hand a connection on, each held against the sockets' own
//! addresses and the processes that had them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use lab::backend::{Habits, IPV4};
use lab::behaviour::Behaviour;
use lab::clock::{PATIENCE, wait_for};
use lab::load::{Client, Request};
use lab::netns::Namespace;
use lab::process_backend::{Preforking, Spec, Supervision, program};
use lab::processes;
use lab::tool::{self, Capture};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::bench::{alone, records};
use crate::local_backends::victim::Victim;

/// One end of a connection and the other.
type Pair = (SocketAddr, SocketAddr);

/// A connection that the accepting side closes first.
#[track_caller]
fn one(listener: &TcpListener, to: SocketAddr) -> Pair {
    let client = TcpStream::connect(to).unwrap();
    drop(listener.accept().unwrap());
    (client.local_addr().unwrap(), client.peer_addr().unwrap())
}

/// A capture at these ports.
#[track_caller]
fn at_ports(ports: &[u16], output: &Path) -> Capture {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let which: Vec<&str> = ports
        .iter()
        .flat_map(|port| ["--port", port.as_str()])
        .collect();
    Capture::of_backends(&which, output).unwrap()
}

/// What a capture recorded: just these connections, each seen from its beginning, and
/// closed first by this process.
#[track_caller]
fn has_just(capture: Capture, pairs: impl IntoIterator<Item = Pair>) {
    let trace = capture.output().to_owned();
    capture.finish().unwrap().succeeded().unwrap();
    let mut recorded = BTreeSet::new();
    for record in records(&trace, "accepted") {
        assert!(record["established_ns"].is_u64(), "{record:#}");
        assert_eq!(record["first_seen_mid_life"], false, "{record:#}");
        assert_eq!(record["end"], "closed", "{record:#}");
        assert_eq!(record["accepted"], true, "{record:#}");
        assert!(record["fin_received_ns"].is_null(), "{record:#}");
        assert_eq!(record["pid"], std::process::id(), "{record:#}");
        let end = |name: &str| record[name].as_str().unwrap().parse().unwrap();
        recorded.insert((end("remote"), end("local")));
    }
    assert_eq!(recorded, pairs.into_iter().collect::<BTreeSet<Pair>>());
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A counter of the calling thread's network namespace.
fn counted(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut both = names.split(' ').zip(values.split(' '));
    let (_, value) = both.find(|(found, _)| *found == name).unwrap();
    value.parse().unwrap()
}

#[test]
fn connections_that_came_about_by_syn_cookies_have_records() {
    let _alone = alone();
    let namespace = Namespace::create().unwrap();
    let listener = namespace
        .enter(|| {
            fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2")?;
            Ok(TcpListener::bind(namespace.ipv4())?)
        })
        .unwrap();
    let address = listener.local_addr().unwrap();
    let folder = folder();
    let capture = at_ports(&[address.port()], &folder.path().join("trace"));
    let pairs: Vec<Pair> = (0..20).map(|_| one(&listener, address)).collect();
    let cookies = namespace.enter(|| Ok(counted("SyncookiesRecv"))).unwrap();
    assert_eq!(cookies, 20, "the kernel made each of a cookie");
    has_just(capture, pairs);
}

#[test]
fn listeners_that_share_a_port_and_one_for_both_families_count_alike() {
    let _alone = alone();
    let sharing = || {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )?;
        rustix::net::sockopt::set_socket_reuseport(&socket, true)?;
        io::Result::Ok(socket)
    };
    let listen = |at: &SocketAddr| {
        let socket = sharing()?;
        rustix::net::bind(&socket, at)?;
        rustix::net::listen(&socket, 64)?;
        let listener = TcpListener::from(socket);
        listener.set_nonblocking(true)?;
        io::Result::Ok(listener)
    };
    let first = listen(&IPV4).unwrap();
    let shared = first.local_addr().unwrap();
    let listeners = [first, listen(&shared).unwrap()];
    let both = TcpListener::bind("[::]:0").unwrap();
    let both_port = both.local_addr().unwrap().port();
    let another = TcpListener::bind(IPV4).unwrap();
    let folder = folder();
    let ports = [shared.port(), both_port];
    let capture = at_ports(&ports, &folder.path().join("trace"));

    let clients: Vec<TcpStream> = (0..32)
        .map(|_| TcpStream::connect(shared).unwrap())
        .collect();
    let mut taken = [0; 2];
    wait_for("the connections to be accepted", PATIENCE, || {
        for (listener, taken) in listeners.iter().zip(&mut taken) {
            while let Ok((accepted, _)) = listener.accept() {
                drop(accepted);
                *taken += 1;
            }
        }
        Ok((taken.iter().sum::<usize>() == 32).then_some(()))
    })
    .unwrap();
    assert!(taken.iter().all(|number| *number > 0), "{taken:?}");
    let mut pairs: Vec<Pair> = clients
        .iter()
        .map(|client| (client.local_addr().unwrap(), client.peer_addr().unwrap()))
        .collect();
    for host in ["127.0.0.1", "::1"] {
        let to = SocketAddr::new(host.parse().unwrap(), both_port);
        pairs.push(one(&both, to));
    }
    // Of a port that nobody asked for nothing is recorded.
    one(&another, another.local_addr().unwrap());
    has_just(capture, pairs);
}

#[test]
fn a_process_name_stands_for_every_port_that_such_processes_listen_at() {
    let _alone = alone();
    let mut victims = [
        Victim::start("exit", 10, None),
        Victim::start("exit", 10, Some("[::1]:0".parse().unwrap())),
    ];
    let addresses: Vec<SocketAddr> = victims.iter_mut().map(Victim::address).collect();
    let another = TcpListener::bind(IPV4).unwrap();
    let folder = folder();
    let trace = folder.path().join("trace");
    let capture = Capture::of_backends(&["--process-name", "victim"], &trace).unwrap();
    let mut remotes = Vec::new();
    for (victim, address) in victims.iter_mut().zip(&addresses) {
        let mut client = Client::connect(*address).unwrap();
        client.send(&Request::post("/one", 10)).unwrap();
        remotes.push(json!(victim.address().to_string()));
        victim.child.wait().unwrap();
    }
    one(&another, another.local_addr().unwrap());
    capture.finish().unwrap().succeeded().unwrap();
    let accepted = records(&trace, "accepted");
    assert_eq!(accepted.len(), 2, "{accepted:#?}");
    for ((record, remote), victim) in accepted.iter().zip(&remotes).zip(&victims) {
        assert_eq!(record["remote"], *remote);
        assert_eq!(record["pid"], victim.child.id());
        assert_eq!(record["comm"], "victim");
        assert_eq!(record["exit"], json!({"code": 3}));
    }
}

/// The only connection of a trace, and the ends of processes.
#[track_caller]
fn only(trace: &Path) -> (Value, Vec<Value>) {
    let accepted = records(trace, "accepted");
    let [accepted] = accepted.as_slice() else {
        panic!("{accepted:#?}");
    };
    (accepted.clone(), records(trace, "backend_exit"))
}

#[test]
fn the_worker_of_a_preforking_backend_that_dies_is_the_one_that_is_named() {
    let _alone = alone();
    let spec = Spec {
        address: IPV4,
        habits: Habits::default(),
        graceful: false,
    };
    let supervision = Supervision {
        workers: 3,
        recycle_after: None,
        work_limit: None,
        look_every: Duration::from_millis(50),
        abort_first: false,
    };
    let backend = Preforking::start(&program().unwrap(), &spec, supervision).unwrap();
    let folder = folder();
    let trace = folder.path().join("trace");
    let capture = at_ports(&[backend.address().port()], &trace);
    let mut client = Client::connect(backend.address()).unwrap();
    let never = Behaviour::ANSWER.after(Duration::from_secs(600));
    client.send(&Request::get("/one").asking(never)).unwrap();
    let worker = wait_for("the request", PATIENCE, || {
        let connections = backend.connections()?;
        let asked = connections
            .iter()
            .find(|(_, record)| !record.requests.is_empty());
        Ok(asked.map(|(pid, _)| *pid))
    })
    .unwrap();
    processes::signal(worker, Signal::KILL).unwrap();
    backend.await_death(worker).unwrap();
    let printed = capture.finish().unwrap().succeeded().unwrap().text();
    let (accepted, exits) = only(&trace);
    for record in exits.iter().chain([&accepted]) {
        assert_eq!(record["pid"], worker, "{record:#}");
        assert_eq!(record["comm"], "whoclosed-backe", "{record:#}");
        assert_eq!(record["exit"], json!({"signal": 9}), "{record:#}");
    }
    assert_eq!(exits.len(), 1, "{exits:#?}");
    assert_eq!(accepted["end"], "closed");
    assert!(printed.contains(&format!("{worker} (whoclosed-backe")));
    assert!(printed.contains("was ended by SIGKILL"), "{printed}");
}

#[test]
fn a_child_that_was_given_the_connection_after_accept_is_the_one_that_ends_it() {
    let _alone = alone();
    let mut victim = Victim::start("inherit", 10, None);
    let address = victim.address();
    let folder = folder();
    let trace = folder.path().join("trace");
    let capture = at_ports(&[address.port()], &trace);
    let mut client = Client::connect(address).unwrap();
    client.send(&Request::post("/one", 10)).unwrap();
    victim.address();
    let heir: u32 = victim.line().parse().unwrap();
    assert!(client.receive().is_err(), "nobody answers");
    capture.finish().unwrap().succeeded().unwrap();
    let (accepted, exits) = only(&trace);
    assert_eq!(accepted["pid"], heir, "{accepted:#}");
    assert_eq!(accepted["parent_pid"], victim.child.id());
    assert_eq!(accepted["exit"], json!({"code": 4}));
    assert!(exits.iter().all(|exit| exit["pid"] != victim.child.id()));
}

#[test]
fn without_a_port_or_a_name_the_command_says_who_listens_and_what_to_give() {
    let _alone = alone();
    let listener = TcpListener::bind(IPV4).unwrap();
    let folder = folder();
    let trace = folder.path().join("trace");
    let output = ["--output", trace.to_str().unwrap()];
    let refused = |more: &[&str]| {
        let arguments = [["capture", "--role", "backend"].as_slice(), more, &output].concat();
        let finished = tool::run(arguments).unwrap();
        assert!(finished.stdout.is_empty());
        assert!(!trace.exists(), "an empty trace was left");
        (finished.status.code(), finished.stderr)
    };
    let (status, said) = refused(&[]);
    assert_eq!(status, Some(2), "{said}");
    for wanted in [
        "--port",
        "--process-name",
        "listening here",
        "Usage: whoclosed capture",
    ] {
        assert!(said.contains(wanted), "{said}");
    }
    let (status, said) = refused(&["--process-name", "no-such-server"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("no-such-server"), "{said}");
    drop(listener);
}
