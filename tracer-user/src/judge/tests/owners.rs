//! Connections whose other end the end of its process closed.

use super::*;

fn kept() -> Connection {
    connection(1, 0).request(1).answer(2)
}

/// In flight for two seconds, then a FIN.
fn cut() -> Connection {
    kept().request(3000).fin(5000, 0).eof(5000).closed(5000)
}

fn premature() -> Said {
    said(5000, PREMATURE, 0, HEADER)
}

/// A line, its connection and the other end's record before it.
fn died(exit: Option<Exit>) -> Incident {
    let line = premature();
    only(judged(vec![
        peer_close(1, 5000, exit),
        line.logged(),
        ended(cut()),
        line.line(),
    ]))
}

#[test]
fn the_way_in_which_the_process_ended_names_the_cause() {
    for (exit, cause, words) in [
        (Exit::Signal(9), Cause::BackendKilled, "SIGKILL (9)"),
        (Exit::Signal(15), Cause::BackendKilled, "SIGTERM (15)"),
        (Exit::Signal(64), Cause::BackendKilled, "signal 64"),
        (Exit::Signal(11), Cause::BackendCrashed, "SIGSEGV (11)"),
        (Exit::Signal(6), Cause::BackendCrashed, "SIGABRT (6)"),
        (Exit::OutOfMemory, Cause::BackendOom, "no memory left"),
        (Exit::Code(3), Cause::BackendExited, "status 3"),
        (Exit::Code(0), Cause::BackendExited, "status 0"),
    ] {
        let incident = died(Some(exit));
        assert_verdict(&incident, cause, Confidence::Certain);
        let told = &incident.evidence[0];
        assert!(
            told.contains(words) && told.contains("process 4711 (app, child of 4700)"),
            "{told}"
        );
        assert!(
            incident
                .evidence
                .iter()
                .any(|one| one.contains("2000.0 ms")),
            "{:?}",
            incident.evidence
        );
    }
}

#[test]
fn a_process_that_closes_by_a_call_and_lives_is_no_cause() {
    let incident = one_by_call(cut(), &premature());
    assert_verdict(&incident, Cause::ClosedWithoutAnswer, Confidence::Certain);
    // Nothing shows that it answers at all.
    assert_verdict(&died(None), Cause::ClosedWithoutAnswer, Confidence::Likely);
}

#[test]
fn a_process_that_closes_by_a_call_and_dies_within_a_second_is_a_likely_one() {
    let told = |exit_ms, pid| {
        let line = premature();
        only(judged(vec![
            peer_close(1, 5000, None),
            line.logged(),
            ended(cut()),
            line.line(),
            backend_exit(exit_ms, pid, Exit::Signal(15)),
        ]))
    };
    let incident = told(5400, 4711);
    assert_verdict(&incident, Cause::BackendKilled, Confidence::Likely);
    assert!(
        incident.evidence[0].contains("400.0 ms later was killed by SIGTERM (15)"),
        "{:?}",
        incident.evidence
    );
    for (exit_ms, pid) in [(6100, 4711), (4900, 4711), (5400, 4712)] {
        assert_eq!(told(exit_ms, pid).cause, Cause::ClosedWithoutAnswer);
    }
}

/// Before Linux 5.15 a child that was starting another program cannot be told from it.
#[test]
fn a_process_that_may_have_had_a_copy_only_is_a_cause_if_it_had_served_before() {
    let told = |earlier: Vec<Record>| {
        let line = premature();
        let mut close = peer_close(1, 5000, None);
        if let Record::PeerClose(close) = &mut close {
            close.may_be_copy = true;
        }
        let mut records = earlier;
        records.extend([
            close,
            line.logged(),
            ended(cut()),
            line.line(),
            backend_exit(5400, 4711, Exit::Code(0)),
        ]);
        only(judged(records))
    };
    let unknown = told(Vec::new());
    assert_verdict(&unknown, Cause::ClosedWithoutAnswer, Confidence::Likely);
    let said = unknown.evidence.join(". ");
    assert!(said.contains("more than a copy of its parent's"), "{said}");
    assert!(!said.contains("exited"), "{said}");
    let served = told(vec![backend_process(4711, 2000, 4000)]);
    assert_verdict(&served, Cause::BackendExited, Confidence::Likely);
}

#[test]
fn the_other_ends_record_may_come_before_or_after_the_line() {
    let line = premature();
    let records = vec![
        peer_close(1, 5000, Some(Exit::Signal(9))),
        line.logged(),
        ended(cut()),
        line.line(),
    ];
    let expected = judged(records.clone());
    for place in 1..4 {
        let mut moved = records.clone();
        let close = moved.remove(0);
        moved.insert(place, close);
        let judged = judged(moved);
        assert_eq!(
            judged.report.incidents, expected.report.incidents,
            "{place}"
        );
        let PeerClose { cookie, .. } = judged.details[0].peer_close.clone().unwrap();
        assert_eq!(cookie, 1);
    }
}

#[test]
fn another_connections_owner_is_not_this_ones() {
    let line = premature();
    let incident = only(judged(vec![
        peer_close(2, 5000, Some(Exit::Signal(9))),
        line.logged(),
        ended(cut()),
        line.line(),
    ]));
    assert_eq!(incident.cause, Cause::ClosedWithoutAnswer);
}

#[test]
fn a_process_that_died_while_the_connection_was_idle_outranks_staleness() {
    let line = premature();
    let stale = kept().fin(4900, 0).request(4999).eof(5000).closed(5000);
    let incident = only(judged(vec![
        peer_close(1, 4900, Some(Exit::Signal(9))),
        line.logged(),
        ended(stale),
        line.line(),
    ]));
    assert_verdict(&incident, Cause::BackendKilled, Confidence::Certain);
    assert_eq!(
        incident.phase.word(),
        "idle",
        "the phase stays that of the socket"
    );
}

#[test]
fn a_process_that_died_in_the_middle_of_its_response_outranks_its_abort() {
    let line = said(5000, PREMATURE, 0, BODY);
    let half = kept()
        .request(3000)
        .answer(3100)
        .fin(5000, 0)
        .eof(5000)
        .closed(5000);
    let incident = only(judged(vec![
        peer_close(1, 5000, Some(Exit::Signal(11))),
        line.logged(),
        ended(half),
        line.line(),
    ]));
    assert_verdict(&incident, Cause::BackendCrashed, Confidence::Certain);
}

#[test]
fn a_timer_and_a_client_that_left_stay_what_nginx_says() {
    let mut client = said(
        5000,
        "epoll_wait() reported that client prematurely closed connection, so upstream connection \
         is closed too",
        0,
        HEADER,
    );
    client.level = 7;
    for (line, cause) in [
        (
            said(5000, "upstream timed out", 110, HEADER),
            Cause::ReadTimeout,
        ),
        (client, Cause::ClientAbort),
    ] {
        // The end was there, but nginx gave up for its own reason.
        let waiting = kept().request(3000).fin(4999, 0).closed(5000);
        let incident = only(judged(vec![
            line.logged(),
            ended(waiting),
            peer_close(1, 5000, Some(Exit::Signal(9))),
            line.line(),
        ]));
        assert_eq!(incident.cause, cause);
    }
}

#[test]
fn a_line_without_its_connection_has_no_owner() {
    let line = premature();
    let incident = only(judged(vec![
        peer_close(1, 5000, Some(Exit::Signal(9))),
        line.line(),
    ]));
    assert_verdict(&incident, Cause::ClosedWithoutAnswer, Confidence::Possible);
}

#[test]
fn bytes_that_the_process_left_unread_are_named() {
    let line = premature();
    let mut close = peer_close(1, 5000, Some(Exit::Signal(9)));
    if let Record::PeerClose(close) = &mut close {
        close.unread_bytes = 80;
    }
    let incident = only(judged(vec![
        close,
        line.logged(),
        ended(cut()),
        line.line(),
    ]));
    assert!(
        incident.evidence.iter().any(|one| one.contains("80 bytes")),
        "{:?}",
        incident.evidence
    );
}

#[test]
fn advice_to_retry_is_given_only_where_nginx_may_not() {
    let advice = |set: Option<&str>| {
        let mut nginx = nginx();
        let mut location = ProxyLocation {
            pass: "http://app".to_owned(),
            ..Default::default()
        };
        if let Some(set) = set {
            location
                .settings
                .insert("proxy_next_upstream".to_owned(), set.to_owned());
        }
        nginx
            .configuration
            .as_mut()
            .unwrap()
            .locations
            .push(location);
        let line = premature();
        let mut records = beginning_with(nginx);
        records.extend([
            peer_close(1, 5000, Some(Exit::Signal(9))),
            line.logged(),
            ended(cut()),
            line.line(),
        ]);
        only(judge(records).finish(Vec::new())).advice.unwrap()
    };
    assert!(advice(Some("off")).contains("proxy_next_upstream is `off`"));
    for set in [Some("error timeout"), None] {
        assert!(!advice(set).contains("proxy_next_upstream"));
    }
}

#[test]
fn a_process_that_closes_connections_until_it_ends_may_take_longer() {
    let told = |more: Option<Record>| {
        let line = premature();
        let mut records = vec![
            peer_close(1, 5000, None),
            line.logged(),
            ended(cut()),
            line.line(),
        ];
        if let Some(close) = more {
            records.extend([
                close,
                ended(
                    connection(2, 100)
                        .request(100)
                        .answer(101)
                        .fin(6900, 0)
                        .eof(6900)
                        .closed(6900),
                ),
            ]);
        }
        records.push(backend_exit(7000, 4711, Exit::Signal(15)));
        only(judged(records))
    };
    assert_eq!(told(None).cause, Cause::ClosedWithoutAnswer);
    let incident = told(Some(peer_close(2, 6900, None)));
    assert_verdict(&incident, Cause::BackendKilled, Confidence::Possible);
}

#[test]
fn what_becomes_of_a_servers_child_says_nothing_of_the_server() {
    let line = premature();
    let told = |server: Record| {
        only(judged(vec![
            server,
            served(50, 100, 5),
            // exec() of the child 4711 closed its copy.
            peer_close(1, 5000, None),
            line.logged(),
            ended(cut()),
            line.line(),
            backend_exit(5400, 4711, Exit::OutOfMemory),
        ]))
        .cause
    };
    assert_eq!(
        told(backend_process(4700, 100, 8000)),
        Cause::ClosedWithoutAnswer
    );
    assert_eq!(told(backend_process(4800, 100, 8000)), Cause::BackendOom);
}

#[test]
fn at_the_end_of_a_trace_that_was_cut_off_no_process_lived_on() {
    let records = || {
        let mut records = vec![served(9_000, 10, 5), peer_close(1, 4999, None)];
        records.extend(cut_off(1, 5000, 300));
        records
    };
    let says =
        |incident: &Incident, part: &str| incident.evidence.iter().any(|said| said.contains(part));
    let cut = only(judged(records()));
    assert_verdict(&cut, Cause::ClosedWithoutAnswer, Confidence::Likely);
    assert!(says(&cut, "may have ended soon after"), "{cut:#?}");
    for last in [the_end(), served(9_001, 6100, 5)] {
        let mut records = records();
        records.push(last);
        let whole = only(judged(records));
        assert_verdict(&whole, Cause::ClosedWithoutAnswer, Confidence::Certain);
        assert!(says(&whole, "and lived on"), "{whole:#?}");
    }
}
