//! Tests of the timeline.

use super::*;
use crate::report::model::Cause;
use crate::report::text::samples;
use crate::trace::record::{Call, ConnectionEnd, Exit, IdleEnd};

/// Kept alive, idle for a second, used again as the backend closed it.
fn stale() -> Connection {
    serde_json::from_value(serde_json::json!({
        "cookie": 4711, "netns": 1, "local": "127.0.0.1:40312", "remote": "127.0.0.1:9101",
        "pid": 812, "tid": 812, "comm": "nginx", "cgroup": 1,
        "opened_ns": 5_000_000_000_u64, "established_ns": 5_000_050_000_u64,
        "last_sent_ns": 6_003_400_000_u64, "last_received_ns": 5_003_200_000_u64,
        "request_started_ns": 6_003_400_000_u64, "fin_received_ns": 6_003_500_000_u64,
        "eof_read_ns": 6_003_590_000_u64, "closed_ns": 6_003_640_000_u64,
        "ended_ns": 6_003_641_000_u64, "end": "closed", "idle_before_ns": 1_000_200_000,
        "sent_bytes": 174, "received_bytes": 300, "request_bytes": 87, "response_bytes": 0,
        "exchanges": 2, "exchanges_at_end": 2, "awaiting_at_end": true, "retransmits": 0,
        "exchange_retransmits": 0, "unacked_at_fin": 87, "first_seen_mid_life": false
    }))
    .unwrap()
}

fn logged() -> Logged {
    Logged {
        ns: 6_003_613_000,
        pid: 812,
        tid: 812,
        level: 4,
        errno: 104,
        connection: 55,
    }
}

fn continuation() -> Continuation {
    Continuation {
        failed_cookie: 4711,
        tid: 812,
        closed_ns: 6_003_640_000,
        next: Next::Connect,
        next_cookie: Some(4712),
        next_ns: 6_003_700_000,
    }
}

#[test]
fn events_are_in_order_and_relative_to_the_request() {
    let events = events_of(&stale(), Some(&logged()), Some(&continuation()), None);
    let told: Vec<_> = events
        .iter()
        .map(|e| (e.ns / 1000, e.whose.word(), e.what.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (
                -1_003_400,
                "nginx",
                "connects from 127.0.0.1:40312 to 127.0.0.1:9101"
            ),
            (-1_003_350, "kernel", "handshake done"),
            (
                -1_000_200,
                "backend",
                "last byte of the exchange before (number 1)"
            ),
            (0, "nginx", "sends request 2, 87 bytes in all"),
            (
                100,
                "backend",
                "FIN received, 87 bytes not yet acknowledged"
            ),
            (190, "nginx", "reads end of stream"),
            (213, "log", "writes the error line, ECONNRESET (104)"),
            (240, "nginx", "closes the connection"),
            (300, "nginx", "retries: opens another upstream connection"),
        ]
    );
}

#[test]
fn the_timeline_shows_silence_and_reads_well() {
    let events = events_of(&stale(), Some(&logged()), Some(&continuation()), None);
    let mut out = String::new();
    render(
        &samples::incident(Cause::StaleKeepalive),
        &events,
        &TextOptions::default(),
        &mut out,
    )
    .unwrap();
    assert!(out.contains("1000.2 ms of silence"));
    assert!(out.lines().all(|line| line.len() <= 80));
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/expected/report/timeline.txt"
    );
    if std::env::var_os("WHOCLOSED_BLESS").is_some() {
        std::fs::write(path, &out).unwrap();
    }
    assert_eq!(out, std::fs::read_to_string(path).unwrap());
}

#[test]
fn every_event_of_a_connection_is_told() {
    let mut connection = stale();
    connection.first_byte_ns = Some(6_003_410_000);
    connection.last_received_ns = Some(6_003_420_000);
    connection.rst_received_ns = Some(6_003_550_000);
    connection.unacked_at_rst = Some(1);
    connection.failed_call_ns = Some(6_003_560_000);
    connection.failed_call = Some(Call::Send);
    connection.failed_call_errno = Some(32);
    connection.idle_end_seen_ns = Some(6_003_570_000);
    connection.idle_end = Some(IdleEnd::Bytes);
    connection.closed_ns = None;
    connection.rst_sent_ns = Some(6_003_640_500);
    connection.rst_sent_reason = Some(3);
    connection.end = ConnectionEnd::Destroyed;
    connection.socket_error = Some(104);
    let told: Vec<_> = events_of(&connection, None, None, None)
        .into_iter()
        .map(|e| e.what)
        .collect();
    for what in [
        "first byte of the response",
        "last byte received, 0 bytes of response in all",
        "RST received, 1 byte not yet acknowledged",
        "send fails: EPIPE (32)",
        "looks at the idle connection: bytes that nobody asked for",
        "RST sent, the kernel's reason 3",
        "socket destroyed: ECONNRESET (104)",
    ] {
        assert!(
            told.iter().any(|line| line == what),
            "{what} is missing in {told:#?}"
        );
    }
}

#[test]
fn times_without_sense_do_no_harm() {
    let mut connection = stale();
    connection.request_started_ns = Some(u64::MAX);
    connection.opened_ns = 0;
    connection.idle_before_ns = Some(u64::MAX);
    let events = events_of(&connection, Some(&logged()), Some(&continuation()), None);
    let mut out = String::new();
    let incident = samples::incident(Cause::Unexplained);
    render(&incident, &events, &TextOptions::default(), &mut out).unwrap();
    render(&incident, &[], &TextOptions::default(), &mut out).unwrap();
    assert!(out.contains("No connection of this incident"));
}

#[test]
fn the_backends_process_and_its_end_are_told() {
    let peer = |exit, unread_bytes, accepted| PeerClose {
        cookie: 4711,
        netns: 1,
        ns: 6_003_450_000,
        pid: 900,
        parent_pid: 899,
        comm: "gunicorn".to_owned(),
        exit,
        unread_bytes,
        received_bytes: 174,
        accepted,
        may_be_copy: false,
        host: None,
    };
    let told = |peer: PeerClose| {
        let events = events_of(&stale(), None, None, Some(&peer));
        let at = events.iter().position(|e| e.ns == 50_000).unwrap();
        assert_eq!(events[at].whose, Whose::Backend);
        assert!(events[at + 1].what.starts_with("FIN received"));
        events[at].what.clone()
    };
    assert_eq!(
        told(peer(Some(Exit::Signal(9)), 1024, true)),
        "process 900 (gunicorn) was killed by SIGKILL, which closes the connection \
         with 1,024 bytes unread"
    );
    assert_eq!(
        told(peer(Some(Exit::Code(3)), 0, true)),
        "process 900 (gunicorn) exits with status 3, which closes the connection"
    );
    assert_eq!(
        told(peer(Some(Exit::OutOfMemory), 0, true)),
        "process 900 (gunicorn) was killed because memory ran out, which closes the connection"
    );
    assert_eq!(
        told(peer(None, 0, false)),
        "process 900 (gunicorn) closes the connection; nobody had accepted it"
    );
}

fn told(connection: &Connection) -> Vec<String> {
    let events = events_of(connection, None, None, None);
    events.into_iter().map(|event| event.what).collect()
}

#[test]
fn a_connection_older_than_the_capture_was_not_opened_in_it() {
    let mut connection = stale();
    connection.first_seen_mid_life = true;
    connection.established_ns = Some(connection.opened_ns);
    let told = told(&connection);
    assert!(
        told.contains(
            &"the capture begins; the connection from 127.0.0.1:40312 to 127.0.0.1:9101 was open \
              before it"
                .to_owned()
        ),
        "{told:?}"
    );
    assert!(
        told.contains(&"sends request 2 or a later one, 87 bytes in all".to_owned()),
        "{told:?}"
    );
    for never in ["connects", "handshake", "number 1"] {
        assert!(!told.iter().any(|what| what.contains(never)), "{told:?}");
    }
}

#[test]
fn a_request_older_than_the_capture_has_no_size() {
    let mut connection = stale();
    connection.first_seen_mid_life = true;
    connection.request_started_ns = Some(connection.opened_ns - 1);
    connection.last_sent_ns = connection.request_started_ns;
    connection.idle_before_ns = None;
    let told = told(&connection);
    assert!(told.contains(&"last byte sent".to_owned()), "{told:?}");
    assert!(!told.iter().any(|what| what.contains("in all")), "{told:?}");
}

#[test]
fn what_a_gap_hides_is_not_told() {
    let mut filled = stale();
    filled.missed_calls = 1;
    filled.filled_in = true;
    filled.request_bytes = 300;
    filled.first_byte_ns = Some(6_003_450_000);
    filled.last_received_ns = Some(6_003_460_000);
    filled.response_bytes = 777;
    let told = |connection: &Connection| -> Vec<String> {
        let events = events_of(connection, Some(&logged()), None, None);
        events.into_iter().map(|event| event.what).collect()
    };
    let events = told(&filled);
    assert!(
        !events.iter().any(|what| what.contains("300 bytes")),
        "{events:?}"
    );
    assert!(
        !events.iter().any(|what| what.contains("777")),
        "{events:?}"
    );
    assert!(
        events.contains(&"sends request 2 or a later one".to_owned()),
        "{events:?}"
    );
    assert!(
        events.contains(&"last byte received".to_owned()),
        "{events:?}"
    );
}

#[test]
fn an_end_that_was_met_unseen_has_no_moment_of_its_own() {
    let met = "must have met the end; the call was not seen";
    let mut read = stale();
    read.eof_read_ns = read.fin_received_ns;
    let mut failed = stale();
    failed.eof_read_ns = None;
    failed.fin_received_ns = None;
    failed.rst_received_ns = Some(6_003_500_000);
    failed.failed_call_ns = failed.rst_received_ns;
    failed.failed_call_errno = Some(104);
    for inferred in [read, failed] {
        let events = events_of(&inferred, Some(&logged()), None, None);
        let told: Vec<_> = events.iter().map(|event| event.what.as_str()).collect();
        assert!(told.contains(&met), "{told:?}");
        assert!(
            !told.iter().any(|what| what.contains("reads end")),
            "{told:?}"
        );
        assert!(!told.iter().any(|what| what.contains("fails")), "{told:?}");
    }
    let seen = events_of(&stale(), Some(&logged()), None, None);
    assert!(!seen.iter().any(|event| event.what == met));
}

fn rendered(connection: &Connection) -> String {
    let events = events_of(connection, None, None, None);
    let mut out = String::new();
    let incident = samples::incident(Cause::Unexplained);
    let wide = TextOptions {
        width: 120,
        ..TextOptions::default()
    };
    render(&incident, &events, &wide, &mut out).unwrap();
    let (_, timeline) = out.split_once("Timeline").unwrap();
    timeline.to_owned()
}

#[test]
fn a_reset_that_answers_the_request_stands_after_it() {
    let mut connection = stale();
    let sent = connection.request_started_ns.unwrap();
    connection.fin_received_ns = Some(sent - 7_000_000);
    connection.unacked_at_fin = Some(0);
    let order = |connection: &Connection| {
        let events = events_of(connection, None, None, None);
        let at = |begins: &str| {
            events
                .iter()
                .position(|e| e.what.starts_with(begins))
                .unwrap()
        };
        assert!(at("FIN received") < at("sends request 2"));
        (
            at("sends request 2") < at("RST received"),
            events[at("RST received")].ns,
        )
    };
    // It came while the call that sent the request had not returned.
    connection.rst_received_ns = Some(sent - 2_000);
    connection.unacked_at_rst = Some(87);
    assert_eq!(order(&connection), (true, 0));
    connection.rst_received_ns = Some(sent + 30_000);
    assert_eq!(order(&connection), (true, 30_000));
    // Bytes of another request, and a time that no call takes.
    connection.rst_received_ns = Some(sent - 2_000);
    connection.unacked_at_rst = Some(80);
    assert_eq!(order(&connection), (false, -2_000));
    connection.rst_received_ns = Some(sent - 6_000_000);
    connection.unacked_at_rst = Some(87);
    assert_eq!(order(&connection), (false, -6_000_000));
}

#[test]
fn exchanges_that_are_not_recorded_are_no_silence() {
    let mut connection = stale();
    // 3.4 ms, and 1.0 s of silence: the first second had the earlier ones.
    connection.opened_ns -= 1_000_000_000;
    connection.established_ns = Some(connection.opened_ns + 50_000);
    for (exchanges, told) in [
        (
            2,
            "1003.1 ms: exchange 1, of which only the end is recorded",
        ),
        (4, "1003.1 ms: exchanges 1 to 3, not recorded one by one"),
    ] {
        connection.exchanges = exchanges;
        let out = rendered(&connection);
        assert!(out.contains(told), "{out}");
        assert_eq!(out.matches("of silence").count(), 1, "{out}");
        assert!(out.contains("1000.2 ms of silence"), "{out}");
    }
    connection.missed_calls = 1;
    let out = rendered(&connection);
    let told = "1003.1 ms: earlier exchanges are not recorded one by one";
    assert!(out.contains(told), "{out}");
}

#[test]
fn a_request_or_response_in_parts_is_no_silence() {
    let mut connection = stale();
    let ms = |ms: u64| Some(6_003_400_000 + ms * 1_000_000);
    connection.last_sent_ns = ms(200);
    connection.first_byte_ns = ms(400);
    connection.last_received_ns = ms(700);
    connection.fin_received_ns = ms(1_200);
    connection.eof_read_ns = ms(1_200);
    connection.closed_ns = ms(1_200);
    connection.ended_ns = ms(1_200).unwrap();
    let out = rendered(&connection);
    for told in [
        "200.0 ms: more of the request may have been sent",
        "200.0 ms of silence",
        "300.0 ms: more of the response may have come",
        "500.0 ms of silence",
    ] {
        assert!(out.contains(told), "{told}: {out}");
    }
}

#[test]
fn without_nginxs_calls_what_came_before_the_last_is_no_silence() {
    let mut connection = stale();
    connection.calls_unseen = true;
    connection.idle_before_ns = None;
    connection.last_received_ns = Some(6_000_000_000);
    let out = rendered(&connection);
    let told = "earlier exchanges are not recorded one by one";
    assert!(out.contains(told), "{out}");
    assert!(!out.contains("of silence"), "{out}");
}
