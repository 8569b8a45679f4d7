//! Connections that were open before the capture began, and answers read late.

use super::*;

/// Taken over at `ms`, idle since an answer came `silent_ms` before that.
fn taken_over(cookie: u64, ms: u64, silent_ms: u64) -> Connection {
    let mut connection = connection(cookie, ms);
    connection.first_seen_mid_life = true;
    connection.exchanges = 1;
    connection.request_started_ns = Some(at(ms) - silent_ms * MS - MS);
    connection.last_sent_ns = connection.request_started_ns;
    connection.last_received_ns = Some(at(ms) - silent_ms * MS);
    connection.first_byte_ns = connection.last_received_ns;
    (connection.sent_bytes, connection.request_bytes) = (8000, 8000);
    (connection.received_bytes, connection.response_bytes) = (20_000, 20_000);
    connection
}

fn premature() -> Said {
    said(5000, PREMATURE, 0, HEADER)
}

#[test]
fn a_connection_taken_over_is_stale_with_its_age_and_without_a_count() {
    let connection = taken_over(1, 0, 100)
        .fin(4900, 0)
        .request(4999)
        .eof(5000)
        .closed(5000);
    let incident = one(connection, &premature());
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Certain);
    let found = incident.connection.unwrap();
    assert!(found.first_seen_mid_life);
    assert_eq!((found.requests, found.requests_at_least), (None, Some(2)));
    assert_eq!(found.reused, Some(true));
    assert_eq!(found.idle_ms, Some(5099.0));
    let told = incident.evidence.join("\n");
    assert!(told.contains("at least 2 requests were sent"), "{told}");
    assert!(!told.contains("first request"), "{told}");
}

/// Connections that the backend closes after two requests.
fn limited() -> Vec<Record> {
    (0..5)
        .map(|index| {
            let begun = 100 + index * 10;
            ended(
                connection(10_000 + index, begun)
                    .request(begun)
                    .answer(begun + 1)
                    .request(begun + 2)
                    .answer(begun + 3)
                    .fin(begun + 3, 0)
                    .peek(begun + 3, IdleEnd::Eof)
                    .closed(begun + 4),
            )
        })
        .collect()
}

#[test]
fn a_count_that_is_not_known_reaches_no_limit_on_requests() {
    let of = |connection: Connection| {
        let line = premature();
        let connection = connection.fin(4998, 0).request(4999).eof(5000).closed(5000);
        let mut records = limited();
        records.extend([line.logged(), ended(connection), line.line()]);
        only(judged(records))
    };
    let seen = connection(1, 4990)
        .request(4991)
        .answer(4992)
        .request(4993)
        .answer(4997);
    assert_verdict(&of(seen), Cause::RequestLimit, Confidence::Likely);
    let taken = taken_over(1, 4990, 100).request(4993).answer(4997);
    assert_verdict(&of(taken), Cause::StaleKeepalive, Confidence::Likely);
}

#[test]
fn connections_taken_over_are_no_sample_of_a_limit_on_requests() {
    let of = |make: fn(u64) -> Connection| {
        let records = (0..5).map(|index| {
            let made = make(index).request(200).answer(201);
            ended(made.fin(202, 0).peek(202, IdleEnd::Eof).closed(203))
        });
        let report = judged(records.collect()).report;
        report.upstreams[0]
            .request_limit
            .as_ref()
            .map(|limit| limit.requests)
    };
    let seen = |index| connection(index + 1, 100).request(101).answer(102);
    assert_eq!(of(seen), Some(2));
    assert_eq!(of(|index| taken_over(index + 1, 100, 50)), None);
}

#[test]
fn silences_that_began_before_the_capture_tell_the_idle_timeout() {
    let records = (0..4).map(|index| {
        let taken = taken_over(index + 1, 10 * index, 1000 + 10 * index);
        let end = 2000;
        ended(taken.fin(end, 0).peek(end, IdleEnd::Eof).closed(end))
    });
    let report = judged(records.collect()).report;
    let timeout = report.upstreams[0].idle_timeout.unwrap();
    assert_eq!((timeout.ms, timeout.samples), (3000.0, 4));
}

#[test]
fn an_end_before_the_capture_has_no_time() {
    let records = (0..4).map(|index| {
        let taken = taken_over(index + 1, 1000, 700);
        ended(taken.fin(1000, 0).peek(1001, IdleEnd::Eof).closed(1001))
    });
    let report = judged(records.collect()).report;
    assert_eq!(report.upstreams[0].idle_timeout, None);
    let late = taken_over(1, 0, 100)
        .fin(0, 0)
        .request(4999)
        .eof(5000)
        .closed(5000);
    let incident = one(late, &premature());
    assert_eq!(incident.cause, Cause::StaleKeepalive);
    let told = incident.evidence.join("\n");
    assert!(told.contains("before the capture began"), "{told}");
    assert!(!told.contains("idle for"), "{told}");
}

/// Its request began before the capture and has no answer.
fn waiting(cookie: u64, ms: u64) -> Connection {
    let mut connection = taken_over(cookie, ms, 100);
    connection.exchanges = 2;
    connection.first_byte_ns = None;
    connection.response_bytes = 0;
    connection.last_sent_ns = Some(at(ms) - MS);
    connection.request_started_ns = connection.last_sent_ns;
    connection
}

#[test]
fn a_request_that_began_before_the_capture_has_no_size_and_a_least_time() {
    let incident = one(
        waiting(1, 0).fin(5000, 0).eof(5000).closed(5000),
        &premature(),
    );
    assert_verdict(&incident, Cause::ClosedWithoutAnswer, Confidence::Likely);
    let told = incident.evidence.join("\n");
    assert!(told.contains("in flight for at least 5001.0 ms"), "{told}");
    assert!(!told.contains("8,000") && !told.contains("8000"), "{told}");
}

#[test]
fn requests_that_began_before_the_capture_are_no_sample_of_a_work_timeout() {
    let of = |make: fn(u64, u64) -> Connection| {
        let records = (1..6u64).flat_map(|index| {
            let (begun, ended_ms) = (index * 100, index * 100 + 3000);
            let mut line = said(ended_ms, PREMATURE, 0, HEADER);
            line.number = index;
            let cut = make(index, begun).fin(ended_ms, 0).eof(ended_ms);
            [line.logged(), ended(cut.closed(ended_ms)), line.line()]
        });
        judged(records.collect()).report.upstreams[0].work_timeout
    };
    assert!(of(|cookie, ms| connection(cookie, ms).request(ms)).is_some());
    assert_eq!(of(waiting), None);
}

#[test]
fn an_answer_read_late_counts_from_its_arrival() {
    let records = (0..4).map(|index| {
        let begun = 100 + index * 10;
        let mut made = connection(index + 1, begun)
            .request(begun)
            .answer(begun + 60);
        made.last_arrival_ns = Some(at(begun + 10));
        let end = begun + 1010;
        ended(made.fin(end, 0).peek(end, IdleEnd::Eof).closed(end))
    });
    let report = judged(records.collect()).report;
    let timeout = report.upstreams[0].idle_timeout.unwrap();
    assert_eq!((timeout.ms, timeout.samples), (1000.0, 4));
}

#[test]
fn a_request_after_an_answer_read_late_has_the_whole_silence_before_it() {
    let mut connection = connection(1, 0)
        .request(1)
        .answer(60)
        .request(4999)
        .fin(5000, 80)
        .eof(5000)
        .closed(5000);
    connection.last_arrival_ns = Some(at(9));
    let incident = one(connection, &premature());
    assert_eq!(incident.cause, Cause::StaleKeepalive);
    assert_eq!(incident.connection.unwrap().idle_ms, Some(4990.0));
}
