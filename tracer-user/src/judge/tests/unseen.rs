//! Lines that were not seen being written: matched by their order.

use proptest::prelude::*;

use super::properties::{Captured, captured, events, interleaved};
use super::*;
use crate::judge::alignment::Pair;
use crate::judge::unseen::leave_some_out;
use crate::trace::record::{ConnectionEnd, Loss};

/// No line of this nginx is seen being written.
fn blind(records: Vec<Record>) -> Judged {
    blind_with(&[], records)
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
                since_ns: None,
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

const TIMED_OUT: &str = "upstream timed out";

/// A request sent at once, part of an answer after so long, and nginx's close.
fn begun_answer(cookie: u64, opened_ms: u64, part_ms: u64, closed_ms: u64) -> Connection {
    let begun = connection(cookie, opened_ms).request(opened_ms);
    begun.answer(part_ms).closed(closed_ms)
}

#[test]
fn a_timer_in_the_middle_of_a_head_finds_the_connection_that_was_silent_for_so_long() {
    let line = || said(5000, TIMED_OUT, 110, HEADER).line();
    let records = vec![
        // In nginx's pool for less and for longer.
        ended(begun_answer(1, 1000, 4100, 4999)),
        ended(begun_answer(2, 900, 1000, 4999)),
        ended(begun_answer(3, 1000, 3000, 5000)),
        line(),
    ];
    let settings = [("proxy_read_timeout", "1900ms")];
    let incident = only(blind_with(&settings, records.clone()));
    assert_eq!(incident.connection.as_ref().unwrap().cookie, 3);
    assert_eq!(
        (incident.matched, incident.candidates),
        (Match::Ordered, Some(1))
    );
    assert_verdict(&incident, Cause::ReadTimeout, Confidence::Certain);
    // A pool that closes after as long shows the same; so may any where the timer is not
    // known.
    for incident in [
        only(blind_with(
            &[("proxy_read_timeout", "60s")],
            records.clone(),
        )),
        only(blind(records)),
    ] {
        assert_eq!(incident.matched, Match::None);
        assert_verdict(&incident, Cause::ReadTimeout, Confidence::Likely);
    }
}

#[test]
fn a_request_without_an_answer_goes_before_one_with_a_part_of_it() {
    let records = vec![
        ended(begun_answer(1, 1000, 3000, 4999)),
        ended(connection(2, 3000).request(3000).closed(5000)),
        said(5000, TIMED_OUT, 110, HEADER).line(),
    ];
    let settings = [("proxy_read_timeout", "2s")];
    let incident = only(blind_with(&settings, records));
    assert_eq!(incident.connection.unwrap().cookie, 2);
}

#[test]
fn what_became_of_a_request_is_known_by_the_workers_next_step_alone() {
    let fates = |records| -> Vec<_> {
        let of = |one: &Incident| (one.matched, one.retried, one.served, one.request_group);
        blind(records).report.incidents.iter().map(of).collect()
    };
    let of_one = |next| {
        vec![
            ended(stale(1, 5000)),
            then(1, 5000, next, 2),
            premature(5000).line(),
        ]
    };
    let known = |yes| [(Match::Ordered, Some(yes), Some(yes), 1)];
    assert_eq!(fates(of_one(Next::Connect)), known(true));
    assert_eq!(fates(of_one(Next::OtherSend)), known(false));
    // The client was answered before it asked the same again.
    let mut twice = of_one(Next::OtherSend);
    twice.extend([
        ended(stale(2, 5400)),
        then(2, 5400, Next::OtherSend, 0),
        premature(5400).line(),
    ]);
    let expected = [1, 2].map(|group| (Match::Ordered, Some(false), Some(false), group));
    assert_eq!(fates(twice), expected);
    // One of two connections, whose next steps differ.
    let either = vec![
        ended(stale(1, 5010)),
        then(1, 5010, Next::Connect, 2),
        ended(stale(3, 5020)),
        then(3, 5020, Next::OtherSend, 0),
        premature(5020).line(),
    ];
    assert_eq!(fates(either), [(Match::Window, None, None, 1)]);
}

/// Over TLS, where no handshake is told from requests: two flights, and so many requests
/// with answers.
fn tls_kept(cookie: u64, requests: u64) -> Connection {
    (0..2 + requests).fold(connection(cookie, 4000), |connection, number| {
        connection.request(4000 + number).answer(4001 + number)
    })
}

fn over_tls(line: Said) -> Said {
    Said {
        upstream: format!("https://{PEER}/a"),
        ..line
    }
}

#[test]
fn a_goodbye_that_was_there_before_the_request_is_no_answer_to_it() {
    for (requests, means) in [(1, None), (3, Some(true))] {
        let mut stale = tls_kept(1, requests).fin(4700, 0).request(4705);
        stale = stale.answer(4706).closed(4706);
        stale.response_bytes = 24;
        let incident = only(blind(vec![ended(stale), over_tls(premature(4706)).line()]));
        assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Likely);
        assert_eq!(incident.connection.unwrap().reused, means);
    }
    // The handshake's end and the request follow each other at once.
    let fresh = connection(1, 4000).request(4000).answer(4001);
    let mut fresh = fresh.fin(4001, 0).request(4001).answer(4002).closed(4002);
    fresh.response_bytes = 24;
    let incident = only(blind(vec![ended(fresh), over_tls(premature(4002)).line()]));
    assert_ne!(incident.cause, Cause::StaleKeepalive);
}

#[test]
fn a_reset_long_after_the_last_flight_met_a_connection_in_the_pool() {
    let line = |ms| over_tls(said(ms, "connect() failed", 104, CONNECTING)).line();
    let reset = |connection: Connection, ms: u64, found_ms: u64| Connection {
        socket_error: Some(104),
        end: ConnectionEnd::Destroyed,
        ..connection.rst(ms, 0).closed(found_ms)
    };
    let pooled = reset(tls_kept(1, 1), 4240, 4250);
    let incident = only(blind(vec![ended(pooled), line(4250)]));
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Likely);
    // The worker was kept from working on a handshake that was reset at once.
    let fresh = reset(tls_kept(1, 0), 4003, 4250);
    let incident = only(blind(vec![ended(fresh), line(4250)]));
    assert_ne!(incident.cause, Cause::StaleKeepalive);
}

#[test]
fn a_goaway_that_was_there_before_the_request_finds_its_connection() {
    // Answered, taken leave of while idle, called again: the GOAWAY is read only then.
    let kept = || connection(1, 0).request(1).answer(2).fin(4700, 0);
    let kept = || kept().request(4990).answer(5000).closed(5000);
    let said_grpc = |message| Said {
        upstream: format!("grpc://{PEER}"),
        ..said(5000, message, 0, HEADER)
    };
    let incident = only(blind(vec![
        ended(kept()),
        said_grpc("upstream sent goaway with error 0").line(),
    ]));
    assert_eq!(
        (incident.matched, incident.candidates),
        (Match::Ordered, Some(1))
    );
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Likely);
    // What answers a request does not come before it.
    let incident = only(blind(vec![
        ended(kept()),
        said_grpc("upstream rejected request with error 7").line(),
    ]));
    assert_eq!(incident.matched, Match::None);
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
    #![proptest_config(cases(200))]

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
                    since_ns: None,
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

/// Connections that nginx closed after whole answers, so many in each millisecond.
fn ordinary(from_ms: u64, to_ms: u64, each: u64) -> Vec<Record> {
    (from_ms..to_ms)
        .flat_map(|ms| (0..each).map(move |index| (ms, 100_000 + ms * each + index)))
        .map(|(ms, cookie)| {
            let served = connection(cookie, ms - 10).request(ms - 10).answer(ms - 9);
            ended(served.closed(ms))
        })
        .collect()
}

#[test]
fn thousands_of_closes_a_second_do_not_take_a_lines_own_away() {
    let mut records = ordinary(3000, 5000, 3);
    records.extend([ended(stale(1, 5000)), premature(5000).line()]);
    for record in ordinary(5001, 8000, 3) {
        records.push(record);
    }
    let judged = blind(records);
    assert_eq!(matches(&judged), [(Match::Ordered, Some(1), Some(1))]);
    assert_verdict(
        &judged.report.incidents[0],
        Cause::StaleKeepalive,
        Confidence::Certain,
    );
    let says = |part: &str| judged.report.notes.iter().any(|note| note.contains(part));
    assert!(!says("too many connections"), "{:?}", judged.report.notes);
}

#[test]
fn more_closes_than_can_be_kept_are_said_and_nothing_is_claimed_of_them() {
    let mut records = vec![ended(stale(1, 5000)), premature(5000).line()];
    records.extend(ordinary(5001, 8000, 20));
    let judged = blind(records);
    let incident = &judged.report.incidents[0];
    assert_eq!(incident.matched, Match::None);
    let says = |part: &str| incident.evidence.iter().any(|said| said.contains(part));
    assert!(says("too many connections of its worker"), "{incident:#?}");
    assert!(!says("no connection of its worker"), "{incident:#?}");
    let note = |part: &str| judged.report.notes.iter().any(|note| note.contains(part));
    assert!(note("1 line was not seen being written while too many"));
}

#[test]
fn of_many_lines_at_once_each_takes_its_own_connection() {
    let mut records = Vec::new();
    for index in 0..3000u64 {
        records.push(ended(stale(index + 1, 5000 + index)));
        let mut line = premature(5000 + index);
        line.number = index;
        records.push(line.line());
    }
    let judged = blind(records);
    let right = (1..=3000u64).map(|cookie| (Match::Ordered, Some(1), Some(cookie)));
    let got = matches(&judged);
    let wrong = got.iter().zip(right).filter(|(got, right)| *got != right);
    assert_eq!(got.len(), 3000);
    assert_eq!(wrong.count(), 0);
}

proptest! {
    #![proptest_config(cases(50))]

    #[test]
    fn too_many_candidates_keep_the_heaviest_and_the_last(
        weights in proptest::collection::vec(-80i32..100, 900..1500),
    ) {
        let all: Vec<Pair> = weights
            .iter()
            .enumerate()
            .map(|(close, weight)| Pair { close, weight: *weight })
            .collect();
        let mut kept = all.clone();
        let crowded = leave_some_out(&mut kept, 1024);
        prop_assert!(kept.windows(2).all(|two| two[0].close < two[1].close));
        prop_assert_eq!(kept.len(), all.len().min(1024));
        let left: Vec<&Pair> = all.iter().filter(|pair| !kept.contains(pair)).collect();
        let least = kept.iter().map(|pair| pair.weight).min();
        prop_assert!(left.iter().all(|pair| Some(pair.weight) <= least));
        let best = weights.iter().max().copied().unwrap_or(0);
        let matters = left.iter().any(|pair| pair.weight >= best - 50);
        prop_assert_eq!(crowded, matters);
    }
}

#[test]
fn of_more_lines_than_can_be_told_apart_none_claims_a_connection_that_is_not_its_own() {
    let mut records = Vec::new();
    for index in 0..6000u64 {
        let ms = 5000 + index / 3;
        records.push(ended(stale(index + 1, ms)));
        let mut line = premature(ms);
        line.number = index;
        records.push(line.line());
    }
    let judged = blind(records);
    let mut unmatched = 0;
    for (incident, right) in judged.report.incidents.iter().zip(1u64..) {
        let found = incident.connection.as_ref().map(|found| found.cookie);
        unmatched += u64::from(found.is_none());
        let claimed = incident.matched == Match::Ordered;
        assert!(!claimed || found == Some(right), "{incident:#?}");
        assert!(claimed || incident.confidence == Confidence::Possible);
    }
    assert!(unmatched < 600, "{unmatched}");
}
