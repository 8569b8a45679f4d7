//! Workers that a supervisor ends: for a request's time, for their own age.

use super::*;
use crate::report::model::InferredTimeout;
use crate::trace::record::Upstream;

fn causes(records: Vec<Record>) -> Vec<Cause> {
    let incidents = judged(records).report.incidents;
    incidents.iter().map(|one| one.cause).collect()
}

/// Requests that the backend ended after these times, some seconds apart.
fn cut_after(times_ms: &[u64]) -> Vec<Record> {
    (1..)
        .zip(times_ms)
        .flat_map(|(cookie, ms)| cut_off(cookie, 4000 + cookie * 3000, *ms))
        .collect()
}

#[test]
fn three_requests_ended_after_the_same_time_met_a_limit() {
    let mut records = cut_after(&[2000, 2010, 1995]);
    records.extend([served(50, 1000, 5), served(51, 1000, 1900)]);
    let report = judged_with(&[], records).report;
    for incident in &report.incidents {
        assert_verdict(incident, Cause::WorkerTimeout, Confidence::Likely);
    }
    let expected = InferredTimeout {
        ms: 2000.0,
        spread_ms: 15.0,
        samples: 3,
    };
    assert_eq!(report.upstreams[0].work_timeout, Some(expected));
    let advice = &report.advice[0];
    assert!(
        advice.text.contains("proxy_read_timeout (60s by default)"),
        "{advice:?}"
    );
    assert_eq!(advice.incidents, 3);
}

#[test]
fn unequal_too_few_or_short_times_are_no_limit() {
    for times in [
        &[2000, 2010][..],
        &[900, 2000, 3500],
        &[2000, 2010, 2005, 700, 900, 1300],
        &[200, 201, 202],
    ] {
        let found = causes(cut_after(times));
        assert!(
            found
                .iter()
                .all(|cause| *cause == Cause::ClosedWithoutAnswer),
            "{times:?}: {found:?}"
        );
    }
}

#[test]
fn a_request_that_took_longer_and_succeeded_forbids_a_limit() {
    let mut records = cut_after(&[2000, 2010, 1995]);
    records.push(served(50, 1000, 2100));
    assert!(!causes(records).contains(&Cause::WorkerTimeout));
    let counted = |bound_us| {
        let mut records = cut_after(&[2000, 2010, 1995]);
        records.push(Record::Upstream(Upstream {
            ns: at(3000),
            address: PEER.parse::<SocketAddr>().unwrap().ip(),
            port: 9101,
            netns: 1,
            connects: 9,
            connect_failures: 0,
            exchanges: 9,
            fin_first: 0,
            rst_first: 0,
            nginx_first: 0,
            connect_us: Vec::new(),
            first_byte_us: vec![(1000, 8), (bound_us, 1)],
            request_bytes: Vec::new(),
        }));
        causes(records).contains(&Cause::WorkerTimeout)
    };
    // Buckets from 1,310,720 us to 1,572,864 us and from 1,835,008 us to 2,097,152 us.
    assert!(counted(1_310_720));
    assert!(!counted(1_835_008));
}

#[test]
fn requests_that_began_together_and_ended_together_agree_by_chance() {
    let records: Vec<Record> = (1..5)
        .flat_map(|cookie| cut_off(cookie, 5000 + cookie, 2000 + cookie))
        .collect();
    assert!(!causes(records).contains(&Cause::WorkerTimeout));
}

#[test]
fn a_limit_may_end_a_request_in_the_middle_of_its_response() {
    let mut records = Vec::new();
    for cookie in 1..4u64 {
        let ms = 4000 + cookie * 3000;
        let mut line = said(ms, PREMATURE, 0, BODY);
        line.number = cookie;
        let half = connection(cookie, ms - 2000)
            .request(ms - 2000)
            .answer(ms - 1900)
            .fin(ms, 0)
            .eof(ms)
            .closed(ms);
        records.extend([line.logged(), ended(half), line.line()]);
    }
    let report = judged(records).report;
    assert!(
        report
            .incidents
            .iter()
            .all(|one| one.cause == Cause::WorkerTimeout)
    );
    assert_eq!(report.upstreams[0].closes.backend_in_flight, 3);
}

/// Workers of one supervisor that end so, each with a request.
fn ended_workers(times_ms: &[u64], exit: Exit) -> Vec<Record> {
    (1..)
        .zip(times_ms)
        .flat_map(|(cookie, ms)| {
            let end = 4000 + cookie * 3000;
            let pid = 4710 + u32::try_from(cookie).unwrap();
            let mut records = vec![peer_close_by(pid, cookie, end, Some(exit))];
            records.extend(cut_off(cookie, end, *ms));
            records
        })
        .collect()
}

#[test]
fn a_supervisor_looks_once_a_second_so_its_workers_times_agree_less() {
    for exit in [Exit::Signal(9), Exit::Signal(6), Exit::Code(1)] {
        let records = ended_workers(&[2050, 2500, 2990], exit);
        let incidents = judged(records.clone()).report.incidents;
        for incident in &incidents {
            assert_verdict(incident, Cause::WorkerTimeout, Confidence::Likely);
            assert!(
                incident
                    .evidence
                    .iter()
                    .any(|one| one.contains("child of 4700")),
                "{:?}",
                incident.evidence
            );
        }
        // The other ends' records may all come later.
        let (closes, others): (Vec<_>, Vec<_>) = records
            .into_iter()
            .partition(|record| matches!(record, Record::PeerClose(_)));
        let late: Vec<Record> = others.into_iter().chain(closes).collect();
        assert_eq!(judged(late).report.incidents, incidents);
    }
}

#[test]
fn a_worker_that_did_not_end_when_asked_is_killed_at_its_supervisors_next_look() {
    let told = |ms, exit, parent_pid| {
        let mut records = ended_workers(&[2050, 2500, 2990], Exit::Code(1));
        let mut late = ended_workers(&[0, 0, 0, ms], exit).split_off(12);
        for record in &mut late {
            if let Record::PeerClose(close) = record {
                close.parent_pid = parent_pid;
            }
        }
        records.extend(late);
        judged(records).report.incidents.pop().unwrap()
    };
    let killed = Exit::Signal(9);
    for ms in [1000, 4100] {
        let incident = told(ms, killed, 4700);
        assert_verdict(&incident, Cause::WorkerTimeout, Confidence::Likely);
    }
    // Later, another's worker, or no SIGKILL: whose signal it was is not known.
    for (ms, parent_pid) in [(5200, 4700), (4100, 4699)] {
        let incident = told(ms, killed, parent_pid);
        assert_verdict(&incident, Cause::BackendKilled, Confidence::Likely);
    }
    let aborted = told(4100, Exit::Signal(6), 4700);
    assert_verdict(&aborted, Cause::BackendCrashed, Confidence::Likely);
    // No supervisor sends this.
    let crashed = told(4100, Exit::Signal(11), 4700);
    assert_verdict(&crashed, Cause::BackendCrashed, Confidence::Certain);
}

#[test]
fn crashes_at_unequal_times_and_memory_that_ran_out_are_no_limit() {
    let found = causes(ended_workers(&[900, 2500, 5200], Exit::Signal(9)));
    assert_eq!(found, [Cause::BackendKilled; 3]);
    for (exit, cause) in [
        (Exit::Signal(11), Cause::BackendCrashed),
        (Exit::OutOfMemory, Cause::BackendOom),
    ] {
        let report = judged(ended_workers(&[2000, 2001, 2002], exit)).report;
        assert!(report.incidents.iter().all(|one| one.cause == cause));
        assert_eq!(report.upstreams[0].work_timeout, None);
    }
}

#[test]
fn a_worker_that_exits_while_others_serve_on_was_recycled() {
    for exit in [Exit::Code(0), Exit::Code(1)] {
        let mut records = vec![peer_close(1, 5000, Some(exit))];
        records.extend(cut_off(1, 5000, 200));
        let alone = only(judged(records.clone()));
        assert_eq!(alone.cause, Cause::BackendExited);
        // Another worker.
        let mut sibling = records.clone();
        sibling.push(backend_process(4712, 2000, 8000));
        let incident = only(judged(sibling));
        assert_verdict(&incident, Cause::WorkerRecycled, Confidence::Certain);
        assert!(
            incident.evidence[1].contains("process 4712"),
            "{:?}",
            incident.evidence
        );
        // A connection that was there before.
        let old = connection(60, 900).request(7000).answer(7001).closed(9000);
        records.push(ended(old));
        let incident = only(judged(records));
        assert_verdict(&incident, Cause::WorkerRecycled, Confidence::Likely);
        assert!(incident.advice.unwrap().contains("drain"));
    }
}

#[test]
fn a_worker_seen_only_before_or_only_after_is_no_sibling() {
    for (first, last) in [(2000, 3000), (6000, 8000)] {
        let mut records = vec![
            peer_close(1, 5000, Some(Exit::Code(1))),
            backend_process(4712, first, last),
        ];
        records.extend(cut_off(1, 5000, 200));
        assert_eq!(only(judged(records)).cause, Cause::BackendExited);
    }
}

#[test]
fn a_worker_that_was_killed_while_others_serve_on_was_killed() {
    let mut records = vec![
        peer_close(1, 5000, Some(Exit::Signal(9))),
        backend_process(4712, 2000, 8000),
    ];
    records.extend(cut_off(1, 5000, 200));
    assert_verdict(
        &only(judged(records)),
        Cause::BackendKilled,
        Confidence::Certain,
    );
}

#[test]
fn a_process_that_lives_on_for_a_while_after_it_closed_is_no_sibling_of_itself() {
    // It closes at 5.0 s, answers another connection at 5.2 s, exits at 5.5 s.
    let mut records = vec![peer_close(1, 5000, None)];
    records.extend(cut_off(1, 5000, 200));
    let other = connection(60, 900).request(5200).answer(5201).closed(5400);
    records.extend([ended(other), backend_exit(5500, 4711, Exit::Code(0))]);
    assert_verdict(
        &only(judged(records)),
        Cause::BackendExited,
        Confidence::Likely,
    );
}

#[test]
fn of_workers_of_one_supervisor_no_few_that_agree_by_chance_set_the_limit() {
    let mut records = Vec::new();
    for (index, in_flight) in [839, 817, 801, 895].into_iter().enumerate() {
        let (cookie, ms) = (index as u64 + 1, 5000 + index as u64 * 3000);
        let pid = 800 + u32::try_from(index).unwrap();
        records.push(peer_close_by(pid, cookie, ms, Some(Exit::Signal(6))));
        records.extend(cut_off(cookie, ms, in_flight));
    }
    for incident in judged(records).report.incidents {
        assert_verdict(&incident, Cause::WorkerTimeout, Confidence::Likely);
    }
}

#[test]
fn a_connection_whose_last_request_failed_shows_too_that_others_served_on() {
    let exit = 5000;
    let line = said(exit, PREMATURE, 0, HEADER);
    let cut = connection(1, 4000)
        .request(4000)
        .fin(exit, 0)
        .eof(exit)
        .closed(exit);
    let told = |answered_ms: u64, owner: u32| {
        let other = connection(2, 4500)
            .request(4600)
            .answer(4601)
            .request(answered_ms)
            .answer(answered_ms + 1)
            .request(6000)
            .fin(6500, 0)
            .eof(6500)
            .closed(6500);
        only(judged(vec![
            peer_close(1, exit, Some(Exit::Code(0))),
            line.logged(),
            ended(cut.clone()),
            line.line(),
            peer_close_by(owner, 2, 6500, None),
            ended(other),
        ]))
        .cause
    };
    assert_eq!(told(5200, 4800), Cause::WorkerRecycled);
    // Its own connections that were closed later show nothing.
    assert_eq!(told(4700, 4711), Cause::BackendExited);
}

#[test]
fn a_parent_that_keeps_several_processes_and_starts_another_recycles() {
    let told = |parent_pid: u32| {
        let mut records = Vec::new();
        // Two at the same time, then a third.
        for (cookie, pid, from, to) in [
            (1, 801, 100, 3000),
            (2, 802, 200, 5000),
            (3, 803, 5100, 9000),
        ] {
            let mut close = peer_close_by(pid, cookie, to, None);
            if let Record::PeerClose(close) = &mut close {
                close.parent_pid = parent_pid;
                close.exit = (pid == 802).then_some(Exit::Code(0));
            }
            records.push(close);
            if pid == 802 {
                records.extend(cut_off(cookie, to, 200));
            } else {
                let kept = connection(cookie, from).request(from).answer(from + 1);
                records.push(ended(kept.fin(to, 0).peek(to, IdleEnd::Eof).closed(to)));
            }
        }
        if let Some(Record::Connection(cut)) = records
            .iter_mut()
            .find(|record| matches!(record, Record::Connection(cut) if cut.cookie == 2))
        {
            cut.opened_ns = at(200);
            cut.established_ns = Some(at(200));
        }
        only(judged(records)).cause
    };
    assert_eq!(told(800), Cause::WorkerRecycled);
    // Init's children are services of their own.
    assert_eq!(told(1), Cause::BackendRestart);
}

#[test]
fn lines_with_pids_of_nobody_leave_no_worker_behind() {
    let mut all = beginning();
    let mut line = said(1000, "upstream did something odd", 0, HEADER);
    line.level = 6;
    for pid in 0..500 {
        line.pid = 100_000 + pid;
        all.push(line.line());
    }
    assert_eq!(judge(all.clone()).workers.len(), 0);
    // Of an incident the line may wait for its connection, for a while.
    let mut line = said(5000, PREMATURE, 0, HEADER);
    for pid in 0..500 {
        line.pid = 100_000 + pid;
        all.push(line.line());
    }
    let mut own = said(5000, PREMATURE, 0, HEADER);
    own.pid = PID;
    all.push(own.line());
    all.push(own.logged());
    let anchor = |ms: u64| {
        let realtime_ns = i64::try_from(WALL_S * S + ms * MS).unwrap();
        Record::Anchor(Anchor {
            monotonic_ns: at(ms),
            realtime_ns,
        })
    };
    all.push(anchor(10_000));
    assert_eq!(judge(all.clone()).workers.len(), 501);
    all.push(anchor(100_000));
    let judge = judge(all);
    assert_eq!(judge.workers.len(), 1);
    let summary = judge.finish(Vec::new()).report.summary;
    assert_eq!((summary.lines, summary.foreign_lines), (1, 500));
}
