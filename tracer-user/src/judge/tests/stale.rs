//! Stale connections and what looks like them.

use super::*;

/// Kept alive: one request answered, then silence.
fn kept() -> Connection {
    connection(1, 0).request(1).answer(2)
}

fn premature() -> Said {
    said(5000, PREMATURE, 0, HEADER)
}

#[test]
fn a_fin_before_the_request_is_a_stale_connection() {
    let connection = kept().fin(4900, 0).request(4999).eof(5000).closed(5000);
    let incident = one(connection, &premature());
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Certain);
    assert_eq!(incident.matched, Match::Exact);
    assert_eq!(incident.connection.as_ref().unwrap().reused, Some(true));
}

#[test]
fn a_fin_and_the_rst_that_the_request_provokes_are_a_stale_connection() {
    let connection = kept()
        .fin(4900, 0)
        .request(4999)
        .rst(4999, 80)
        .eof(5000)
        .closed(5000);
    let incident = one(connection, &premature());
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Certain);
}

#[test]
fn a_fin_that_acknowledges_nothing_of_the_request_crossed_it() {
    let connection = kept().request(4999).fin(5000, 80).eof(5000).closed(5000);
    let incident = one(connection, &premature());
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Certain);
}

#[test]
fn a_fin_noted_before_the_send_returned_crossed_the_request_if_it_was_not_acknowledged() {
    let mut connection = kept().request(4999).fin(4998, 80).eof(5000).closed(5000);
    connection.exchanges_at_end = 1;
    connection.awaiting_at_end = false;
    let incident = one(connection.clone(), &premature());
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Certain);
    let report = judged(vec![ended(connection)]).report;
    assert_eq!(report.upstreams[0].closes.backend_idle, 0);
}

#[test]
fn a_fin_that_acknowledges_the_request_is_no_stale_connection() {
    let connection = kept().request(4900).fin(4999, 0).eof(5000).closed(5000);
    let incident = one(connection.clone(), &premature());
    assert_verdict(&incident, Cause::ClosedWithoutAnswer, Confidence::Likely);
    let incident = one_by_call(connection, &premature());
    assert_verdict(&incident, Cause::ClosedWithoutAnswer, Confidence::Certain);
}

#[test]
fn a_fin_that_acknowledges_a_part_of_the_request_leaves_it_likely() {
    let connection = kept().request(4900).fin(4999, 40).eof(5000).closed(5000);
    let incident = one(connection, &premature());
    assert_verdict(&incident, Cause::ClosedWithoutAnswer, Confidence::Likely);
}

#[test]
fn an_rst_instead_of_an_acknowledgement_makes_it_likely_only() {
    let line = said(5000, "recv() failed", 104, HEADER);
    let connection = kept()
        .request(4999)
        .rst(5000, 80)
        .fails(5000, Call::Receive, 104)
        .closed(5000);
    assert_verdict(
        &one(connection, &line),
        Cause::StaleKeepalive,
        Confidence::Likely,
    );
    let slow = kept()
        .request(4000)
        .rst(5000, 80)
        .fails(5000, Call::Receive, 104)
        .closed(5000);
    assert_verdict(
        &one(slow, &line),
        Cause::ClosedWithoutAnswer,
        Confidence::Likely,
    );
    let taken = kept()
        .request(4999)
        .rst(5000, 0)
        .fails(5000, Call::Receive, 104)
        .closed(5000);
    assert_verdict(
        &one_by_call(taken, &line),
        Cause::ClosedWithoutAnswer,
        Confidence::Certain,
    );
}

#[test]
fn an_rst_that_getsockopt_found_is_a_stale_connection() {
    let line = said(5000, "connect() failed", 104, CONNECTING);
    let incident = one(kept().rst(4900, 0).closed(5000), &line);
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Certain);
    let line = said(5000, "connect() failed", 32, CONNECTING);
    let incident = one(kept().fin(4800, 0).rst(4900, 0).closed(5000), &line);
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Certain);
}

#[test]
fn a_new_connection_that_getsockopt_finds_reset_is_not_explained() {
    let line = said(5000, "connect() failed", 104, CONNECTING);
    let incident = one(connection(1, 4990).rst(4995, 0).closed(5000), &line);
    assert_verdict(&incident, Cause::Unexplained, Confidence::Possible);
}

#[test]
fn a_first_write_that_finds_the_connection_reset_is_a_stale_connection() {
    let line = said(5000, "writev() failed", 104, SENDING);
    let connection = kept()
        .rst(4900, 0)
        .fails(5000, Call::Send, 104)
        .closed(5000);
    assert_verdict(
        &one(connection, &line),
        Cause::StaleKeepalive,
        Confidence::Certain,
    );
}

#[test]
fn an_end_that_came_with_an_unread_answer_and_before_the_next_request_is_stale() {
    let mut connection = connection(1, 0).request(1).fin(2, 0).answer(3);
    connection.unread_at_end = Some(200);
    connection.awaiting_at_end = false;
    let connection = connection.request(5).eof(5000).closed(5000);
    assert_verdict(
        &one(connection, &premature()),
        Cause::StaleKeepalive,
        Confidence::Certain,
    );
}

#[test]
fn a_first_request_is_never_stale() {
    let early = connection(1, 4990)
        .fin(4995, 0)
        .request(4999)
        .eof(5000)
        .closed(5000);
    let incident = one_by_call(early, &premature());
    assert_verdict(&incident, Cause::ClosedWithoutAnswer, Confidence::Likely);
    assert!(
        incident
            .evidence
            .iter()
            .any(|sentence| sentence.contains("before nginx sent"))
    );
    assert!(
        !incident
            .evidence
            .iter()
            .any(|sentence| sentence.contains("acknowledged the whole"))
    );
    let unread = connection(1, 4990)
        .request(4999)
        .fin(5000, 80)
        .eof(5000)
        .closed(5000);
    let incident = one_by_call(unread, &premature());
    assert_verdict(&incident, Cause::ClosedWithoutAnswer, Confidence::Certain);
}

#[test]
fn over_tls_neither_reuse_nor_answer_is_taken_for_granted() {
    let mut line = premature();
    line.upstream = format!("https://{PEER}/a");
    // Handshake and first request, or a second request of a resumed session?
    let connection = kept().fin(4990, 0).request(4999).eof(5000).closed(5000);
    let unknown = one(connection, &line);
    assert_ne!(unknown.confidence, Confidence::Certain);
    // Bytes that may be a ticket and a close_notify are no part of a response.
    let alert = kept()
        .request(4990)
        .answer(4995)
        .fin(4999, 0)
        .eof(5000)
        .closed(5000);
    assert_ne!(one(alert, &line).cause, Cause::ResponseAborted);
    // A close_notify ends it without a read of 0 bytes.
    let notified = kept().request(4990).answer(5000).closed(5000);
    let incident = one(notified, &line);
    assert_eq!(incident.matched, Match::Exact);
    assert_ne!(incident.confidence, Confidence::Certain);
}

#[test]
fn only_true_idle_closes_feed_the_idle_timeout() {
    let mut records = idle_closes(5, 1000);
    // Responses that end with the connection, after a pause of the backend.
    for cookie in 0..20 {
        let eof = connection(cookie + 50, 10)
            .request(10)
            .answer(20)
            .fin(3020, 0)
            .eof(3021);
        records.push(ended(eof.closed(3021)));
        // Crossed, and closed by nginx while the FIN stood unread.
        let crossed = kept().request(1500).fin(1501, 80).eof(1502).closed(1502);
        records.push(ended(crossed));
        records.push(ended(kept().fin(2000, 0).closed(2000)));
    }
    let upstream = judged(records).report.upstreams.remove(0);
    let timeout = upstream.idle_timeout.unwrap();
    assert_eq!((timeout.ms, timeout.samples), (1000.0, 5));
    assert_eq!(upstream.closes.backend_after_response, 20);
}

#[test]
fn ages_of_stale_connections_are_idle_ages_too() {
    let stale = |cookie| {
        let kept = connection(cookie, 0).request(1).answer(2);
        ended(kept.fin(1002, 0).request(1003).eof(1004).closed(1004))
    };
    let upstream = judged((0..4).map(stale).collect())
        .report
        .upstreams
        .remove(0);
    assert_eq!(upstream.idle_timeout.unwrap().ms, 1000.0);
}

#[test]
fn a_constant_number_of_requests_is_a_limit_unless_a_silence_came_before_the_close() {
    let limited = |cookie| {
        let twice = connection(cookie, 0)
            .request(1)
            .answer(2)
            .request(3)
            .answer(4);
        ended(twice.fin(4, 0).peek(5, IdleEnd::Eof).closed(5))
    };
    let mut records: Vec<Record> = (100..105).map(limited).collect();
    let twice = connection(1, 0).request(1).answer(2).request(3).answer(4);
    let failed = twice.clone().fin(4, 0).request(5).eof(6).closed(6);
    let line = said(6, PREMATURE, 0, HEADER);
    records.extend([line.logged(), ended(failed), line.line()]);
    let incident = only(judged(records.clone()));
    assert_verdict(&incident, Cause::RequestLimit, Confidence::Likely);
    assert!(incident.advice.unwrap().contains("keepalive_requests 2"));
    records.truncate(5);
    let line = premature();
    let silent = twice.fin(4900, 0).request(4999).eof(5000).closed(5000);
    records.extend([line.logged(), ended(silent), line.line()]);
    assert_eq!(only(judged(records)).cause, Cause::StaleKeepalive);
}

#[test]
fn responses_cut_short_after_the_same_number_of_requests_are_no_limit() {
    let cut = |cookie| {
        let twice = connection(cookie, 0)
            .request(1)
            .answer(2)
            .request(3)
            .answer(4);
        ended(twice.fin(4, 0).eof(5).closed(5))
    };
    let report = judged((0..5).map(cut).collect()).report;
    assert_eq!(report.upstreams[0].request_limit, None);
}

#[test]
fn advice_speaks_nginxs_language_and_gives_the_numbers() {
    let mut records = idle_closes(3, 1000);
    let line = said(1003, PREMATURE, 0, HEADER);
    let connection = kept().fin(1002, 0).request(1003).eof(1003).closed(1003);
    records.extend([line.logged(), ended(connection), line.line()]);
    let report = judged(records).report;
    let advice = &report.advice[0];
    assert!(
        advice
            .text
            .contains("keepalive_timeout 800ms` in `upstream app`"),
        "{advice:?}"
    );
    assert!(
        advice
            .because
            .contains("nginx keeps them for 60s (the default)"),
        "{advice:?}"
    );
}

/// Connections that the backend closed idle at these ages, each at another time.
fn closed_at_ages(ages_ms: impl Iterator<Item = u64>) -> Judged {
    let records = ages_ms.zip(0..).map(|(age, index)| {
        let begun = 100 + index * 60;
        let end = begun + 1 + age;
        let kept = connection(index + 1, begun)
            .request(begun)
            .answer(begun + 1);
        ended(kept.fin(end, 0).peek(end, IdleEnd::Eof).closed(end))
    });
    judged(records.collect())
}

#[test]
fn a_backend_that_looks_at_idle_connections_now_and_then_has_its_least_age_as_timeout() {
    let spread_evenly = closed_at_ages((0..30).map(|index| 2000 + index * 33));
    let timeout = spread_evenly.report.upstreams[0].idle_timeout.unwrap();
    assert!((timeout.ms - 2000.0).abs() < 1.0, "{timeout:?}");
    assert!((timeout.spread_ms - 957.0).abs() < 1.0, "{timeout:?}");
    let few = closed_at_ages((0..15).map(|index| 2000 + index * 66));
    assert_eq!(few.report.upstreams[0].idle_timeout, None);
    let wide = closed_at_ages((0..30).map(|index| 500 + index * 70));
    assert_eq!(wide.report.upstreams[0].idle_timeout, None);
}

#[test]
fn a_timeout_that_connections_outlived_is_none() {
    let mut records = idle_closes(4, 300);
    assert!(
        judged(records.clone()).report.upstreams[0]
            .idle_timeout
            .is_some()
    );
    for cookie in 1..=4 {
        let kept = connection(cookie, 100).request(100).answer(101);
        records.push(ended(kept.request(1100).answer(1101).closed(1102)));
    }
    assert_eq!(judged(records).report.upstreams[0].idle_timeout, None);
}

#[test]
fn a_limit_is_seen_in_races_and_not_refuted_by_the_requests_that_lost_them() {
    let served = |cookie: u64| {
        let mut kept = connection(cookie, 0);
        for ms in 1..=5 {
            kept = kept.request(ms * 10).answer(ms * 10 + 1);
        }
        kept
    };
    let mut records = Vec::new();
    for cookie in 1..=3 {
        let ms = 100 + cookie * 20;
        let mut line = said(ms, PREMATURE, 0, HEADER);
        line.number = cookie;
        let raced = served(cookie).fin(59, 0).request(ms - 1).eof(ms).closed(ms);
        records.extend([line.logged(), ended(raced), line.line()]);
    }
    // The sixth was on its way.
    let mut line = said(500, "recv() failed", 104, HEADER);
    line.number = 9;
    let crossed = served(9).request(499).rst(500, 80);
    let crossed = crossed.fails(500, Call::Receive, 104).closed(500);
    records.extend([
        closed_by_call(9, 499, 80),
        line.logged(),
        ended(crossed),
        line.line(),
    ]);
    let report = judged(records).report;
    assert_eq!(report.upstreams[0].idle_timeout, None);
    assert_eq!(report.upstreams[0].request_limit.unwrap().requests, 5);
    for incident in &report.incidents[..3] {
        assert_verdict(incident, Cause::RequestLimit, Confidence::Likely);
    }
}

#[test]
fn an_idle_timeout_that_ran_out_before_nginx_read_the_answer_is_stale_and_no_aborted_response() {
    let line = said(5000, "readv() failed", 104, BODY);
    let late = |end: u64| {
        connection(1, 4000)
            .request(4001)
            .rst(end, 0)
            .answer(4990)
            .fails(5000, Call::Receive, 104)
            .closed(5000)
    };
    let with = |connection: Connection| {
        let mut records = idle_closes(5, 300);
        records.extend([line.logged(), ended(connection), line.line()]);
        only(judged(records))
    };
    assert_verdict(&with(late(4302)), Cause::StaleKeepalive, Confidence::Likely);
    assert_verdict(
        &with(late(4100)),
        Cause::ResponseAborted,
        Confidence::Likely,
    );
}
