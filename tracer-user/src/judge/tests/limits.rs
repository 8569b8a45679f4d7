//! Limits on a connection's requests, and connections that tell against them.

use super::*;

/// A connection with two requests that were answered.
fn twice(cookie: u64) -> Connection {
    let begun = 100 + cookie * 20;
    connection(cookie, begun)
        .request(begun)
        .answer(begun + 1)
        .request(begun + 2)
        .answer(begun + 3)
}

/// When its last answer came.
fn over(cookie: u64) -> u64 {
    100 + cookie * 20 + 3
}

/// Connections that the backend closes after two requests.
fn limited(count: u64) -> Vec<Record> {
    let close = |cookie| {
        let ms = over(cookie);
        ended(twice(cookie).fin(ms, 0).peek(ms, IdleEnd::Eof).closed(ms))
    };
    (1..=count).map(close).collect()
}

fn limit(records: Vec<Record>) -> Option<u32> {
    let upstream = judged(records).report.upstreams.remove(0);
    upstream.request_limit.map(|limit| limit.requests)
}

fn with(mut records: Vec<Record>, others: impl IntoIterator<Item = Connection>) -> Option<u32> {
    records.extend(others.into_iter().map(ended));
    limit(records)
}

#[test]
fn connections_that_the_backend_left_open_tell_against_a_limit() {
    let until_nginx = |cookie: u64| twice(cookie).closed(over(cookie) + 1000);
    let until_timeout = |cookie: u64| {
        let ms = over(cookie) + 1000;
        twice(cookie).fin(ms, 0).peek(ms, IdleEnd::Eof).closed(ms)
    };
    let until_the_end = |cookie: u64| Connection {
        end: crate::trace::record::ConnectionEnd::Open,
        ended_ns: at(over(cookie) + 1000),
        ..twice(cookie)
    };
    let used_again = |cookie: u64| {
        let ms = over(cookie) + 1000;
        twice(cookie)
            .fin(ms, 0)
            .request(ms + 5)
            .eof(ms + 6)
            .closed(ms + 6)
    };
    let kinds: [&dyn Fn(u64) -> Connection; 4] =
        [&until_nginx, &until_timeout, &until_the_end, &used_again];
    for left_open in kinds {
        assert_eq!(with(limited(4), [left_open(50)]), Some(2));
        assert_eq!(with(limited(4), (50..52).map(left_open)), None);
        // Of many that were closed a few may have had one request less.
        assert_eq!(with(limited(45), (50..52).map(left_open)), Some(2));
        assert_eq!(with(limited(45), (50..70).map(left_open)), None);
    }
}

#[test]
fn connections_that_tell_nothing_leave_a_limit_standing() {
    // With one request less, closed by nginx soon after the answer, with a count that is
    // not known, or of another number because calls were missed.
    let less = |cookie: u64| {
        let ms = over(cookie);
        connection(cookie, ms - 1)
            .request(ms - 1)
            .answer(ms)
            .closed(ms + 1000)
    };
    let at_once = |cookie: u64| twice(cookie).closed(over(cookie) + 30);
    let taken_over = |cookie: u64| Connection {
        first_seen_mid_life: true,
        ..twice(cookie).closed(over(cookie) + 1000)
    };
    let missed = |cookie: u64| Connection {
        missed_calls: 1,
        ..twice(cookie).closed(over(cookie) + 1000)
    };
    let unanswered = |cookie: u64| {
        let ms = over(cookie);
        connection(cookie, ms - 3)
            .request(ms - 3)
            .answer(ms - 2)
            .request(ms)
            .closed(ms + 1000)
    };
    let kinds: [&dyn Fn(u64) -> Connection; 5] =
        [&less, &at_once, &taken_over, &missed, &unanswered];
    for (kind, other) in kinds.into_iter().enumerate() {
        let found = with(limited(4), (50..60).map(other));
        assert_eq!(found, Some(2), "kind {kind}");
    }
}

#[test]
fn two_servers_with_limits_of_their_own_have_no_common_one() {
    // One closes after two requests, the other takes three: neither number is the
    // address's.
    let thrice = |cookie: u64| {
        let ms = over(cookie) + 1;
        let more = twice(cookie).request(ms).answer(ms + 1);
        more.fin(ms + 1, 0)
            .peek(ms + 1, IdleEnd::Eof)
            .closed(ms + 1)
    };
    assert_eq!(with(limited(4), (50..54).map(thrice)), None);
    assert_eq!(with(Vec::new(), (50..54).map(thrice)), Some(3));
}
