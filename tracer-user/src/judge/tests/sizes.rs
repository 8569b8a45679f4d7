//! Requests that the backend gives up for their size, and what looks like them.

use super::*;
use crate::report::model::{InferredSize, Report};

/// A request of this size that was answered, on a connection of its own.
fn answered(cookie: u64, bytes: u64) -> Record {
    let mut connection = connection(cookie, 100).request(100);
    connection.request_bytes = bytes;
    ended(connection.answer(110).closed(111))
}

/// A request of which this much was sent when the backend reset the connection.
fn cut(cookie: u64, ms: u64, bytes: u64) -> Connection {
    let mut connection = connection(cookie, ms - 10).request(ms - 9);
    connection.request_bytes = bytes;
    connection
        .rst(ms - 1, 1000)
        .fails(ms, Call::Send, 104)
        .closed(ms)
}

fn line(ms: u64) -> Said {
    Said {
        number: ms,
        ..said(ms, "writev() failed", 104, SENDING)
    }
}

fn failed(connection: Connection, ms: u64) -> [Record; 3] {
    let line = line(ms);
    [line.logged(), ended(connection), line.line()]
}

fn report(successes: &[u64], failures: &[u64]) -> Report {
    let mut records = Vec::new();
    for (cookie, bytes) in (100..).zip(successes) {
        records.push(answered(cookie, *bytes));
    }
    for (cookie, bytes) in (1..).zip(failures) {
        let ms = 4000 + cookie * 100;
        records.extend(failed(cut(cookie, ms, *bytes), ms));
    }
    judged(records).report
}

#[test]
fn requests_above_all_that_were_answered_are_too_large() {
    let report = report(&[200, 50_000], &[300_000, 200_000, 250_000]);
    for incident in &report.incidents {
        assert_verdict(incident, Cause::RequestTooLarge, Confidence::Likely);
    }
    let expected = InferredSize {
        bytes: 200_000,
        answered_bytes: 50_000,
        samples: 3,
    };
    assert_eq!(report.upstreams[0].size_threshold, Some(expected));
    let advice = report.incidents[0].advice.as_ref().unwrap();
    assert!(advice.contains("client_max_body_size"), "{advice}");
}

#[test]
fn one_request_given_up_is_a_possibility() {
    let report = report(&[200], &[300_000]);
    assert_verdict(
        &report.incidents[0],
        Cause::RequestTooLarge,
        Confidence::Possible,
    );
}

#[test]
fn without_an_answered_request_there_is_no_threshold() {
    let report = report(&[], &[300_000, 200_000, 250_000]);
    assert_eq!(report.upstreams[0].size_threshold, None);
    assert_eq!(report.incidents[0].cause, Cause::ClosedWithoutAnswer);
}

#[test]
fn a_request_cut_short_below_one_that_was_answered_says_nothing() {
    let report = report(&[400_000], &[300_000]);
    assert_eq!(report.upstreams[0].size_threshold, None);
    assert_eq!(report.incidents[0].cause, Cause::ClosedWithoutAnswer);
}

#[test]
fn sizes_that_only_the_counters_know_count_as_answered() {
    let peer: SocketAddr = PEER.parse().unwrap();
    let counters = |bound| {
        Record::Upstream(crate::trace::record::Upstream {
            ns: at(3000),
            address: peer.ip(),
            port: peer.port(),
            netns: 1,
            connects: 1,
            connect_failures: 0,
            exchanges: 1,
            fin_first: 0,
            rst_first: 0,
            nginx_first: 1,
            connect_us: Vec::new(),
            first_byte_us: Vec::new(),
            request_bytes: vec![(64, 3), (bound, 1)],
        })
    };
    let judged_so = |bound| {
        let mut records = vec![counters(bound)];
        records.extend(failed(cut(1, 4000, 300_000), 4000));
        judged(records).report
    };
    let below = judged_so(196_608);
    assert_eq!(below.incidents[0].cause, Cause::RequestTooLarge);
    // The bucket from 196,608 ends before the next one, at 229,375.
    let threshold = below.upstreams[0].size_threshold.unwrap();
    assert_eq!(threshold.answered_bytes, 229_375);
    let within = judged_so(262_144);
    assert_eq!(within.incidents[0].cause, Cause::ClosedWithoutAnswer);
}

#[test]
fn an_answer_before_the_request_was_whole_is_no_success() {
    let mut early = connection(50, 100).request(100);
    early.request_bytes = 500_000;
    let early = early.answer(110).rst(111, 9000).closed(112);
    let mut records = vec![answered(100, 200), ended(early)];
    for ms in [4000, 4100, 4200] {
        records.extend(failed(cut(ms, ms, 300_000), ms));
    }
    let report = judged(records).report;
    assert_eq!(report.upstreams[0].size_threshold.unwrap().samples, 3);
}

#[test]
fn an_early_answer_that_was_lost_makes_it_likely() {
    let mut lost = cut(1, 4000, 300_000);
    lost.awaiting_at_end = false;
    lost.unread_at_end = Some(180);
    let mut records = vec![answered(100, 200)];
    records.extend(failed(lost, 4000));
    let incident = only(judged(records));
    assert_verdict(&incident, Cause::RequestTooLarge, Confidence::Likely);
    assert!(
        incident.evidence.iter().any(|one| one.contains("413")),
        "{:?}",
        incident.evidence
    );
}

#[test]
fn bytes_that_the_backend_left_unread_show_it_after_the_whole_was_sent() {
    let line = said(4000, "recv() failed", 104, HEADER);
    let mut whole = connection(1, 3990).request(3991);
    whole.request_bytes = 60_000;
    let whole = whole
        .rst(3999, 0)
        .fails(4000, Call::Receive, 104)
        .closed(4000);
    let with = |peer: Option<Record>| {
        let mut records = vec![answered(100, 200), line.logged(), ended(whole.clone())];
        records.push(line.line());
        records.extend(peer);
        only(judged(records))
    };
    let incident = with(Some(closed_by_call(1, 3998, 44_000)));
    assert_verdict(&incident, Cause::RequestTooLarge, Confidence::Likely);
    for peer in [None, Some(closed_by_call(1, 3998, 0))] {
        assert_eq!(with(peer).cause, Cause::ClosedWithoutAnswer);
    }
}

#[test]
fn a_small_whole_request_left_unread_shows_that_size_is_not_why() {
    let line = said(6000, "recv() failed", 104, HEADER);
    let small = connection(9, 5990)
        .request(5991)
        .rst(5999, 0)
        .fails(6000, Call::Receive, 104)
        .closed(6000);
    let mut records = vec![answered(100, 200), closed_by_call(9, 5998, 80)];
    records.extend(failed(cut(1, 4000, 300_000), 4000));
    records.extend([line.logged(), ended(small), line.line()]);
    let report = judged(records).report;
    assert_eq!(report.upstreams[0].size_threshold, None);
    assert!(
        report
            .incidents
            .iter()
            .all(|one| one.cause == Cause::ClosedWithoutAnswer)
    );
}

#[test]
fn a_process_that_left_the_request_unread_had_the_connection() {
    // It had made up its mind at once; one that waited had not.
    let line = said(5000, "recv() failed", 104, HEADER);
    let answered_by_reset = |started| {
        connection(1, 0)
            .request(1)
            .answer(2)
            .request(started)
            .rst(5000, 80)
            .fails(5000, Call::Receive, 104)
            .closed(5000)
    };
    let records = |started, unread| {
        let mut peer = closed_by_call(1, 4999, unread);
        if let Record::PeerClose(close) = &mut peer {
            close.received_bytes = 160;
        }
        vec![
            line.logged(),
            ended(answered_by_reset(started)),
            line.line(),
            peer,
        ]
    };
    let unread = only(judged(records(4999, 80)));
    assert_verdict(&unread, Cause::StaleKeepalive, Confidence::Likely);
    let waited = only(judged(records(2000, 80)));
    assert_eq!(waited.cause, Cause::ClosedWithoutAnswer);
    let part_read = only(judged(records(4999, 30)));
    assert_eq!(part_read.cause, Cause::ClosedWithoutAnswer);
    let read = only(judged(records(4999, 0)));
    assert_eq!(read.cause, Cause::StaleKeepalive);
}

#[test]
fn buffering_is_advised_only_where_it_is_off() {
    let records = || {
        let mut records = vec![answered(100, 200)];
        records.extend(failed(cut(1, 4000, 300_000), 4000));
        records
    };
    let off = advised(&[("proxy_request_buffering", "off")], records());
    assert!(off.contains("proxy_request_buffering on"), "{off}");
    assert!(!advised(&[], records()).contains("request_buffering"));
}

#[test]
fn a_request_that_ended_with_its_process_says_nothing_of_sizes() {
    let mut records = vec![answered(100, 50_000)];
    for (cookie, bytes) in [(1, 300_000), (2, 200_000), (3, 250_000)] {
        let ms = 4000 + cookie * 100;
        records.push(peer_close(cookie, ms - 1, Some(Exit::Signal(9))));
        records.extend(failed(cut(cookie, ms, bytes), ms));
    }
    let report = judged(records).report;
    assert_eq!(report.upstreams[0].size_threshold, None);
    for incident in &report.incidents {
        assert_verdict(incident, Cause::BackendKilled, Confidence::Certain);
    }
}

#[test]
fn a_size_known_exactly_is_not_rounded_up_for_an_early_answer_of_its_bucket() {
    // Both are of the bucket from 98,304.
    let peer: SocketAddr = PEER.parse().unwrap();
    let counters = Record::Upstream(crate::trace::record::Upstream {
        ns: at(3000),
        address: peer.ip(),
        port: peer.port(),
        netns: 1,
        connects: 2,
        connect_failures: 0,
        exchanges: 2,
        fin_first: 0,
        rst_first: 1,
        nginx_first: 1,
        connect_us: Vec::new(),
        first_byte_us: Vec::new(),
        request_bytes: vec![(98_304, 2)],
    });
    let line = said(4000, "readv() failed", 104, BODY);
    let mut early = connection(1, 3900).request(3901);
    early.request_bytes = 111_013;
    let early = early
        .answer(3950)
        .rst(3951, 0)
        .fails(4000, Call::Receive, 104)
        .closed(4000);
    let incident = only(judged(vec![
        counters,
        answered(50, 100_384),
        closed_by_call(1, 3951, 22_000),
        line.logged(),
        ended(early),
        line.line(),
    ]));
    assert_verdict(&incident, Cause::RequestTooLarge, Confidence::Likely);
}

/// A connection that had an answer before its request was whole, and goes on: what the
/// counters have of it, and what its record says.
fn beside_an_early_answer(counted: u64, early: Connection) -> Incident {
    let peer: SocketAddr = PEER.parse().unwrap();
    let counters = Record::Upstream(crate::trace::record::Upstream {
        ns: at(3000),
        address: peer.ip(),
        port: peer.port(),
        netns: 1,
        connects: 2,
        connect_failures: 0,
        exchanges: 2,
        fin_first: 0,
        rst_first: 0,
        nginx_first: 1,
        connect_us: Vec::new(),
        first_byte_us: Vec::new(),
        request_bytes: vec![(counted, 1)],
    });
    let line = said(5000, PREMATURE, 0, HEADER);
    let mut closed = connection(1, 4900).request(4901);
    closed.request_bytes = 150_000;
    only(judged(vec![
        counters,
        ended(early),
        closed_by_call(1, 4999, 0),
        line.logged(),
        ended(closed.fin(4999, 0).eof(5000).closed(5000)),
        line.line(),
        the_end(),
    ]))
}

#[test]
fn an_answer_whose_request_may_not_have_been_whole_proves_no_size() {
    let early = |bytes| {
        let mut early = connection(3, 100).request(100);
        early.request_bytes = bytes;
        early.unacked_at_close = Some(9000);
        early.answer(110).closed(120)
    };
    // nginx went on sending after the answer had begun.
    let mut filled = early(200_000);
    filled.missed_calls = 1;
    filled.filled_in = true;
    for early in [early(200_000), early(400_000), filled] {
        let incident = beside_an_early_answer(196_608, early);
        assert_verdict(&incident, Cause::ClosedWithoutAnswer, Confidence::Likely);
    }
    // Larger than it ever became.
    let incident = beside_an_early_answer(196_608, early(150_000));
    assert_verdict(&incident, Cause::ClosedWithoutAnswer, Confidence::Certain);
}

#[test]
fn what_a_gap_may_have_merged_is_not_measured_though_it_came_after_the_end() {
    let line = said(5000, PREMATURE, 0, HEADER);
    let mut filled = connection(1, 0).request(1).answer(2).fin(4900, 0);
    filled = filled.request(4999).eof(5000).closed(5000);
    assert_eq!(
        one(filled.clone(), &line).connection.unwrap().request_bytes,
        Some(80)
    );
    filled.missed_calls = 1;
    filled.filled_in = true;
    assert_eq!(one(filled, &line).connection.unwrap().request_bytes, None);
}
