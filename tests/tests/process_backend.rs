//! The backend in a process of its own: it dies in every way that the lab needs, and
//! its records survive it.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use lab::backend::{Ended, Habits, IPV4, Why};
use lab::behaviour::Means;
use lab::clock::{PATIENCE, wait_for};
use lab::load::{Client, Request};
use lab::process_backend::{Event, Preforking, ProcessBackend, Spec, Supervision};
use lab::processes;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::Signal;

#[track_caller]
fn start(graceful: bool) -> ProcessBackend {
    let spec = Spec {
        address: IPV4,
        habits: Habits::default(),
        graceful,
    };
    ProcessBackend::start(Path::new(env!("CARGO_BIN_EXE_whoclosed-backend")), spec).unwrap()
}

#[track_caller]
fn send(backend: &ProcessBackend, behaviour: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(backend.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "POST /a HTTP/1.1\r\nHost: h\r\nX-Lab: {behaviour}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// All bytes up to the end, and whether that was a FIN.
fn rest(mut stream: TcpStream) -> (String, bool) {
    let mut bytes = Vec::new();
    let fin = stream.read_to_end(&mut bytes).is_ok();
    (String::from_utf8_lossy(&bytes).into_owned(), fin)
}

#[test]
fn the_records_of_a_killed_backend_survive_it() {
    let mut backend = start(false);
    let client = send(&backend, "close after=60000", "");
    wait_for("the request", PATIENCE, || {
        let records = backend.connections()?;
        Ok(records
            .first()
            .filter(|(_, connection)| !connection.requests.is_empty())
            .map(|_| ()))
    })
    .unwrap();
    backend.signal(Signal::KILL).unwrap();
    assert_eq!(backend.wait(PATIENCE).unwrap().status.signal(), Some(9));
    assert_eq!(rest(client), (String::new(), true));
    let records = backend.connections().unwrap();
    let (pid, connection) = &records[0];
    assert_eq!(*pid, backend.pid());
    assert!(connection.is_open(), "it did not end it itself");
    assert_eq!(connection.requests[0].target, "/a");
}

#[test]
fn a_backend_ends_its_process_in_each_way_and_phase() {
    for (behaviour, code, signal) in [
        ("exit=0", Some(0), None),
        ("exit-in-header=1", Some(1), None),
        ("exit-in-body=3", Some(3), None),
        ("abort", None, Some(6)),
        ("segfault", None, Some(11)),
        ("segfault-in-body", None, Some(11)),
        ("signal=9", None, Some(9)),
        ("signal-in-header=15", None, Some(15)),
    ] {
        let mut backend = start(false);
        let (answer, fin) = rest(send(&backend, behaviour, "abc"));
        assert!(fin, "{behaviour}: no FIN");
        let header = answer.starts_with("HTTP/1.1 200");
        let body = answer.contains("\r\n\r\naaa");
        assert_eq!(header, behaviour.contains("-in-"), "{behaviour}: {answer}");
        assert_eq!(body, behaviour.contains("-body"), "{behaviour}: {answer}");
        let status = backend.wait(PATIENCE).unwrap().status;
        assert_eq!(
            (status.code(), status.signal()),
            (code, signal),
            "{behaviour}"
        );
        let (_, connection) = backend.connections().unwrap().remove(0);
        assert!(connection.closed_because(Why::ProcessEnded), "{behaviour}");
        assert_eq!(connection.requests[0].behaviour.to_string(), behaviour);
    }
}

#[test]
fn a_process_that_ends_with_a_body_unread_resets() {
    let mut backend = start(false);
    let (answer, fin) = rest(send(&backend, "exit-unread=1", "abc"));
    assert_eq!((answer.as_str(), fin), ("", false));
    assert_eq!(backend.wait(PATIENCE).unwrap().status.code(), Some(1));
    let (_, connection) = backend.connections().unwrap().remove(0);
    assert_eq!(
        connection.end.unwrap().how,
        Ended::Closed(Means::Rst),
        "as recorded"
    );
    assert_eq!(connection.requests[0].body_bytes, 0);
}

#[test]
fn a_restarted_backend_has_its_old_port_and_a_new_process() {
    let mut backend = start(false);
    let (address, old) = (backend.address(), backend.pid());
    let _open = send(&backend, "exit=0", "");
    backend.restart().unwrap();
    assert_eq!(backend.address(), address);
    assert_ne!(backend.pid(), old);
    let (answer, _) = rest(send(&backend, "answer-then-close", ""));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let pids: Vec<u32> = backend
        .connections()
        .unwrap()
        .iter()
        .map(|(pid, _)| *pid)
        .collect();
    assert_eq!(pids, [old, backend.pid()]);
    assert_eq!(backend.deaths().len(), 1);
}

#[test]
fn nobody_else_gets_the_port_of_a_backend_that_is_down() {
    let mut backend = start(false);
    backend.signal(Signal::KILL).unwrap();
    backend.wait(PATIENCE).unwrap();
    let refused = TcpStream::connect(backend.address()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // A socket without reuse, as a connect binds it.
    let other = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    assert!(rustix::net::bind(&other, &backend.address()).is_err());
    backend.restart().unwrap();
    TcpStream::connect(backend.address()).unwrap();
}

#[test]
fn sigterm_ends_it_by_default_and_is_obeyed_where_it_is_graceful() {
    for graceful in [false, true] {
        let mut backend = start(graceful);
        let client = send(&backend, "close after=60000", "");
        wait_for("the request", PATIENCE, || {
            let records = backend.connections()?;
            Ok(records
                .first()
                .filter(|(_, connection)| !connection.requests.is_empty())
                .map(|_| ()))
        })
        .unwrap();
        backend.signal(Signal::TERM).unwrap();
        let status = backend.wait(PATIENCE).unwrap().status;
        let expected = if graceful {
            (Some(0), None)
        } else {
            (None, Some(15))
        };
        assert_eq!((status.code(), status.signal()), expected);
        assert_eq!(rest(client), (String::new(), true));
        let (_, connection) = backend.connections().unwrap().remove(0);
        assert_eq!(connection.closed_because(Why::Stopped), graceful);
    }
}

/// A pre-forking backend with two workers.
#[track_caller]
fn prefork(recycle_after: Option<usize>, work_limit: Option<Duration>, abort: bool) -> Preforking {
    let program = Path::new(env!("CARGO_BIN_EXE_whoclosed-backend"));
    let spec = Spec {
        address: IPV4,
        habits: Habits::default(),
        graceful: false,
    };
    let supervision = Supervision {
        workers: 2,
        recycle_after,
        work_limit,
        look_every: Duration::from_millis(20),
        abort_first: abort,
    };
    Preforking::start(program, &spec, supervision).unwrap()
}

#[track_caller]
fn ask(backend: &Preforking, behaviour: &str) -> Client {
    let mut client = Client::connect(backend.address()).unwrap();
    let request = Request::get("/a").asking(behaviour.parse().unwrap());
    client.send(&request).unwrap();
    client
}

/// The worker that has a request.
#[track_caller]
fn holder(backend: &Preforking) -> u32 {
    let records = wait_for("the request", PATIENCE, || {
        let records = backend.connections().unwrap_or_default();
        let begun = records
            .iter()
            .any(|(_, record)| !record.requests.is_empty());
        Ok(begun.then_some(records))
    });
    records.unwrap()[0].0
}

#[test]
fn a_lost_worker_is_replaced_and_its_records_survive_it() {
    let backend = prefork(None, None, false);
    let mut client = ask(&backend, "answer after=60000");
    let worker = holder(&backend);
    processes::signal(worker, Signal::KILL).unwrap();
    assert_eq!(
        backend.await_death(worker).unwrap().status.signal(),
        Some(9)
    );
    assert!(client.receive().is_err());
    assert_eq!(ask(&backend, "answer").receive().unwrap().status, 200);
    let started = |event: &Event| matches!(event, Event::Started { .. });
    wait_for("the next worker", PATIENCE, || {
        let begun = backend
            .events()?
            .iter()
            .filter(|event| started(event))
            .count();
        Ok((begun == 3).then_some(()))
    })
    .unwrap();
    assert!(backend.connections().unwrap()[0].1.is_open());
}

#[test]
fn a_worker_drains_after_its_number_of_answers_and_exits_with_0() {
    let backend = prefork(Some(3), None, false);
    let mut client = Client::connect(backend.address()).unwrap();
    for _ in 0..3 {
        let response = client.ask(&Request::get("/a")).unwrap();
        assert_eq!((response.status, response.kept), (200, true));
    }
    let (worker, _) = backend.connections().unwrap()[0];
    assert_eq!(backend.await_death(worker).unwrap().status.code(), Some(0));
    let (_, record) = backend.connections().unwrap().remove(0);
    assert!(record.closed_because(Why::Recycled), "{record:?}");
    assert_eq!(ask(&backend, "answer").receive().unwrap().status, 200);
}

#[test]
fn a_worker_that_works_for_too_long_is_killed_and_that_is_on_record() {
    for (abort, signal) in [(false, 9), (true, 6)] {
        let backend = prefork(None, Some(Duration::from_millis(50)), abort);
        assert_eq!(ask(&backend, "answer").receive().unwrap().status, 200);
        let mut client = ask(&backend, "answer after=60000");
        assert!(client.receive().is_err());
        let killed = backend
            .events()
            .unwrap()
            .into_iter()
            .find_map(|event| match event {
                Event::Killed { pid, overdue, .. } => Some((pid, overdue)),
                _ => None,
            });
        let (worker, overdue) = killed.unwrap();
        assert_eq!(overdue, ["/a"]);
        let death = backend.await_death(worker).unwrap();
        assert_eq!(death.status.signal(), Some(signal));
    }
}
