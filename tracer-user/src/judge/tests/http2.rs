//! HTTP/2 to upstreams: what it sends of its own is no request, and it ends requests
//! without ending connections. Messages are those of nginx 1.22.1; the order of sends
//! and receives is what a first call makes: its request with nginx's settings, the
//! backend's settings, and nginx's acknowledgement of those.

use super::*;
use crate::report::model::{Means, Phase, Side};

fn over_grpc(line: Said) -> Said {
    Said {
        upstream: format!("grpc://{PEER}"),
        ..line
    }
}

/// A new connection: the call, the backend's settings, their acknowledgement.
fn called() -> Connection {
    connection(1, 0).request(1).answer(2).request(2)
}

/// The same, answered, and called again after this silence.
fn called_again(silence_ms: u64) -> Connection {
    called().answer(3).request(3 + silence_ms)
}

#[track_caller]
fn nothing_is_claimed_of_requests(incident: &Incident) {
    let connection = incident.connection.as_ref().unwrap();
    assert_eq!((connection.requests, connection.reused), (None, None));
}

#[test]
fn a_close_that_crosses_an_acknowledgement_is_not_stale() {
    let line = over_grpc(said(5000, PREMATURE, 0, HEADER));
    for crossing in [0, 9] {
        let closed = called().fin(4999, crossing).eof(5000).closed(5000);
        let incident = one(closed, &line);
        assert_eq!(incident.cause, Cause::ClosedWithoutAnswer, "{crossing}");
        assert_ne!(incident.confidence, Confidence::Certain);
        nothing_is_claimed_of_requests(&incident);
        assert_eq!(incident.connection.unwrap().in_flight_ms, None);
        let said = incident.evidence.join(". ");
        assert!(!said.contains("the whole request"), "{said}");
    }
    // Without HTTP/2 the same is a stale connection.
    let closed = called().fin(4999, 80).eof(5000).closed(5000);
    let plain = said(5000, PREMATURE, 0, HEADER);
    assert_eq!(one(closed, &plain).cause, Cause::StaleKeepalive);
}

#[test]
fn after_a_long_silence_it_may_be_stale() {
    let line = over_grpc(said(5000, PREMATURE, 0, HEADER));
    let stale = called_again(4990).fin(4994, 80).eof(5000).closed(5000);
    let incident = one(stale, &line);
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Likely);
    nothing_is_claimed_of_requests(&incident);
}

#[test]
fn a_ping_in_an_answer_does_not_undo_it() {
    let line = over_grpc(said(5000, PREMATURE, 0, BODY));
    let aborted = called()
        .answer(4000)
        .request(4000)
        .fin(4999, 0)
        .eof(5000)
        .closed(5000);
    let incident = one(aborted, &line);
    assert_eq!(incident.cause, Cause::ResponseAborted);
    assert_eq!(incident.phase, Phase::Body);
}

#[test]
fn a_stream_that_is_reset_is_the_backends_end() {
    let rejected = |error: u32, action| {
        let message = format!("upstream rejected request with error {error}");
        over_grpc(said(5000, &message, 0, action))
    };
    let closed = || called().answer(5000).closed(5000);
    let incident = one(closed(), &rejected(7, HEADER));
    assert_verdict(&incident, Cause::ClosedWithoutAnswer, Confidence::Certain);
    assert_eq!(
        (incident.side, incident.means, incident.phase),
        (Side::Backend, Means::Close, Phase::Wait)
    );
    assert!(incident.evidence[0].contains("REFUSED_STREAM"));
    assert!(incident.advice.unwrap().contains("grpc_next_upstream"));
    let incident = one(closed(), &rejected(2, BODY));
    assert_eq!(incident.cause, Cause::ResponseAborted);
    assert!(incident.evidence[0].contains("INTERNAL_ERROR"));
    let unknown = one(closed(), &rejected(4711, HEADER));
    assert!(unknown.evidence[0].contains("error 4711"));
}

#[test]
fn a_goodbye_makes_a_stale_connection_only_of_one_that_was_silent() {
    let line = over_grpc(said(5000, "upstream sent goaway with error 0", 0, HEADER));
    let silent = called_again(4990).answer(5000).closed(5000);
    let incident = one(silent, &line);
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Likely);
    assert_eq!(
        (incident.side, incident.phase),
        (Side::Backend, Phase::Idle)
    );
    for busy in [called(), called_again(200)] {
        let incident = one(busy.answer(5000).closed(5000), &line);
        assert_verdict(&incident, Cause::ClosedWithoutAnswer, Confidence::Likely);
        assert_eq!(incident.phase, Phase::Wait);
    }
    let first = connection(1, 4990).request(4990).answer(5000).closed(5000);
    let incident = one(first, &line);
    assert_verdict(&incident, Cause::ClosedWithoutAnswer, Confidence::Certain);
    // With an error it is no ordinary close.
    let line = over_grpc(said(5000, "upstream sent goaway with error 1", 0, HEADER));
    let incident = one(called_again(4990).answer(5000).closed(5000), &line);
    assert_eq!(incident.cause, Cause::ClosedWithoutAnswer);
    assert!(incident.evidence[0].contains("PROTOCOL_ERROR"));
}

/// Answered and acknowledged, ended while idle, and called with so many bytes, which the
/// backend's host met with an RST. `sent_before`: bytes since the answer.
fn called_after_the_end(sent_before: u32, call: u32) -> Connection {
    let mut stale = connection(1, 0).request(1).answer(2).request(2);
    stale = stale.fin(4900, 0).rst(4951, call);
    stale.last_sent_ns = Some(at(4950));
    stale.request_bytes = u64::from(sent_before + call);
    stale
}

#[test]
fn a_call_that_follows_an_acknowledgement_begins_no_exchange_and_is_stale_all_the_same() {
    let goodbye = over_grpc(said(5000, "upstream sent goaway with error 0", 0, HEADER));
    let ended = over_grpc(said(5000, PREMATURE, 0, HEADER));
    let with_goodbye = |connection: Connection| connection.answer(5000).closed(5000);
    let without = |connection: Connection| connection.eof(5000).closed(5000);
    for incident in [
        one(with_goodbye(called_after_the_end(9, 120)), &goodbye),
        one(without(called_after_the_end(9, 120)), &ended),
    ] {
        assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Likely);
        assert_eq!(incident.phase, Phase::Idle);
        nothing_is_claimed_of_requests(&incident);
    }
    // The call had been sent: it was in the backend's hands when it ended.
    for incident in [
        one(with_goodbye(called_after_the_end(150, 13)), &goodbye),
        one(without(called_after_the_end(150, 13)), &ended),
    ] {
        assert_verdict(&incident, Cause::ClosedWithoutAnswer, Confidence::Likely);
    }
}

/// What the report says of the upstream's requests.
fn requests(nginx: Nginx, connections: Vec<Connection>) -> Option<u64> {
    let mut records = beginning_with(nginx);
    records.extend(connections.into_iter().map(ended));
    let judged = judge(records).finish(Vec::new());
    judged.report.upstreams[0].requests
}

fn passing(module: &str, pass: &str, version: Option<&str>) -> Nginx {
    let mut nginx = nginx();
    let settings = version.map(|version| ("proxy_http_version".to_owned(), version.to_owned()));
    let locations = &mut nginx.configuration.as_mut().unwrap().locations;
    locations.push(ProxyLocation {
        module: module.to_owned(),
        pass: pass.to_owned(),
        settings: settings.into_iter().collect(),
        ..ProxyLocation::default()
    });
    nginx
}

#[test]
fn requests_are_given_only_where_exchanges_are_requests() {
    let plain = || called().closed(9);
    let shaken = || {
        let mut connection = called().closed(9);
        connection.handshake_ns = Some(at(1));
        connection
    };
    let older = || {
        let mut connection = called().closed(9);
        connection.first_seen_mid_life = true;
        connection
    };
    for (nginx, connection, known) in [
        (passing("proxy", "http://app", None), plain(), true),
        (passing("proxy", "http://app", Some("1.1")), plain(), true),
        (passing("proxy", "http://app", Some("2")), plain(), false),
        (passing("grpc", "app", None), plain(), false),
        (passing("", "grpc://app", None), plain(), false),
        (passing("proxy", "https://app", None), plain(), false),
        (passing("proxy", "https://app", None), shaken(), true),
        // Its handshake was before the capture.
        (passing("proxy", "https://app", None), older(), true),
        (passing("grpc", "grpcs://app", None), shaken(), false),
    ] {
        let text = format!("{nginx:?}");
        assert_eq!(requests(nginx, vec![connection]).is_some(), known, "{text}");
    }
    // A first request was never sent: its handshake failed.
    let nginx = passing("proxy", "https://app", None);
    assert_eq!(requests(nginx, vec![connection(1, 0).closed(9)]), Some(0));
}
