//! Lines, sightings and closes: which belong together.

use super::*;

fn timeout(ms: u64, number: u64) -> Said {
    Said {
        number,
        ..said(ms, "upstream timed out", 110, HEADER)
    }
}

fn waiting(cookie: u64, ms: u64) -> Connection {
    connection(cookie, 0).request(1).closed(ms)
}

#[track_caller]
fn cookies(judged: &Judged) -> Vec<Option<u64>> {
    let of = |incident: &Incident| incident.connection.as_ref().map(|found| found.cookie);
    judged.report.incidents.iter().map(of).collect()
}

#[test]
fn a_line_read_long_after_other_closes_keeps_its_own() {
    let (first, second) = (timeout(5000, 7), timeout(5001, 8));
    let records = vec![
        first.logged(),
        ended(waiting(1, 5000)),
        second.logged(),
        ended(waiting(2, 5001)),
        first.line(),
        second.line(),
    ];
    assert_eq!(cookies(&judged(records)), [Some(1), Some(2)]);
}

#[test]
fn a_line_may_come_before_its_sighting() {
    let line = timeout(5000, 7);
    let records = vec![line.line(), line.logged(), ended(waiting(1, 5000))];
    assert_eq!(cookies(&judged(records)), [Some(1)]);
}

#[test]
fn the_next_lines_connection_is_not_taken_for_one_whose_record_was_lost() {
    let (first, second) = (timeout(5000, 7), timeout(5001, 8));
    let records = vec![
        first.logged(),
        second.logged(),
        ended(waiting(2, 5001)),
        first.line(),
        second.line(),
    ];
    assert_eq!(cookies(&judged(records)), [None, Some(2)]);
}

#[test]
fn a_pooled_connection_that_closes_next_is_not_the_lines() {
    let line = timeout(5000, 7);
    let pooled = connection(3, 0).request(1).answer(2).closed(5100);
    let records = vec![line.logged(), ended(pooled), line.line()];
    assert_eq!(cookies(&judged(records)), [None]);
}

#[test]
fn a_lost_sighting_among_equal_lines_leaves_both_without_a_connection() {
    let (first, second) = (timeout(5000, 7), timeout(5001, 7));
    let records = vec![
        ended(waiting(1, 5000)),
        second.logged(),
        ended(waiting(2, 5001)),
        first.line(),
        second.line(),
    ];
    assert_eq!(cookies(&judged(records)), [None, None]);
}

#[test]
fn the_same_line_in_two_logs_is_one_incident() {
    let line = timeout(5000, 7);
    let other = Said {
        file: "/var/log/nginx/app.log",
        ..line.clone()
    };
    let records = vec![
        line.logged(),
        ended(waiting(1, 5000)),
        line.line(),
        other.line(),
    ];
    let judged = judged(records);
    assert_eq!(cookies(&judged), [Some(1)]);
    assert!(
        judged.report.notes[0].contains("two logs"),
        "{:?}",
        judged.report.notes
    );
}

#[test]
fn a_warning_between_line_and_close_changes_nothing() {
    let line = said(5000, PREMATURE, 0, HEADER);
    let warning = Said {
        level: 5,
        ..said(5000, "upstream server temporarily disabled", 0, HEADER)
    };
    let failed = connection(1, 0)
        .request(1)
        .fin(5000, 0)
        .eof(5000)
        .closed(5000);
    let records = vec![
        line.logged(),
        warning.logged(),
        ended(failed),
        line.line(),
        warning.line(),
    ];
    assert_eq!(cookies(&judged(records)), [Some(1)]);
}

#[test]
fn another_threads_line_takes_no_connection_of_the_workers() {
    let line = timeout(5000, 7);
    let Record::Logged(mut pooled) = timeout(5000, 9).logged() else {
        unreachable!()
    };
    pooled.tid = 5555;
    let records = vec![
        line.logged(),
        Record::Logged(pooled),
        ended(waiting(1, 5000)),
        line.line(),
        timeout(5000, 9).line(),
    ];
    assert_eq!(cookies(&judged(records)), [Some(1), None]);
}

#[test]
fn a_step_of_the_wall_clock_parts_no_line_from_its_sighting() {
    let line = timeout(5000, 7);
    let step = Record::Anchor(Anchor {
        monotonic_ns: at(4000),
        realtime_ns: i64::try_from(WALL_S * S + 1804 * S).unwrap(),
    });
    let records = vec![step, line.logged(), ended(waiting(1, 5000)), line.line()];
    let judged = judged(records);
    assert_eq!(cookies(&judged), [Some(1)]);
    assert!(
        judged.report.notes[0].contains("stepped"),
        "{:?}",
        judged.report.notes
    );
}

#[test]
fn without_the_uprobe_lines_are_told_while_the_capture_runs() {
    let mut judge = Judge::default();
    let blind = Nginx {
        log_calls_seen: false,
        ..nginx()
    };
    for record in beginning_with(blind) {
        judge.push(&record);
    }
    judge.push(&ended(waiting(1, 5000)));
    judge.push(&timeout(5000, 7).line());
    assert!(judge.fresh().is_empty());
    judge.push(&Record::Anchor(Anchor {
        monotonic_ns: at(8000),
        realtime_ns: i64::try_from((WALL_S + 8) * S).unwrap(),
    }));
    let fresh = judge.fresh();
    assert_eq!(fresh.len(), 1);
    assert_eq!(
        (fresh[0].matched, fresh[0].candidates),
        (Match::Ordered, Some(1))
    );
}

#[test]
fn hours_of_lines_that_nobody_follows_take_bounded_memory() {
    let mut judge = Judge::default();
    for index in 0..30_000u64 {
        judge.push(&timeout(index, index + 1).logged());
        judge.push(&then(index, index, Next::OtherSend, 0));
    }
    assert!(judge.continuations.values.len() <= 16_384);
    let report = judge.finish(Vec::new()).report;
    assert!(report.incidents.is_empty());
}
