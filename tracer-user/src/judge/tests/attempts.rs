//! Retries, requests and what the client got.

use super::*;

fn stale(cookie: u64, ms: u64) -> Connection {
    let kept = connection(cookie, 0).request(1).answer(2);
    kept.fin(ms - 5, 0).request(ms - 1).eof(ms).closed(ms)
}

fn line(ms: u64) -> Said {
    said(ms, PREMATURE, 0, HEADER)
}

fn fates(judged: &Judged) -> Vec<(Option<bool>, Option<bool>, u64)> {
    let of = |one: &Incident| (one.retried, one.served, one.request_group);
    judged.report.incidents.iter().map(of).collect()
}

#[test]
fn a_get_that_is_retried_is_served_and_a_post_is_not() {
    let line = line(5000);
    let get = [line.logged(), ended(stale(1, 5000)), line.line()];
    let mut retried = get.to_vec();
    retried.push(then(1, 5000, Next::Connect, 2));
    assert_eq!(fates(&judged(retried)), [(Some(true), Some(true), 1)]);
    let mut answered = get.to_vec();
    answered.push(then(1, 5000, Next::OtherSend, 0));
    assert_eq!(fates(&judged(answered)), [(Some(false), Some(false), 1)]);
}

#[test]
fn what_became_of_a_request_is_unknown_without_the_workers_next_step() {
    let line = line(5000);
    let records = vec![line.logged(), ended(stale(1, 5000)), line.line()];
    assert_eq!(fates(&judged(records)), [(None, None, 1)]);
}

#[test]
fn a_step_long_after_the_close_is_not_its_consequence() {
    let line = line(5000);
    let mut late = then(1, 5000, Next::Connect, 2);
    if let Record::Continuation(late) = &mut late {
        late.next_ns += S;
    }
    let records = vec![line.logged(), ended(stale(1, 5000)), line.line(), late];
    assert_eq!(fates(&judged(records)), [(None, None, 1)]);
}

#[test]
fn several_stale_connections_in_one_request_are_one_request() {
    let (first, second) = (line(5000), line(5001));
    let mut again = stale(2, 5001);
    again.request_started_ns = Some(at(5000) + 40_000);
    let records = vec![
        first.logged(),
        ended(stale(1, 5000)),
        then(1, 5000, Next::Reuse, 2),
        second.logged(),
        ended(again),
        then(2, 5001, Next::Connect, 3),
        first.line(),
        second.line(),
    ];
    let expected = [(Some(true), Some(true), 1), (Some(true), Some(true), 1)];
    assert_eq!(fates(&judged(records)), expected);
}

#[test]
fn a_client_that_sends_the_same_request_again_makes_another_request() {
    let (first, second) = (line(5000), line(5001));
    let records = vec![
        first.logged(),
        ended(stale(1, 5000)),
        then(1, 5000, Next::OtherSend, 0),
        second.logged(),
        ended(stale(2, 5001)),
        then(2, 5001, Next::OtherSend, 0),
        first.line(),
        second.line(),
    ];
    let expected = [(Some(false), Some(false), 1), (Some(false), Some(false), 2)];
    assert_eq!(fates(&judged(records)), expected);
}

#[test]
fn a_retry_that_was_answered_and_whose_connection_failed_later_is_no_part_of_it() {
    let (first, second) = (line(5000), line(9000));
    let records = vec![
        first.logged(),
        ended(stale(1, 5000)),
        then(1, 5000, Next::Connect, 2),
        first.line(),
        second.logged(),
        ended(stale(2, 9000)),
        then(2, 9000, Next::OtherSend, 0),
        second.line(),
    ];
    let expected = [(Some(true), Some(true), 1), (Some(false), Some(false), 2)];
    assert_eq!(fates(&judged(records)), expected);
}

#[test]
fn a_retry_without_an_answer_served_nobody() {
    let line = line(5000);
    let mut retry = connection(2, 5000).request(5000).closed(6000);
    retry.opened_ns = at(5000) + 40_000;
    retry.request_started_ns = Some(at(5000) + 50_000);
    let records = vec![
        line.logged(),
        ended(stale(1, 5000)),
        then(1, 5000, Next::Connect, 2),
        ended(retry),
        line.line(),
    ];
    assert_eq!(fates(&judged(records)), [(Some(true), None, 1)]);
}

#[test]
fn a_later_line_whose_connection_is_not_known_leaves_the_outcome_open() {
    let (first, second) = (line(5000), line(5400));
    let records = vec![
        first.logged(),
        ended(stale(1, 5000)),
        then(1, 5000, Next::Connect, 2),
        second.logged(),
        first.line(),
        second.line(),
    ];
    let judged = judged(records);
    assert_eq!(fates(&judged)[0], (Some(true), None, 1));
}

#[test]
fn a_subrequests_next_step_may_be_another_subrequests() {
    let mut line = line(5000);
    line.request = "GET /a HTTP/1.1\", subrequest: \"/part".to_owned();
    let records = vec![
        line.logged(),
        ended(stale(1, 5000)),
        then(1, 5000, Next::Connect, 2),
        line.line(),
    ];
    assert_eq!(fates(&judged(records)), [(None, None, 1)]);
}
