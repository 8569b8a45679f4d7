//! The load, against backends of its own.

use super::*;
use crate::backend::{Backend, Ended, Habits, IPV4, IPV6, Idle, Refusing, Why};
use crate::behaviour::{Framing, Kind};
use crate::clock::between;

fn ask(backend: &Backend, behaviour: Behaviour) -> Result<Response> {
    Client::connect(backend.address())?.ask(&Request::get("/x").asking(behaviour))
}

#[test]
fn a_backend_answers_keeps_and_records_in_both_families() {
    for address in [IPV4, IPV6] {
        let backend = Backend::start(address, Habits::default()).unwrap();
        let mut client = Client::connect(backend.address()).unwrap();
        for target in ["/a", "/b"] {
            let response = client.ask(&Request::post(target, 10)).unwrap();
            assert_eq!(
                (response.status, response.body, response.kept),
                (200, 64, true)
            );
        }
        let answered = |records: &[crate::backend::Connection]| records[0].answered() == 2;
        let records = backend
            .wait_until("the answers", PATIENCE, answered)
            .unwrap();
        let connection = &records[0];
        assert_eq!(connection.remote, client.local());
        assert_eq!(connection.local, backend.address());
        assert_eq!(connection.requests[1].target, "/b");
        assert_eq!(connection.requests[1].body_bytes, 10);
        assert!(connection.is_open());
    }
}

#[test]
fn every_fault_reaches_the_client_as_told_and_stands_in_the_record() {
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let body = 10_000;
    let cut = |framing, means| {
        Behaviour::of(Kind::CloseInBody {
            body,
            framing,
            means,
        })
    };
    for (behaviour, status, why, means) in [
        (
            Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)),
            None,
            Why::BeforeAnswer,
            Means::Fin,
        ),
        (
            Behaviour::of(Kind::CloseWithoutAnswer(Means::Rst)),
            None,
            Why::BeforeAnswer,
            Means::Rst,
        ),
        (
            Behaviour::of(Kind::CloseInHeader(Means::Fin)),
            None,
            Why::InHeader,
            Means::Fin,
        ),
        (
            cut(Framing::Length, Means::Fin),
            Some(200),
            Why::InBody,
            Means::Fin,
        ),
        (
            cut(Framing::Chunked, Means::Fin),
            Some(200),
            Why::InBody,
            Means::Fin,
        ),
    ] {
        let response = ask(&backend, behaviour);
        assert_eq!(
            response.as_ref().ok().map(|response| response.status),
            status
        );
        assert!(response.is_err() || response.is_ok_and(|response| !response.complete));
        let end = backend.connections().last().unwrap().end.unwrap();
        assert_eq!(
            (end.how, end.why),
            (Ended::Closed(means), why),
            "{behaviour}"
        );
    }
    let once = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)).once();
    assert!(ask(&backend, once).is_err());
    assert_eq!(ask(&backend, once).unwrap().status, 200);
}

#[test]
fn an_unread_body_makes_the_kernel_reset() {
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let mut client = Client::connect(backend.address()).unwrap();
    let leave = Behaviour::of(Kind::LeaveBodyUnread);
    client
        .send(&Request::post("/x", 1000).asking(leave))
        .unwrap();
    assert_eq!(client.receive().unwrap().status, 413);
    let mut buffer = [0];
    let error = client.stream.read(&mut buffer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn an_idle_close_is_never_early_and_waits_while_it_is_held() {
    let after = Duration::from_millis(60);
    let idle = Some(Idle {
        after,
        means: Means::Fin,
    });
    let backend = Backend::start(
        IPV4,
        Habits {
            idle,
            ..Habits::default()
        },
    )
    .unwrap();
    let mut client = Client::connect(backend.address()).unwrap();
    client.ask(&Request::get("/x")).unwrap();
    let closed = |records: &[crate::backend::Connection]| {
        records
            .iter()
            .all(|record| record.closed_because(Why::Idle))
    };
    let record = backend
        .wait_until("the idle close", PATIENCE, closed)
        .unwrap()
        .pop()
        .unwrap();
    let silence = between(
        record.last_answered_ns().unwrap(),
        record.end.unwrap().at_ns,
    );
    assert!(silence >= after, "closed after {silence:?}");

    let hold = backend.hold_closes();
    let mut client = Client::connect(backend.address()).unwrap();
    client.ask(&Request::get("/x")).unwrap();
    let held_until = now_ns() + 100_000_000;
    thread::sleep(Duration::from_millis(100));
    assert!(backend.connections()[1].is_open());
    drop(hold);
    let record = backend
        .wait_until("the held close", PATIENCE, closed)
        .unwrap()
        .pop()
        .unwrap();
    assert!(record.end.unwrap().at_ns >= held_until);
}

#[test]
fn a_request_limit_closes_unannounced() {
    let habits = Habits {
        request_limit: Some(3),
        ..Habits::default()
    };
    let backend = Backend::start(IPV4, habits).unwrap();
    let requests: Vec<_> = (0..3).map(|n| Request::get(format!("/{n}"))).collect();
    let outcomes = run(backend.address(), &requests, 1, true);
    assert!(outcomes.iter().all(|outcome| outcome.served()));
    let records = backend
        .wait_until("the close", PATIENCE, |records| !records[0].is_open())
        .unwrap();
    assert!(records[0].closed_because(Why::RequestLimit));
    assert_eq!(records[0].answered(), 3);
}

#[test]
fn requests_that_wait_for_each_other_are_on_as_many_connections() {
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let together = Behaviour::of(Kind::AnswerTogether { requests: 4 });
    let requests = vec![Request::get("/t").asking(together); 4];
    let outcomes = run(backend.address(), &requests, 4, true);
    assert!(outcomes.iter().all(|outcome| outcome.served()));
    assert_eq!(backend.connections().len(), 4);
}

#[test]
fn a_refusing_port_refuses_for_as_long_as_it_is_held() {
    for address in [IPV4, IPV6] {
        let refusing = Refusing::start(address).unwrap();
        for _ in 0..3 {
            let error = TcpStream::connect(refusing.address()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
    }
}
