//! Findings where nginx's configuration and what was seen disagree.

use super::*;
use crate::report::model::Advice;
use crate::trace::record::Upstream;

const KEEPS: [(&str, &str); 2] = [
    ("proxy_http_version", "1.1"),
    ("proxy_set_header Connection", ""),
];

/// Counters of so many connections and requests.
fn counters(connects: u64, exchanges: u64) -> Record {
    let peer: SocketAddr = PEER.parse().unwrap();
    Record::Upstream(Upstream {
        ns: at(20_000),
        address: peer.ip(),
        port: peer.port(),
        netns: 1,
        connects,
        connect_failures: 0,
        exchanges,
        fin_first: 0,
        rst_first: 0,
        nginx_first: 0,
        connect_us: Default::default(),
        first_byte_us: Default::default(),
        request_bytes: Default::default(),
    })
}

/// Connections that ended at once after their only response, by this side.
fn one_request_each(count: u64, by_nginx: bool) -> Vec<Record> {
    let mut records: Vec<Record> = (0..count)
        .map(|index| {
            let ms = 100 + 10 * index;
            let answered = connection(1000 + index, ms).request(ms).answer(ms + 2);
            ended(if by_nginx {
                answered.closed(ms + 2)
            } else {
                answered.fin(ms + 2, 0).eof(ms + 3).closed(ms + 3)
            })
        })
        .collect();
    records.push(counters(count, count));
    records
}

fn found(settings: &[(&str, &str)], records: Vec<Record>) -> Vec<Advice> {
    judged_with(settings, records).report.advice
}

#[test]
fn keepalive_that_http_1_0_defeats_is_found() {
    let advice = found(&[], one_request_each(40, true));
    assert_eq!(advice.len(), 1, "{advice:?}");
    assert_eq!(
        (advice[0].upstream.as_str(), advice[0].incidents),
        (PEER, 0)
    );
    assert!(advice[0].text.contains("proxy_http_version 1.1"));
    let because = &advice[0].because;
    assert!(because.contains("`keepalive 16`"), "{because}");
    assert!(because.contains("none of 40 requests"), "{because}");
    assert!(because.contains("location / of server app speaks HTTP/1.0 (the default)"));
}

#[test]
fn the_obstacle_is_named_as_it_is_set() {
    let header = |value| {
        let settings = [KEEPS[0], ("proxy_set_header Connection", value)];
        found(&settings, one_request_each(40, true))
    };
    assert!(header("close")[0].because.contains("`Connection: close`"));
    assert!(
        header("$upgrade")[0]
            .because
            .contains("`Connection: $upgrade`")
    );
    assert_eq!(header(""), [], "nothing in the configuration explains it");
}

#[test]
fn a_backend_that_closes_after_each_response_is_found() {
    let advice = found(&KEEPS, one_request_each(40, false));
    assert!(
        advice[0].text.contains("let the backend keep"),
        "{advice:?}"
    );
}

#[test]
fn what_is_reused_or_too_little_is_no_finding() {
    assert_eq!(found(&[], one_request_each(19, true)), []);
    let reused = |requests| {
        let mut records = one_request_each(40, true);
        records.push(counters(0, requests));
        records
    };
    assert_eq!(found(&[], reused(20)), []);
    assert_eq!(found(&KEEPS, reused(1)), [], "nothing explains it");
    // As where the backend closes without having said so.
    let because = &found(&[], reused(5))[0].because;
    assert!(because.contains("only 5 of 45 requests"), "{because}");
}

#[test]
fn a_backend_that_closes_idle_connections_first_is_found_without_an_error() {
    let advice = found(&KEEPS, idle_closes(12, 5000));
    assert_eq!(advice.len(), 1, "{advice:?}");
    assert!(
        advice[0].text.contains("keepalive_timeout 4s"),
        "{advice:?}"
    );
    assert!(advice[0].because.contains("for 60s (the default)"));
}

#[test]
fn a_request_that_next_upstream_gave_up_is_found() {
    let failed = |set: &str| {
        let line = said(5000, "upstream timed out", 110, HEADER);
        let records = vec![
            line.logged(),
            ended(connection(1, 10).request(10).closed(5000)),
            then(1, 5000, Next::OtherSend, 0),
            line.line(),
        ];
        let mut advice = found(&[("proxy_next_upstream", set)], records);
        advice.retain(|advice| advice.text.contains("`proxy_next_upstream`"));
        advice
    };
    let advice = failed("error http_502");
    assert_eq!(advice.len(), 1, "{advice:?}");
    let only = &advice[0];
    assert_eq!((only.upstream.as_str(), only.incidents), ("app", 1));
    assert!(only.text.contains("add `timeout` to"), "{only:?}");
    assert!(only.because.contains("has 2 servers"), "{only:?}");
    assert_eq!(failed("error timeout"), []);
}
