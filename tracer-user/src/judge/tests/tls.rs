//! TLS: handshakes that fail, and connections whose exchanges count once it is done.
//! Messages are those of nginx 1.22.1 with OpenSSL 3.0.

use super::*;
use crate::report::model::{Means, Phase, Side};

const HANDSHAKE: &str = "SSL handshaking to upstream";

fn over_tls(line: Said) -> Said {
    Said {
        upstream: format!("https://{PEER}/a"),
        ..line
    }
}

fn alert(level: u32, text: &str) -> Said {
    let message = format!("SSL_do_handshake() failed (SSL: error:0A00042E:SSL routines::{text})");
    Said {
        level,
        ..over_tls(said(5000, &message, 0, HANDSHAKE))
    }
}

fn alone(line: &Said) -> Incident {
    only(judged(vec![line.line()]))
}

#[test]
fn an_alert_is_the_backends_and_named() {
    for (level, text, name, advice) in [
        (
            4,
            "tlsv1 alert protocol version:SSL alert number 70",
            "protocol_version",
            "ssl_protocols",
        ),
        (
            4,
            "sslv3 alert handshake failure:SSL alert number 40",
            "handshake_failure",
            "ssl_server_name on",
        ),
        (
            3,
            "tlsv1 unrecognized name:SSL alert number 112",
            "unrecognized_name",
            "ssl_server_name on",
        ),
        (
            4,
            "tlsv13 alert certificate required:SSL alert number 116",
            "certificate_required",
            "proxy_ssl_certificate",
        ),
    ] {
        let incident = alone(&alert(level, text));
        assert_verdict(&incident, Cause::TlsFailure, Confidence::Certain);
        assert_eq!(
            (incident.side, incident.means, incident.phase),
            (Side::Backend, Means::Close, Phase::Tls)
        );
        assert!(
            incident.evidence[0].contains(name),
            "{:?}",
            incident.evidence
        );
        let text = incident.advice.unwrap();
        assert!(text.contains(advice), "{text}");
    }
}

#[test]
fn a_certificate_or_version_that_nginx_refuses_is_nginxs() {
    let certificate = |message: &str| over_tls(said(5000, message, 0, HANDSHAKE));
    for (line, words, advice) in [
        (
            certificate("upstream SSL certificate verify error: (10:certificate has expired)"),
            "has expired",
            "renew",
        ),
        (
            certificate("upstream SSL certificate verify error: (18:self-signed certificate)"),
            "whom nginx trusts",
            "proxy_ssl_trusted_certificate",
        ),
        (
            certificate("upstream SSL certificate does not match \"wrong.example\""),
            "another name",
            "proxy_ssl_name",
        ),
        (
            alert(4, "unsupported protocol"),
            "no version of TLS",
            "proxy_ssl_protocols",
        ),
    ] {
        let incident = alone(&line);
        assert_verdict(&incident, Cause::TlsFailure, Confidence::Certain);
        assert_eq!((incident.side, incident.means), (Side::Nginx, Means::Close));
        assert!(
            incident.evidence[0].contains(words),
            "{:?}",
            incident.evidence
        );
        let text = incident.advice.unwrap();
        assert!(text.contains(advice), "{text}");
    }
}

#[test]
fn a_name_that_nginx_sends_already_is_not_advised() {
    let line = alert(3, "tlsv1 unrecognized name:SSL alert number 112");
    let on = [
        ("proxy_ssl_server_name", "on"),
        ("proxy_ssl_name", "x.example"),
    ];
    let text = advised(&on, vec![line.line()]);
    assert!(!text.contains("ssl_server_name on"), "{text}");
    assert!(text.contains("now x.example"), "{text}");
    let text = advised(&[("proxy_ssl_server_name", "off")], vec![line.line()]);
    assert!(text.contains("`proxy_ssl_server_name on`"), "{text}");
}

#[test]
fn a_handshake_that_just_ends_has_a_likely_cause_and_the_sockets_means() {
    let line = over_tls(said(
        5000,
        "peer closed connection in SSL handshake",
        0,
        HANDSHAKE,
    ));
    let closed = connection(1, 4990)
        .request(4991)
        .fin(4999, 0)
        .eof(5000)
        .closed(5000);
    let incident = one(closed, &line);
    assert_verdict(&incident, Cause::TlsFailure, Confidence::Likely);
    assert_eq!((incident.side, incident.means), (Side::Backend, Means::Fin));
}

#[test]
fn a_handshake_that_is_never_done_is_nginxs_timer() {
    let line = over_tls(said(5000, "upstream timed out", 110, HANDSHAKE));
    let waiting = connection(1, 0).request(1).closed(5000);
    let incident = one(waiting.clone(), &line);
    assert_verdict(&incident, Cause::TlsFailure, Confidence::Certain);
    assert_eq!(
        (incident.side, incident.means),
        (Side::Nginx, Means::Timeout)
    );
    let mut silent = waiting;
    silent.exchange_retransmits = 4;
    silent.unacked_at_close = Some(80);
    assert_eq!(one(silent, &line).cause, Cause::PathTimeout);
}

/// The handshake is done, nothing has been asked.
fn shaken_hands() -> Connection {
    let mut connection = connection(1, 0);
    connection.handshake_ns = Some(at(1));
    connection
}

fn premature() -> Said {
    over_tls(said(5000, PREMATURE, 0, HEADER))
}

fn received(mut connection: Connection, ms: u64, bytes: u64) -> Connection {
    connection = connection.answer(ms);
    connection.response_bytes = bytes;
    connection
}

#[test]
fn a_stale_connection_over_tls_is_as_certain_as_a_plain_one() {
    let kept = || received(shaken_hands().request(1), 2, 4000);
    let stale = kept().fin(4900, 0).request(4999).eof(5000).closed(5000);
    let incident = one(stale, &premature());
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Certain);
    let connection = incident.connection.unwrap();
    assert_eq!(
        (connection.reused, connection.requests),
        (Some(true), Some(2))
    );
    // Its close_notify was read after the request.
    let notified = kept().fin(4900, 0).request(4999);
    let notified = received(notified, 5000, 24).eof(5000).closed(5000);
    assert_verdict(
        &one(notified, &premature()),
        Cause::StaleKeepalive,
        Confidence::Likely,
    );
}

#[test]
fn tickets_and_alerts_are_no_answer() {
    let tickets = received(shaken_hands().request(1), 2, 510);
    let unanswered = tickets.clone().fin(4900, 0).eof(5000).closed(5000);
    assert_verdict(
        &one(unanswered, &premature()),
        Cause::ClosedWithoutAnswer,
        Confidence::Likely,
    );
    let nothing = shaken_hands()
        .request(1)
        .fin(4900, 0)
        .eof(5000)
        .closed(5000);
    assert_verdict(
        &one_by_call(nothing, &premature()),
        Cause::ClosedWithoutAnswer,
        Confidence::Certain,
    );
    let part = received(shaken_hands().request(1), 2, 3000);
    let part = part.fin(4900, 0).eof(5000).closed(5000);
    assert_verdict(
        &one_by_call(part, &premature()),
        Cause::ResponseAborted,
        Confidence::Certain,
    );
    // The second request's tickets are long past.
    let later = received(tickets.request(1000), 1001, 510);
    let later = later.fin(4900, 0).eof(5000).closed(5000);
    assert_eq!(one(later, &premature()).cause, Cause::ResponseAborted);
}

#[test]
fn a_first_request_over_tls_is_never_stale() {
    let early = shaken_hands()
        .fin(4990, 0)
        .request(4999)
        .eof(5000)
        .closed(5000);
    let incident = one(early, &premature());
    assert_eq!(incident.cause, Cause::ClosedWithoutAnswer);
    assert_eq!(incident.connection.unwrap().reused, Some(false));
}

#[test]
fn without_the_end_of_the_handshake_reuse_stays_unknown() {
    let connection = connection(1, 0)
        .request(1)
        .answer(2)
        .request(4990)
        .fin(4999, 0);
    let incident = one(connection.eof(5000).closed(5000), &premature());
    assert_eq!(incident.connection.unwrap().reused, None);
    assert_ne!(incident.confidence, Confidence::Certain);
}

#[test]
fn a_handshake_that_ended_with_its_process_is_the_processs() {
    let line = over_tls(said(
        5000,
        "peer closed connection in SSL handshake",
        104,
        HANDSHAKE,
    ));
    let cut = connection(1, 4990)
        .request(4991)
        .rst(4999, 0)
        .fails(5000, Call::Receive, 104)
        .closed(5000);
    let incident = only(judged(vec![
        peer_close(1, 4999, Some(Exit::Signal(9))),
        line.logged(),
        ended(cut),
        line.line(),
    ]));
    assert_verdict(&incident, Cause::BackendKilled, Confidence::Certain);
}

#[test]
fn a_handshake_that_the_backend_had_ended_before_the_timer_is_the_backends() {
    let line = over_tls(said(5000, "upstream timed out", 110, HANDSHAKE));
    let ended_before = connection(1, 0).request(1).fin(4800, 0).closed(5000);
    let incident = one(ended_before, &line);
    assert_verdict(&incident, Cause::TlsFailure, Confidence::Likely);
    assert_eq!((incident.side, incident.means), (Side::Backend, Means::Fin));
}
