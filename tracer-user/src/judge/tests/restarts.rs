//! Backends that stop and begin again, seen by refused connects, by their processes and
//! by bursts of ends; and what looks like it.

use super::*;
use crate::report::model::{Means, Phase, Side};

fn refused(ms: u64) -> [Record; 3] {
    let line = said(ms, "connect() failed", 111, CONNECTING);
    let mut refused = connection(500 + ms, ms).rst(ms, 1).closed(ms);
    refused.established_ns = None;
    refused.socket_error = Some(111);
    [line.logged(), ended(refused), line.line()]
}

fn first(records: Vec<Record>) -> Incident {
    judged(records).report.incidents.remove(0)
}

#[test]
fn a_refused_address_that_was_served_before_and_after_was_restarting() {
    let mut records = vec![served(1, 1000, 5)];
    records.extend(refused(3000));
    records.push(served(2, 4500, 5));
    let incident = only(judged(records));
    assert_verdict(&incident, Cause::BackendRestart, Confidence::Likely);
    assert_eq!(
        (incident.side, incident.means, incident.phase),
        (Side::Backend, Means::Refused, Phase::Connect)
    );
    let told = &incident.evidence[1];
    assert!(
        told.contains("2000.0 ms before") && told.contains("1500.0 ms later"),
        "{told}"
    );
    assert!(
        told.contains("nobody listened for 3500.0 ms at most"),
        "{told}"
    );
}

#[test]
fn a_process_that_ended_in_between_makes_a_restart_certain() {
    for seen in [backend_process(4711, 1105, 1105), peer_close(1, 1105, None)] {
        for order in 0..2 {
            let exit = backend_exit(2900, 4711, Exit::Signal(15));
            let mut records = vec![served(1, 1000, 5)];
            records.extend([seen.clone(), exit]);
            if order == 1 {
                records.swap(1, 2);
            }
            records.extend(refused(3000));
            records.push(served(2, 4500, 5));
            let incident = only(judged(records));
            assert_verdict(&incident, Cause::BackendRestart, Confidence::Certain);
            assert!(
                incident.evidence[1].contains("process 4711")
                    && incident.evidence[1].contains("SIGTERM (15) 100.0 ms before"),
                "{:?}",
                incident.evidence
            );
        }
    }
}

#[test]
fn an_address_that_is_not_served_again_is_refused_and_its_end_is_named() {
    let mut records = vec![
        served(1, 1000, 5),
        peer_close(1, 2900, Some(Exit::Signal(9))),
    ];
    records.extend(refused(3000));
    let incident = only(judged(records));
    assert_verdict(&incident, Cause::ConnectRefused, Confidence::Certain);
    assert!(
        incident.evidence[1].contains("SIGKILL (9) 100.0 ms before"),
        "{:?}",
        incident.evidence
    );
}

#[test]
fn advice_on_a_refused_connect_names_the_end_that_left_nobody_listening() {
    let advised = |exit, ended_ms, others: Vec<Record>| {
        let mut records = vec![served(1, 1000, 5), peer_close(1, ended_ms, Some(exit))];
        records.extend(others);
        records.extend(refused(3000));
        let mut report = judged(records).report;
        assert_eq!(report.incidents[0].cause, Cause::ConnectRefused);
        let advice = report.advice.remove(0);
        (advice.text, advice.because)
    };
    for (exit, past, first) in [
        (Exit::Signal(9), "been killed by SIGKILL (9)", "who sent"),
        (Exit::Signal(15), "been killed by SIGTERM (15)", "who sent"),
        (Exit::Signal(11), "crashed (SIGSEGV (11))", "core dump"),
        (Exit::Code(3), "exited with status 3", "log says why"),
        (Exit::OutOfMemory, "been killed by the kernel", "memory"),
    ] {
        let (text, because) = advised(exit, 2900, Vec::new());
        assert!(text.contains(past) && text.contains(first), "{text}");
        assert!(because.contains(past), "{because}");
    }
    // Somebody was served since.
    let (text, because) = advised(Exit::Signal(9), 2000, vec![served(2, 2500, 5)]);
    assert!(text.starts_with("start the backend"), "{text}");
    assert!(!because.contains("SIGKILL"), "{because}");
}

#[test]
fn an_address_that_was_never_served_before_is_refused() {
    let mut records = refused(3000).to_vec();
    records.push(served(2, 4500, 5));
    assert_verdict(
        &only(judged(records)),
        Cause::ConnectRefused,
        Confidence::Certain,
    );
}

#[test]
fn another_address_that_was_served_makes_no_restart() {
    let elsewhere = |cookie, ms| {
        let Record::Connection(mut found) = served(cookie, ms, 5) else {
            unreachable!()
        };
        found.remote = "127.0.0.1:9102".parse().unwrap();
        Record::Connection(found)
    };
    let mut records = vec![elsewhere(1, 1000)];
    records.extend(refused(3000));
    records.push(elsewhere(2, 4500));
    assert_eq!(only(judged(records)).cause, Cause::ConnectRefused);
}

#[test]
fn a_line_that_was_refused_without_its_connection_is_likely_a_restart_at_most() {
    let line = said(3000, "connect() failed", 111, CONNECTING);
    let records = vec![
        served(1, 1000, 5),
        peer_close(1, 2900, Some(Exit::Code(0))),
        line.line(),
        served(2, 4500, 5),
    ];
    assert_verdict(
        &only(judged(records)),
        Cause::BackendRestart,
        Confidence::Likely,
    );
}

/// The process 4711 ends with the request in flight at 5 s.
fn exited(exit: Exit) -> Vec<Record> {
    let mut records = vec![peer_close(1, 5000, Some(exit))];
    records.extend(cut_off(1, 5000, 200));
    records
}

#[test]
fn a_process_that_exits_in_order_and_is_replaced_is_a_restart() {
    let mut records = exited(Exit::Code(0));
    records.extend([served(2, 6000, 5), backend_process(4712, 6105, 6105)]);
    let incident = only(judged(records.clone()));
    assert_verdict(&incident, Cause::BackendRestart, Confidence::Certain);
    assert!(
        incident.evidence[1].contains("1000.0 ms later on, now by process 4712"),
        "{:?}",
        incident.evidence
    );
    records.pop();
    assert_verdict(
        &only(judged(records)),
        Cause::BackendRestart,
        Confidence::Likely,
    );
}

#[test]
fn a_process_that_fails_or_is_not_replaced_only_exited() {
    let mut records = exited(Exit::Code(3));
    records.extend([served(2, 6000, 5), backend_process(4712, 6105, 6105)]);
    assert_verdict(
        &only(judged(records)),
        Cause::BackendExited,
        Confidence::Certain,
    );
    assert_verdict(
        &only(judged(exited(Exit::Code(0)))),
        Cause::BackendExited,
        Confidence::Certain,
    );
}

/// Connections of a remote backend that all end at about 5 s, one with a request.
fn burst(idle: u64) -> Vec<Record> {
    let mut records = cut_off(1, 5000, 300).to_vec();
    for index in 0..idle {
        // Idle for unequal times.
        let begun = 1000 + index * 700;
        let end = 5001 + index * 10;
        let kept = connection(100 + index, begun)
            .request(begun)
            .answer(begun + 1);
        records.push(ended(kept.fin(end, 0).peek(end, IdleEnd::Eof).closed(end)));
    }
    records
}

#[test]
fn a_burst_of_ends_and_refused_connects_are_a_remote_restart() {
    let mut records = burst(3);
    records.extend(refused(5500));
    assert_verdict(&first(records), Cause::BackendRestart, Confidence::Likely);
}

#[test]
fn a_burst_of_ends_and_new_connections_are_a_remote_restart() {
    let mut records = burst(3);
    records.push(served(50, 5400, 3));
    let incident = only(judged(records));
    assert_verdict(&incident, Cause::BackendRestart, Confidence::Likely);
    assert!(
        incident.evidence[0].contains("4 connections within 21.0 ms, 1 of them"),
        "{:?}",
        incident.evidence
    );
    assert_eq!((incident.means, incident.phase), (Means::Fin, Phase::Wait));
}

#[test]
fn a_burst_is_no_restart_if_nothing_follows_it_or_old_connections_live_on() {
    assert_eq!(only(judged(burst(3))).cause, Cause::ClosedWithoutAnswer);
    let mut records = burst(3);
    let old = connection(60, 900).request(7000).answer(7001).closed(9000);
    records.extend([served(50, 5400, 3), ended(old)]);
    assert_eq!(only(judged(records)).cause, Cause::ClosedWithoutAnswer);
    let mut few = burst(1);
    few.push(served(50, 5400, 3));
    assert_eq!(only(judged(few)).cause, Cause::ClosedWithoutAnswer);
}

#[test]
fn connections_that_idled_equally_long_make_no_burst() {
    // Left alone at the same moment, closed by the same timer; and one request fails.
    let mut records = cut_off(1, 5000, 300).to_vec();
    for index in 0..8 {
        let kept = connection(100 + index, 3000).request(3000).answer(3001);
        let end = 5001 + index;
        records.push(ended(kept.fin(end, 0).peek(end, IdleEnd::Eof).closed(end)));
    }
    records.push(served(50, 5400, 3));
    assert_eq!(only(judged(records)).cause, Cause::ClosedWithoutAnswer);
}

#[test]
fn requests_that_fail_one_after_the_other_are_no_restart() {
    let mut records = Vec::new();
    for index in 0..20 {
        records.extend(cut_off(1 + index, 3000 + index * 100, 350));
    }
    records.push(served(50, 9000, 3));
    let judged = judged(records);
    assert!(
        judged
            .report
            .incidents
            .iter()
            .all(|one| one.cause == Cause::ClosedWithoutAnswer)
    );
}

#[test]
fn a_process_that_closed_many_connections_and_lives_on_did_not_restart() {
    let told = |exit: Option<Record>| {
        let mut records = Vec::new();
        for (cookie, ended_ms) in [(1, 5000), (2, 5100), (3, 5200), (4, 5300)] {
            records.push(peer_close(cookie, ended_ms, None));
            records.extend(cut_off(cookie, ended_ms, 100 + cookie * 70));
        }
        records.extend(exit);
        records.push(served(100, 5600, 5));
        records.push(served(101, 7000, 5));
        judged(records).report.incidents.remove(0).cause
    };
    assert_eq!(told(None), Cause::ClosedWithoutAnswer);
    // It finished what it could, and ended.
    let ended = backend_exit(20_000, 4711, Exit::Code(0));
    assert_eq!(told(Some(ended)), Cause::BackendRestart);
}
