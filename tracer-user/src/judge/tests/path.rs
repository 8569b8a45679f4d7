//! The path between nginx and the backend: resets that the backend did not send, silence,
//! and the queue at its end.

use super::*;
use crate::report::model::{Means, Side};
use crate::trace::record::Listener;

const TIMED_OUT: &str = "upstream timed out";

/// A request that was sent again and never acknowledged.
fn unacknowledged() -> Connection {
    let mut connection = connection(1, 0)
        .request(0)
        .answer(0)
        .request(1)
        .closed(5000);
    connection.exchange_retransmits = 6;
    connection.unacked_at_close = Some(80);
    connection
}

#[test]
fn a_request_sent_again_and_never_acknowledged_is_the_paths() {
    let line = said(5000, TIMED_OUT, 110, HEADER);
    let incident = one(unacknowledged(), &line);
    assert_verdict(&incident, Cause::PathTimeout, Confidence::Certain);
    assert_eq!(
        (incident.side, incident.means),
        (Side::Network, Means::Timeout)
    );
    let sending = said(5000, TIMED_OUT, 110, SENDING);
    assert_eq!(one(unacknowledged(), &sending).cause, Cause::PathTimeout);
    // The backend's host may never have had it: a full queue drops the same.
    let mut fresh = connection(1, 0).request(1).closed(5000);
    fresh.exchange_retransmits = 6;
    fresh.unacked_at_close = Some(80);
    assert_verdict(&one(fresh, &line), Cause::PathTimeout, Confidence::Likely);
}

#[test]
fn what_was_acknowledged_or_not_sent_again_is_a_timeout_of_the_backend() {
    let line = said(5000, TIMED_OUT, 110, HEADER);
    let acknowledged = Connection {
        unacked_at_close: Some(0),
        ..unacknowledged()
    };
    let incident = one(acknowledged, &line);
    assert_verdict(&incident, Cause::ReadTimeout, Confidence::Certain);
    assert!(
        incident
            .evidence
            .iter()
            .any(|one| one.contains("acknowledged the whole")),
        "{:?}",
        incident.evidence
    );
    let once = Connection {
        exchange_retransmits: 0,
        ..unacknowledged()
    };
    assert_eq!(one(once, &line).cause, Cause::ReadTimeout);
    let partly = Connection {
        unacked_at_close: Some(40),
        ..unacknowledged()
    };
    let sending = said(5000, TIMED_OUT, 110, SENDING);
    assert_eq!(one(partly, &sending).cause, Cause::SendTimeout);
    // Traces of before do not say what was acknowledged.
    let unknown = Connection {
        unacked_at_close: None,
        ..unacknowledged()
    };
    assert_eq!(one(unknown, &line).cause, Cause::ReadTimeout);
}

#[test]
fn the_kernels_own_timeout_on_an_established_connection_is_the_paths() {
    let line = said(5000, "recv() failed", 110, HEADER);
    let gone = connection(1, 0).request(1).answer(2).request(3);
    let gone = gone.fails(5000, Call::Receive, 110).closed(5000);
    let incident = one(gone.clone(), &line);
    assert_verdict(&incident, Cause::PathTimeout, Confidence::Certain);
    // Nothing was ever acknowledged, as far as was noted: older captures noted 0 then.
    let first = connection(1, 0).request(1);
    let mut first = first.fails(5000, Call::Receive, 110).closed(5000);
    first.socket_error = Some(110);
    for (unacked, confidence) in [
        (None, Confidence::Likely),
        (Some(0), Confidence::Likely),
        (Some(80), Confidence::Likely),
        (Some(40), Confidence::Certain),
    ] {
        first.unacked_at_close = unacked;
        let incident = one(first.clone(), &line);
        assert_verdict(&incident, Cause::PathTimeout, confidence);
    }
    let alone = only(judged(vec![line.line()]));
    assert_verdict(&alone, Cause::PathTimeout, Confidence::Likely);
    // Over TLS nginx's line hides it.
    let mut tls = said(5000, PREMATURE, 0, HEADER);
    tls.upstream = format!("https://{PEER}/a");
    let incident = one(gone, &tls);
    assert_verdict(&incident, Cause::PathTimeout, Confidence::Certain);
    assert_eq!(incident.side, Side::Network);
    let connecting = said(5000, "connect() failed", 110, CONNECTING);
    let mut never = connection(1, 0).closed(5000);
    never.established_ns = None;
    never.socket_error = Some(110);
    assert_eq!(one(never, &connecting).cause, Cause::ConnectTimeout);
}

#[test]
fn an_answer_that_came_as_nginx_gave_up_is_named() {
    let line = said(5000, TIMED_OUT, 110, HEADER);
    let mut late = connection(1, 0).request(1).closed(5000);
    late.unread_at_close = Some(180);
    let incident = one(late, &line);
    assert_eq!(incident.cause, Cause::ReadTimeout);
    assert!(
        incident
            .evidence
            .iter()
            .any(|one| one.contains("180 bytes of its answer")),
        "{:?}",
        incident.evidence
    );
}

/// A reused connection whose request was answered by an RST, after this silence.
fn reset_after(silence_ms: u64) -> (Said, Connection) {
    let end = 2 + silence_ms + 1;
    let connection = connection(1, 0)
        .request(1)
        .answer(2)
        .request(2 + silence_ms)
        .rst(end, 80)
        .fails(end, Call::Receive, 104)
        .closed(end);
    (said(end, "recv() failed", 104, HEADER), connection)
}

fn with(
    (line, connection): (Said, Connection),
    others: impl IntoIterator<Item = Record>,
) -> Incident {
    let mut records: Vec<Record> = others.into_iter().collect();
    records.extend([line.logged(), ended(connection), line.line()]);
    only(judged(records))
}

#[test]
fn a_reset_at_a_time_at_which_the_backend_closes_none_may_be_the_paths() {
    let incident = with(reset_after(5000), idle_closes(5, 1000));
    assert_verdict(&incident, Cause::PathReset, Confidence::Possible);
    assert_eq!((incident.side, incident.means), (Side::Network, Means::Rst));
    let near = with(reset_after(1010), idle_closes(5, 1000));
    assert_verdict(&near, Cause::StaleKeepalive, Confidence::Likely);
    let unknown = with(reset_after(5000), []);
    assert_verdict(&unknown, Cause::StaleKeepalive, Confidence::Likely);
}

#[test]
fn a_reset_while_the_backends_own_socket_was_open_is_the_paths() {
    let incident = with(reset_after(5000), [local_backend()]);
    assert_verdict(&incident, Cause::PathReset, Confidence::Likely);
    let closed = with(
        reset_after(5000),
        [local_backend(), closed_by_call(1, 5002, 0)],
    );
    assert_eq!(closed.cause, Cause::StaleKeepalive);
    let line = said(5000, "recv() failed", 104, HEADER);
    let first = connection(1, 4000)
        .request(4001)
        .rst(4999, 0)
        .fails(5000, Call::Receive, 104)
        .closed(5000);
    let in_flight = with((line.clone(), first.clone()), [local_backend()]);
    assert_eq!(in_flight.cause, Cause::PathReset);
    let mut before = first.clone();
    before.first_seen_mid_life = true;
    assert_eq!(
        with((line.clone(), before), [local_backend()]).cause,
        Cause::ClosedWithoutAnswer
    );
    let elsewhere = with((line, first), []);
    assert_eq!(elsewhere.cause, Cause::ClosedWithoutAnswer);
}

#[test]
fn a_fin_is_never_the_paths() {
    let line = said(5000, PREMATURE, 0, HEADER);
    let closed = connection(1, 4000)
        .request(4001)
        .fin(4999, 0)
        .eof(5000)
        .closed(5000);
    let incident = with((line, closed), [local_backend()]);
    assert_eq!(incident.cause, Cause::ClosedWithoutAnswer);
}

fn full_queue(ms: u64, address: &str, netns: u32) -> Record {
    let address: SocketAddr = address.parse().unwrap();
    Record::Listener(Listener {
        ns: at(ms),
        address: address.ip(),
        port: address.port(),
        netns,
        queued: 129,
        limit: 128,
    })
}

fn never_answered() -> (Said, Connection) {
    let mut never = connection(1, 3000).closed(5000);
    never.established_ns = None;
    never.retransmits = 1;
    (said(5000, TIMED_OUT, 110, CONNECTING), never)
}

#[test]
fn a_connect_timeout_at_a_queue_seen_full_is_the_backends() {
    for address in [PEER, "0.0.0.0:9101", "[::]:9101"] {
        let incident = with(never_answered(), [full_queue(4000, address, 1)]);
        assert_verdict(&incident, Cause::BacklogFull, Confidence::Certain);
        assert!(incident.evidence[0].contains("129 waited, 128 may"));
    }
    let container = with(never_answered(), [full_queue(4000, "0.0.0.0:9101", 2)]);
    assert_verdict(&container, Cause::BacklogFull, Confidence::Likely);
    let line = never_answered().0;
    let alone = only(judged(vec![full_queue(4000, PEER, 1), line.line()]));
    assert_verdict(&alone, Cause::BacklogFull, Confidence::Likely);
}

#[test]
fn a_queue_full_elsewhere_or_at_another_time_explains_nothing() {
    for queue in [
        full_queue(4000, "127.0.0.1:9102", 1),
        full_queue(4000, "127.0.0.2:9101", 1),
        full_queue(1000, PEER, 1),
        full_queue(8000, PEER, 1),
    ] {
        let incident = with(never_answered(), [queue]);
        assert_verdict(&incident, Cause::ConnectTimeout, Confidence::Certain);
    }
}

#[test]
fn a_connection_that_only_nginx_has_waits_in_the_queue() {
    let line = said(5000, TIMED_OUT, 110, HEADER);
    let queue = || [full_queue(4000, PEER, 1)];
    let incident = with((line.clone(), unacknowledged()), queue());
    assert_verdict(&incident, Cause::BacklogFull, Confidence::Likely);
    let taken = connection(1, 0).request(1).closed(5000);
    assert_eq!(with((line, taken), queue()).cause, Cause::ReadTimeout);
}

#[test]
fn a_shorter_connect_timeout_is_advised_only_if_it_is_long() {
    let records = || {
        let (line, connection) = never_answered();
        vec![line.logged(), ended(connection), line.line()]
    };
    let long = advised(&[("proxy_connect_timeout", "5s")], records());
    assert!(long.contains("a shorter proxy_connect_timeout"), "{long}");
    let short = advised(&[("proxy_connect_timeout", "500ms")], records());
    assert!(!short.contains("shorter"), "{short}");
}

#[test]
fn a_reset_of_a_connection_that_the_backend_never_had_is_not_the_paths() {
    // Its queue was full: nginx's side alone was established.
    let line = said(5000, "recv() failed", 104, HEADER);
    let half_open = connection(1, 4000)
        .request(4001)
        .rst(4999, 80)
        .fails(5000, Call::Receive, 104)
        .closed(5000);
    let incident = with((line, half_open), [local_backend()]);
    assert_eq!(incident.cause, Cause::ClosedWithoutAnswer);
}

#[test]
fn a_backend_that_closed_after_the_reset_had_not_sent_it() {
    let (line, reset) = reset_after(5000);
    let end = line.ms;
    let later = with(
        (line.clone(), reset.clone()),
        [closed_by_call(1, end + 300, 0)],
    );
    assert_verdict(&later, Cause::PathReset, Confidence::Certain);
    assert!(
        later
            .evidence
            .iter()
            .any(|one| one.contains("300.0 ms later")),
        "{:?}",
        later.evidence
    );
    // Even if its process died then.
    let died = with(
        (line, reset),
        [peer_close(1, end + 300, Some(Exit::Signal(9)))],
    );
    assert_eq!(died.cause, Cause::PathReset);
}

#[test]
fn without_a_timeout_others_that_idled_longer_and_resets_at_any_age_speak_for_the_path() {
    let (line, reset) = reset_after(1000);
    let longer = connection(50, 100)
        .request(100)
        .answer(101)
        .request(4000)
        .answer(4001)
        .closed(4002);
    let incident = with((line.clone(), reset.clone()), [ended(longer)]);
    assert_verdict(&incident, Cause::PathReset, Confidence::Possible);
    let (_, mut other) = reset_after(3000);
    other.cookie = 51;
    let incident = with((line, reset), [ended(other)]);
    assert_verdict(&incident, Cause::PathReset, Confidence::Possible);
}

#[test]
fn a_timer_of_nginxs_that_ran_out_before_any_acknowledgement_is_likely() {
    let line = said(5000, TIMED_OUT, 110, HEADER);
    let mut late = connection(1, 0).request(4960).closed(5000);
    late.unacked_at_close = Some(80);
    assert_verdict(&one(late, &line), Cause::ReadTimeout, Confidence::Likely);
}
