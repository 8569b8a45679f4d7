//! A backend whose process is killed again and again is no backend with a limit on a
//! request's time.

use super::*;

const KILLED: Exit = Exit::Signal(9);

/// Processes of one parent, each killed with a request in flight for so long.
fn killed_after(times_ms: &[u64]) -> Vec<Record> {
    (1..)
        .zip(times_ms)
        .flat_map(|(cookie, ms)| {
            let end = 4000 + cookie * 3000;
            let pid = 4710 + u32::try_from(cookie).unwrap();
            let mut records = vec![peer_close_by(pid, cookie, end, Some(KILLED))];
            records.extend(cut_off(cookie, end, *ms));
            records
        })
        .collect()
}

/// A connect that found nobody.
fn refused(cookie: u64, ms: u64) -> Record {
    let mut connect = connection(cookie, ms);
    connect.established_ns = None;
    connect.socket_error = Some(111);
    connect.rst_received_ns = Some(at(ms));
    ended(connect.closed(ms))
}

/// One that died with the listening socket's queue, right into its request.
fn queued(cookie: u64, pid: u32, ms: u64) -> Vec<Record> {
    let mut close = peer_close_by(pid, cookie, ms, Some(KILLED));
    if let Record::PeerClose(close) = &mut close {
        close.accepted = false;
    }
    let mut records = vec![close];
    records.extend(cut_off(cookie, ms, 1));
    records
}

#[track_caller]
fn assert_all(records: Vec<Record>, cause: Cause, confidence: Confidence) {
    let report = judged(records).report;
    assert!(!report.incidents.is_empty());
    for incident in &report.incidents {
        assert_verdict(incident, cause, confidence);
        assert!(
            incident.evidence.iter().any(|one| one.contains("SIGKILL")),
            "{:?}",
            incident.evidence
        );
    }
    let timeout = report.upstreams[0].work_timeout;
    assert_eq!(timeout.is_some(), cause == Cause::WorkerTimeout);
}

#[test]
fn kills_half_a_second_apart_around_a_second_are_no_limit_of_one() {
    assert_all(
        killed_after(&[602, 996, 1500]),
        Cause::BackendKilled,
        Confidence::Certain,
    );
}

#[test]
fn a_process_that_left_nobody_listening_was_no_supervisors_worker() {
    let times = [2050, 2100, 2990];
    let limited = (Cause::WorkerTimeout, Confidence::Likely);
    assert_all(killed_after(&times), limited.0, limited.1);
    let with_refusals = |before: bool| {
        let refusals = (1..4).map(|cookie| refused(90 + cookie, 4000 + cookie * 3000 + 1));
        let mut records = killed_after(&times);
        if before {
            records.splice(0..0, refusals);
        } else {
            records.extend(refusals);
        }
        records
    };
    for before in [true, false] {
        let records = with_refusals(before);
        assert_all(records, Cause::BackendKilled, Confidence::Certain);
    }
    // Served meanwhile: whoever refused later, the listening socket had survived.
    let mut records = with_refusals(false);
    for cookie in 1..4 {
        let end = 4000 + cookie * 3000;
        records.retain(|record| {
            !matches!(record, Record::Connection(connect) if connect.cookie == 90 + cookie)
        });
        records.push(served(80 + cookie, end + 1, 5));
        records.push(refused(90 + cookie, end + 500));
    }
    assert_all(records, limited.0, limited.1);
}

#[test]
fn a_process_that_held_the_queue_of_new_connections_was_no_worker() {
    let mut records = killed_after(&[2050, 2100, 2080]);
    for cookie in 1..4u64 {
        let pid = 4710 + u32::try_from(cookie).unwrap();
        records.extend(queued(70 + cookie, pid, 4000 + cookie * 3000 + 1));
    }
    assert_all(records, Cause::BackendKilled, Confidence::Certain);
}

#[test]
fn a_connection_that_nobody_had_accepted_met_no_limit() {
    let mut records = killed_after(&[2050, 2100, 2080, 2090]);
    if let Record::PeerClose(close) = &mut records[12] {
        close.accepted = false;
    }
    let incidents = judged(records).report.incidents;
    let (last, others) = incidents.split_last().unwrap();
    assert_verdict(last, Cause::BackendKilled, Confidence::Certain);
    for incident in others {
        assert_verdict(incident, Cause::WorkerTimeout, Confidence::Likely);
    }
}

#[test]
fn a_service_of_inits_killed_after_equal_times_was_killed() {
    let mut records = killed_after(&[2050, 2060, 2055]);
    for record in &mut records {
        if let Record::PeerClose(close) = record {
            close.parent_pid = 1;
        }
    }
    assert_all(records, Cause::BackendKilled, Confidence::Certain);
}

#[test]
fn a_worker_killed_soon_after_its_request_began_met_no_limit() {
    let told = |ms| {
        let incidents = judged(killed_after(&[2050, 2500, 2990, ms]))
            .report
            .incidents;
        incidents.last().unwrap().clone()
    };
    for ms in [1, 300, 700] {
        assert_verdict(&told(ms), Cause::BackendKilled, Confidence::Likely);
    }
    // A worker that had been idle gave its last sign of life before the request came.
    assert_verdict(&told(1100), Cause::WorkerTimeout, Confidence::Likely);
}

#[test]
fn connections_of_one_worker_speak_once_for_a_limit() {
    let mut records = killed_after(&[2050, 2060, 2055]);
    for record in &mut records {
        if let Record::PeerClose(close) = record {
            close.pid = 4711;
        }
    }
    assert_eq!(
        judged(records).report.incidents[0].cause,
        Cause::BackendKilled
    );
}

/// Workers of one parent that have requests at the same time.
fn crew_killed_after(times_ms: &[u64]) -> Vec<Record> {
    (1..)
        .zip(times_ms)
        .flat_map(|(cookie, ms)| {
            let end = 4000 + cookie * 350;
            let pid = 4710 + u32::try_from(cookie).unwrap();
            let mut records = vec![peer_close_by(pid, cookie, end, Some(KILLED))];
            records.extend(cut_off(cookie, end, *ms));
            records
        })
        .collect()
}

#[test]
fn a_supervisor_that_keeps_several_workers_may_look_at_them_seldom() {
    let limited = (Cause::WorkerTimeout, Confidence::Likely);
    assert_all(crew_killed_after(&[650, 800, 1040]), limited.0, limited.1);
    // The same of processes that follow each other, and ages too far apart.
    let killed = (Cause::BackendKilled, Confidence::Certain);
    assert_all(killed_after(&[650, 800, 1040]), killed.0, killed.1);
    assert_all(crew_killed_after(&[600, 1000, 1500]), killed.0, killed.1);
    // That it keeps several shows by others of its processes, too.
    let mut records = killed_after(&[650, 800, 1040]);
    records.extend([
        backend_process(4801, 500, 3000),
        backend_process(4802, 700, 3500),
    ]);
    assert_all(records, limited.0, limited.1);
}
