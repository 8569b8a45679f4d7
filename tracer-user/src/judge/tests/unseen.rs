//! Lines that were not seen being written: matched by their order.

use proptest::prelude::*;

use super::properties::{Captured, captured, events, interleaved};
use super::*;
use crate::trace::record::Loss;

/// No line of this nginx is seen being written.
fn blind(records: Vec<Record>) -> Judged {
    let mut all = beginning_with(Nginx {
        log_calls_seen: false,
        ..nginx()
    });
    all.extend(records);
    judge(all).finish(Vec::new())
}

/// A stale connection, as the kernel without a uprobe records it.
fn stale(cookie: u64, ms: u64) -> Connection {
    let stale = connection(cookie, ms - 900)
        .request(ms - 900)
        .answer(ms - 899)
        .fin(ms - 5, 0)
        .request(ms - 1)
        .eof(ms)
        .closed(ms);
    Connection {
        line_ns: None,
        ..stale
    }
}

fn premature(ms: u64) -> Said {
    said(ms, PREMATURE, 0, HEADER)
}

#[track_caller]
fn matches(judged: &Judged) -> Vec<(Match, Option<u32>, Option<u64>)> {
    let of = |incident: &Incident| {
        let connection = incident.connection.as_ref();
        let cookie = connection.map(|found| found.cookie);
        (incident.matched, incident.candidates, cookie)
    };
    judged.report.incidents.iter().map(of).collect()
}

#[test]
fn a_line_with_one_connection_that_can_be_its_own_has_its_verdict_for_certain() {
    let incident = only(blind(vec![ended(stale(1, 5000)), premature(5000).line()]));
    assert_eq!(
        (incident.matched, incident.candidates),
        (Match::Ordered, Some(1))
    );
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Certain);
}

#[test]
fn lines_of_one_second_take_their_connections_in_order() {
    let records = vec![
        ended(stale(1, 5000)),
        ended(stale(2, 5003)),
        ended(stale(3, 5400)),
        premature(5000).line(),
        premature(5003).line(),
        premature(5400).line(),
    ];
    let judged = blind(records);
    let expected = [1, 2, 3].map(|cookie| (Match::Ordered, Some(1), Some(cookie)));
    assert_eq!(matches(&judged), expected);
    for incident in &judged.report.incidents {
        assert_verdict(incident, Cause::StaleKeepalive, Confidence::Likely);
    }
}

#[test]
fn a_line_that_may_be_about_two_connections_says_so_and_is_possible_at_most() {
    let records = vec![
        ended(stale(1, 5000)),
        ended(stale(2, 5010)),
        premature(5010).line(),
    ];
    let incident = only(blind(records));
    assert_eq!(
        (incident.matched, incident.candidates),
        (Match::Window, Some(2))
    );
    assert_eq!(incident.confidence, Confidence::Possible);
    assert!(
        incident
            .evidence
            .iter()
            .any(|one| one.contains("one of 2 connections")),
        "{:?}",
        incident.evidence
    );
}

#[test]
fn no_connection_is_taken_that_shows_something_else() {
    let pooled = connection(1, 100).request(100).answer(101).closed(5000);
    let found_idle = connection(2, 100)
        .request(100)
        .answer(101)
        .fin(5000, 0)
        .peek(5000, IdleEnd::Eof)
        .closed(5000);
    let mut of_another = stale(3, 5000);
    of_another.remote = "127.0.0.1:9102".parse().unwrap();
    let mut of_another_worker = stale(4, 5000);
    of_another_worker.pid = PID + 1;
    let too_early = stale(5, 2000);
    let still_to_come = stale(6, 5200);
    for other in [
        pooled,
        found_idle,
        of_another,
        of_another_worker,
        too_early,
        still_to_come,
    ] {
        let cookie = other.cookie;
        let incident = only(blind(vec![ended(other), premature(5000).line()]));
        assert_eq!(incident.matched, Match::None, "{cookie}");
        assert_ne!(incident.confidence, Confidence::Certain);
    }
}

#[test]
fn a_good_close_among_the_failures_is_nobodys() {
    let mut records = Vec::new();
    for index in 0..40u64 {
        let ms = 5000 + index * 7;
        records.push(ended(stale(2 * index + 1, ms)));
        let good = connection(2 * index + 2, ms - 50)
            .request(ms - 50)
            .answer(ms + 1);
        records.push(ended(good.closed(ms + 2)));
    }
    records.extend((0..40u64).map(|index| premature(5000 + index * 7).line()));
    let judged = blind(records);
    let right = (0..40u64).map(|index| (Match::Ordered, Some(1), Some(2 * index + 1)));
    assert!(matches(&judged).into_iter().eq(right));
}

#[test]
fn lines_of_two_logs_have_no_order_between_them() {
    let mut other = premature(5000);
    other.file = "/var/log/nginx/app.log";
    other.request = "GET /b HTTP/1.1".to_owned();
    let records = vec![
        ended(stale(1, 5000)),
        ended(stale(2, 5003)),
        premature(5003).line(),
        other.line(),
    ];
    let judged = blind(records);
    for incident in &judged.report.incidents {
        assert_eq!(incident.matched, Match::Window, "{incident:#?}");
        assert_eq!(incident.confidence, Confidence::Possible);
    }
}

#[test]
fn sightings_lost_for_a_while_weaken_that_worker_alone() {
    let mut records = Vec::new();
    for (cookie, ms, pid, seen) in [
        (1, 3000, PID, true),
        (2, 6000, PID, false),
        (3, 6100, PID + 1, true),
        (4, 12_000, PID, true),
    ] {
        let mut said = premature(ms);
        said.pid = pid;
        said.number = cookie;
        let mut connection = connection(cookie, ms - 900)
            .request(ms - 900)
            .answer(ms - 899)
            .fin(ms - 5, 0)
            .request(ms - 1)
            .eof(ms)
            .closed(ms);
        (connection.pid, connection.tid) = (pid, pid);
        if seen {
            records.push(said.logged());
        }
        records.extend([ended(connection), said.line()]);
        if !seen {
            records.push(Record::Loss(Loss {
                ns: at(6500),
                what: "logged_records".to_owned(),
                count: 1,
            }));
        }
    }
    let judged = judged(records);
    let found: Vec<_> = judged
        .report
        .incidents
        .iter()
        .map(|one| (one.matched, one.confidence))
        .collect();
    let exact = (Match::Exact, Confidence::Certain);
    assert_eq!(found[0], exact);
    assert_eq!(found[1].0, Match::Ordered);
    assert!(found[1].1 > Confidence::Certain);
    assert_eq!(found[2], exact);
    assert_eq!(found[3], exact);
}

/// The incident's connection can have had this line: it is this worker's, to this
/// backend, and failed as the truth of some line of that kind says.
fn is_compatible(incident: &Incident, captured: &Captured) -> bool {
    let Some(found) = &incident.connection else {
        return true;
    };
    let (_, cause) = captured.truth[&incident.line.offset];
    let of = |cookie| captured.truth.values().find(|(one, _)| *one == cookie);
    let timer = cause == Cause::ReadTimeout;
    found.worker_pid == incident.line.pid
        && of(found.cookie).is_some_and(|(_, other)| (*other == Cause::ReadTimeout) == timer)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn with_nothing_missing_each_line_finds_its_connection(
        events in events(), batch_ms in 1u64..900,
    ) {
        let captured = captured(&events);
        let mut records = interleaved(&captured, batch_ms);
        records.retain(|record| !matches!(record, Record::Logged(_)));
        for incident in &blind(records).report.incidents {
            let (cookie, cause) = captured.truth[&incident.line.offset];
            let found = incident.connection.as_ref().map(|found| found.cookie);
            prop_assert_eq!(found, Some(cookie), "{:#?}", incident);
            prop_assert_eq!(incident.matched, Match::Ordered);
            prop_assert!(incident.confidence != Confidence::Certain || incident.cause == cause);
        }
    }

    #[test]
    fn whatever_is_missing_no_line_takes_what_cannot_be_its_own(
        events in events(),
        batch_ms in 1u64..300,
        lost in proptest::collection::vec(0u8..6, 60),
    ) {
        let captured = captured(&events);
        let mut lost = lost.into_iter().cycle();
        let mut losses = Vec::new();
        let mut records = interleaved(&captured, batch_ms);
        records.retain(|record| match (record, lost.next()) {
            (Record::Logged(_), _) | (Record::Line(_), Some(0)) => false,
            (Record::Connection(connection), Some(1)) => {
                losses.push(Record::Loss(Loss {
                    ns: connection.ended_ns + 500 * MS,
                    what: "connection_records".to_owned(),
                    count: 1,
                }));
                false
            }
            _ => true,
        });
        records.extend(losses);
        for incident in &blind(records).report.incidents {
            prop_assert!(is_compatible(incident, &captured), "{:#?}", incident);
            let (cookie, cause) = captured.truth[&incident.line.offset];
            let right = incident.connection.as_ref().is_none_or(|found| found.cookie == cookie);
            let certain = incident.confidence == Confidence::Certain;
            prop_assert!(right || !certain, "{:#?}", incident);
            prop_assert!(!certain || incident.cause == cause, "{:#?}", incident);
            if incident.matched == Match::Window {
                prop_assert_eq!(incident.confidence, Confidence::Possible);
            }
        }
    }
}
