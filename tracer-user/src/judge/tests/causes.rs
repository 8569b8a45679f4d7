//! Each cause: the case that it needs, the look-alike, the line without a socket.

use super::*;
use crate::report::model::Phase;

fn sent() -> Connection {
    connection(1, 0).request(1)
}

/// The line alone: nothing of the kernel's is there.
fn alone(said: &Said) -> Incident {
    only(judged(vec![said.line()]))
}

#[test]
fn read_timeout_needs_silence() {
    let line = said(5000, "upstream timed out", 110, HEADER);
    let incident = one(sent().closed(5000), &line);
    assert_verdict(&incident, Cause::ReadTimeout, Confidence::Certain);
    let unread = one(sent().fin(4999, 0).closed(5000), &line);
    assert_verdict(&unread, Cause::ReadTimeout, Confidence::Possible);
    assert_verdict(&alone(&line), Cause::ReadTimeout, Confidence::Likely);
}

#[test]
fn send_and_connect_timeouts_are_told_apart() {
    let sending = said(5000, "upstream timed out", 110, SENDING);
    assert_verdict(
        &one(sent().closed(5000), &sending),
        Cause::SendTimeout,
        Confidence::Certain,
    );
    let connecting = said(5000, "upstream timed out", 110, CONNECTING);
    let mut never = connection(1, 0).closed(5000);
    never.established_ns = None;
    never.retransmits = 1;
    let incident = one(never, &connecting);
    assert_verdict(&incident, Cause::ConnectTimeout, Confidence::Certain);
    assert!(
        incident.evidence[0].contains("1 retransmission)"),
        "{:?}",
        incident.evidence
    );
    assert_verdict(
        &alone(&connecting),
        Cause::ConnectTimeout,
        Confidence::Likely,
    );
}

#[test]
fn refused_and_unreachable_rest_on_nginxs_own_errno() {
    let line = said(5000, "connect() failed", 111, CONNECTING);
    let mut refused = connection(1, 4999).rst(5000, 1).closed(5000);
    refused.established_ns = None;
    refused.socket_error = Some(111);
    assert_verdict(
        &one(refused, &line),
        Cause::ConnectRefused,
        Confidence::Certain,
    );
    assert_verdict(&alone(&line), Cause::ConnectRefused, Confidence::Likely);
    let mut line = said(5000, "connect() to 127.0.0.1:9101 failed", 101, CONNECTING);
    line.level = 3;
    assert_verdict(&alone(&line), Cause::Unreachable, Confidence::Certain);
}

#[test]
fn a_response_is_aborted_only_after_bytes_of_its_own() {
    let line = said(5000, PREMATURE, 0, BODY);
    let cut = sent().answer(2).fin(4000, 0).eof(5000).closed(5000);
    let incident = one(cut.clone(), &line);
    assert_verdict(&incident, Cause::ResponseAborted, Confidence::Likely);
    let incident = one_by_call(cut, &line);
    assert_verdict(&incident, Cause::ResponseAborted, Confidence::Certain);
    assert!(
        incident.evidence[0].contains("nginx found it 1000.0 ms later"),
        "{:?}",
        incident.evidence
    );
    assert_eq!(
        (incident.retried, incident.served),
        (Some(false), Some(false))
    );
    assert_verdict(&alone(&line), Cause::ResponseAborted, Confidence::Likely);
    // Bytes of the response before are none of this one's.
    let older = sent()
        .answer(2)
        .request(4000)
        .fin(4500, 0)
        .eof(5000)
        .closed(5000);
    let header = said(5000, PREMATURE, 0, HEADER);
    assert_eq!(one(older, &header).cause, Cause::ClosedWithoutAnswer);
}

#[test]
fn an_early_answer_that_nginx_could_not_read_is_an_answer() {
    let line = said(5000, "writev() failed", 104, SENDING);
    let mut early = sent()
        .rst(4999, 0)
        .fails(5000, Call::Send, 104)
        .closed(5000);
    early.awaiting_at_end = false;
    early.unread_at_end = Some(180);
    let incident = one(early, &line);
    assert_verdict(&incident, Cause::Unexplained, Confidence::Possible);
    assert!(
        incident
            .evidence
            .iter()
            .any(|sentence| sentence.contains("180 bytes"))
    );
}

#[test]
fn a_line_alone_leaves_a_close_without_answer_possible() {
    let line = said(5000, PREMATURE, 0, HEADER);
    assert_verdict(
        &alone(&line),
        Cause::ClosedWithoutAnswer,
        Confidence::Possible,
    );
}

#[test]
fn a_rejected_response_and_a_client_that_left_are_nginxs_own_words() {
    let line = said(5000, "upstream sent too big header", 0, HEADER);
    let incident = one(sent().answer(4999).closed(5000), &line);
    assert_verdict(&incident, Cause::ResponseRejected, Confidence::Certain);
    assert!(incident.advice.unwrap().contains("raise proxy_buffer_size"));
    assert_verdict(&alone(&line), Cause::ResponseRejected, Confidence::Likely);
    let mut line = said(
        5000,
        "epoll_wait() reported that client prematurely closed connection, so upstream connection \
         is closed too",
        0,
        CONNECTING,
    );
    line.level = 7;
    let mut connecting = connection(1, 4000).closed(5000);
    connecting.established_ns = None;
    assert_verdict(
        &one(connecting, &line),
        Cause::ClientAbort,
        Confidence::Certain,
    );
    assert_verdict(&alone(&line), Cause::ClientAbort, Confidence::Likely);
}

#[test]
fn a_client_that_left_in_its_upload_did_so_while_nginx_sent() {
    for (message, errno) in [
        ("client prematurely closed connection", 0),
        ("recv() failed", 104),
    ] {
        let mut line = said(5000, message, errno, SENDING);
        line.level = 7;
        let incident = one(sent().closed(5000), &line);
        assert_verdict(&incident, Cause::ClientAbort, Confidence::Certain);
        assert_eq!(incident.phase, Phase::Send);
        assert!(incident.evidence[0].contains("in the middle of its request"));
    }
}

#[test]
fn a_link_local_address_leads_nowhere_and_other_invalid_arguments_are_not_explained() {
    let invalid = |upstream: &str| {
        let message = format!("connect() to {upstream} failed");
        let mut line = said(5000, &message, 22, CONNECTING);
        line.level = 3;
        line.upstream = format!("http://{upstream}/a");
        alone(&line)
    };
    let local = invalid("[fe80::1]:80");
    assert_verdict(&local, Cause::Unreachable, Confidence::Certain);
    assert!(local.evidence[0].contains("without an interface"));
    for other in ["[fd00::1]:80", "127.0.0.1:80"] {
        assert_ne!(invalid(other).cause, Cause::Unreachable, "{other}");
    }
}

#[test]
fn no_live_upstreams_names_the_failures_of_its_peers() {
    let first = said(5000, PREMATURE, 0, HEADER);
    let failed = sent().fin(4999, 0).eof(5000).closed(5000);
    let mut nobody = said(5001, "no live upstreams", 0, CONNECTING);
    nobody.upstream = "http://app/a".to_owned();
    nobody.number = 8;
    let report = judged(vec![
        first.logged(),
        ended(failed),
        nobody.logged(),
        first.line(),
        nobody.line(),
    ])
    .report;
    assert_verdict(
        &report.incidents[1],
        Cause::NoLiveUpstreams,
        Confidence::Certain,
    );
    let named = &report.incidents[1].evidence[1];
    assert!(named.contains("#1"), "{named}");
}

#[test]
fn fastcgi_is_advised_in_its_own_directives() {
    let mut line = said(5000, "upstream timed out", 110, HEADER);
    line.upstream = format!("fastcgi://{PEER}");
    let incident = one(sent().closed(5000), &line);
    assert!(incident.advice.unwrap().contains("fastcgi_read_timeout"));
}

#[test]
fn losses_take_from_the_confidence() {
    let line = said(5000, "upstream timed out", 110, HEADER);
    let loss = Record::Loss(crate::trace::record::Loss {
        ns: at(5500),
        since_ns: None,
        what: "connection_records".to_owned(),
        count: 1,
    });
    let records = vec![line.logged(), ended(sent().closed(5000)), line.line(), loss];
    let incident = only(judged(records));
    assert_verdict(&incident, Cause::ReadTimeout, Confidence::Likely);
    assert!(
        incident
            .evidence
            .last()
            .unwrap()
            .starts_with("1 record was lost")
    );
}
