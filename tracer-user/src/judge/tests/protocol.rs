//! The wrong protocol on either side. Messages are those of nginx 1.22.1 with OpenSSL 3.0
//! before backends of that kind.

use super::*;
use crate::report::model::{Means, Phase, Side};

const HANDSHAKE: &str = "SSL handshaking to upstream";
const NOT_HTTP: &str = "upstream sent no valid HTTP/1.0 header";

fn failed_handshake(reason: &str) -> Said {
    let message = format!("SSL_do_handshake() failed (SSL: error:0A00010B:SSL routines::{reason})");
    let mut line = said(5000, &message, 0, HANDSHAKE);
    line.upstream = format!("https://{PEER}/a");
    line
}

#[test]
fn bytes_that_are_no_tls_are_a_plain_port() {
    for (reason, confidence) in [
        ("wrong version number", Confidence::Certain),
        ("http request", Confidence::Certain),
        ("packet length too long", Confidence::Likely),
        ("record layer failure", Confidence::Likely),
    ] {
        let incident = only(judged(vec![failed_handshake(reason).line()]));
        assert_verdict(&incident, Cause::ProtocolMismatch, confidence);
        assert_eq!(
            (incident.side, incident.means, incident.phase),
            (Side::Nginx, Means::Close, Phase::Tls)
        );
        let advice = incident.advice.unwrap();
        assert!(
            advice.contains("use http:// instead of https://"),
            "{advice}"
        );
    }
    let early = Said {
        message: "upstream prematurely sent response".to_owned(),
        ..failed_handshake("")
    };
    let incident = only(judged(vec![early.line()]));
    assert_verdict(&incident, Cause::ProtocolMismatch, Confidence::Certain);
    let other = only(judged(vec![failed_handshake("internal error").line()]));
    assert_eq!(other.cause, Cause::TlsFailure);
}

/// A first request that was met by these bytes and a FIN.
fn answered_by(bytes: u64) -> Connection {
    let mut connection = connection(1, 4990).request(4995).answer(4999);
    connection.response_bytes = bytes;
    connection.received_bytes = bytes;
    connection.fin(5000, 0).eof(5001).closed(5002)
}

fn not_http(connection: Connection) -> Judged {
    let line = said(5000, NOT_HTTP, 0, HEADER);
    judged(vec![line.logged(), ended(connection), line.line()])
}

#[test]
fn an_alert_of_tls_is_no_response() {
    let incident = only(not_http(answered_by(7)));
    assert_verdict(&incident, Cause::ProtocolMismatch, Confidence::Certain);
    assert!(incident.advice.unwrap().contains("https://"));
    let two = only(not_http(answered_by(14)));
    assert_verdict(&two, Cause::ProtocolMismatch, Confidence::Likely);
    // GnuTLS waits for its client after it.
    let mut held = answered_by(7);
    held.fin_received_ns = None;
    held.eof_read_ns = None;
    let incident = only(not_http(held.closed(20_000)));
    assert_verdict(&incident, Cause::ProtocolMismatch, Confidence::Certain);
}

#[test]
fn an_alert_is_found_although_the_worker_served_others_before_its_close() {
    let line = said(5000, NOT_HTTP, 0, HEADER);
    let other = connection(2, 4000).request(4001).answer(4002).closed(5001);
    for records in [
        vec![
            line.logged(),
            ended(other.clone()),
            ended(answered_by(7)),
            line.line(),
        ],
        vec![
            line.logged(),
            line.line(),
            ended(other),
            ended(answered_by(7)),
        ],
    ] {
        let incident = only(judged(records));
        assert_verdict(&incident, Cause::ProtocolMismatch, Confidence::Certain);
    }
}

#[test]
fn what_nginx_passes_on_as_http_0_9_is_no_incident() {
    for report in [
        not_http(answered_by(200)).report,
        judged(vec![said(5000, NOT_HTTP, 0, HEADER).line()]).report,
        {
            let later = connection(1, 0).request(1).answer(2).request(4995);
            let mut later = later.answer(4999);
            later.response_bytes = 7;
            not_http(later.fin(5000, 0).eof(5001).closed(5002)).report
        },
    ] {
        assert_eq!(report.incidents, []);
        assert_eq!(report.summary.other_lines, 1);
    }
}

#[test]
fn an_alert_in_another_protocol_is_a_rejected_response_of_its_size() {
    let message = "upstream sent unsupported FastCGI protocol version: 21";
    let mut line = said(5000, message, 0, HEADER);
    line.upstream = format!("fastcgi://{PEER}");
    let mut alert = answered_by(7).closed(5000);
    alert.fin_received_ns = None;
    alert.eof_read_ns = None;
    let incident = one(alert, &line);
    assert_verdict(&incident, Cause::ProtocolMismatch, Confidence::Likely);
}

/// The line and connection of a first request that ended `after_us` later.
fn refused(cookie: u64, after_us: u64) -> Vec<Record> {
    let ms = 4000 + cookie * 100;
    let line = Said {
        number: cookie,
        ..said(ms, PREMATURE, 0, HEADER)
    };
    let mut connection = connection(cookie, ms - 50)
        .request(ms - 45)
        .fin(ms - 45, 0)
        .eof(ms)
        .closed(ms);
    connection.fin_received_ns = Some(at(ms - 45) + after_us * 1000);
    vec![line.logged(), ended(connection), line.line()]
}

fn all(records: impl IntoIterator<Item = Vec<Record>>) -> Vec<(Cause, Confidence)> {
    let report = judged(records.into_iter().flatten().collect()).report;
    let of = |one: &Incident| (one.cause, one.confidence);
    report.incidents.iter().map(of).collect()
}

#[test]
fn an_upstream_that_never_answers_and_ends_each_request_at_once_is_likely_one_of_tls() {
    let found = all((1..=3).map(|cookie| refused(cookie, 300)));
    assert_eq!(found, [(Cause::ProtocolMismatch, Confidence::Likely); 3]);
}

#[test]
fn two_requests_are_too_few_and_40_ms_is_time_to_work() {
    let expected = (Cause::ClosedWithoutAnswer, Confidence::Likely);
    assert_eq!(
        all((1..=2).map(|cookie| refused(cookie, 300))),
        [expected; 2]
    );
    let slow = all((1..=3).map(|cookie| refused(cookie, 40_000)));
    assert_eq!(slow, [expected; 3]);
}

#[test]
fn one_answered_request_shows_that_the_protocol_is_right() {
    let answered = connection(50, 100).request(100).answer(110).closed(120);
    let mut records: Vec<Vec<Record>> = (1..=3).map(|cookie| refused(cookie, 300)).collect();
    records.push(vec![ended(answered)]);
    let found = all(records);
    assert_eq!(found, [(Cause::ClosedWithoutAnswer, Confidence::Likely); 3]);
}

#[test]
fn bytes_that_are_no_http_end_as_the_connection_did() {
    let incident = only(not_http(answered_by(7)));
    assert_verdict(&incident, Cause::ProtocolMismatch, Confidence::Certain);
    assert_eq!((incident.side, incident.means), (Side::Backend, Means::Fin));
}

#[test]
fn a_process_that_read_the_header_of_a_record_expected_tls() {
    let told = |unread: u32, answered: bool| {
        let mut close = closed_by_call(1, 4056, unread);
        if let Record::PeerClose(close) = &mut close {
            close.received_bytes = 89;
        }
        let mut records = vec![close];
        records.extend(refused(1, 40_000));
        if answered {
            records.push(served(50, 100, 5));
        }
        only(judged(records))
    };
    let incident = told(84, false);
    assert_verdict(&incident, Cause::ProtocolMismatch, Confidence::Likely);
    assert_eq!(told(80, false).cause, Cause::ClosedWithoutAnswer);
    assert_eq!(told(84, true).cause, Cause::ClosedWithoutAnswer);
}

#[test]
fn what_is_no_http_has_its_connection_though_another_is_closed_before_it() {
    let line = said(4999, NOT_HTTP, 0, HEADER);
    let between = connection(2, 4000).request(4000).answer(4001).closed(5001);
    let incident = only(judged(vec![
        line.logged(),
        ended(between),
        ended(answered_by(7)),
        line.line(),
    ]));
    assert_verdict(&incident, Cause::ProtocolMismatch, Confidence::Certain);
}
