//! What nginx's own host lacks, and what nginx cuts as its workers stop.

use super::*;
use crate::report::model::{Means, Phase, Side};
use crate::trace::record::Process;

fn lacking(level: u32, message: &str, errno: u32) -> Vec<Record> {
    let mut line = said(5000, message, errno, CONNECTING);
    line.level = level;
    vec![line.logged(), line.line()]
}

fn no_ports() -> Vec<Record> {
    lacking(3, "connect() to 127.0.0.1:9101 failed", 99)
}

#[test]
fn nginxs_own_calls_say_what_its_host_lacks() {
    for (level, message, errno, advice) in [
        (
            3,
            "connect() to 127.0.0.1:9101 failed",
            99,
            "ip_local_port_range",
        ),
        (3, "bind(10.9.9.9) failed", 99, "an address of this host"),
        (3, "bind(127.0.0.1:29599) failed", 98, "name no port"),
        (2, "socket() failed", 24, "worker_rlimit_nofile"),
        (2, "socket() failed", 23, "fs.file-max"),
        (
            2,
            "14 worker_connections are not enough",
            0,
            "worker_connections",
        ),
    ] {
        let incident = only(judged(lacking(level, message, errno)));
        assert_verdict(&incident, Cause::NginxResources, Confidence::Certain);
        assert_eq!(
            (incident.side, incident.means, incident.phase),
            (Side::Nginx, Means::None, Phase::Connect),
            "{message}"
        );
        let text = incident.advice.unwrap();
        assert!(text.contains(advice), "{message}: {text}");
    }
}

#[test]
fn other_errors_of_connect_are_not_for_want_of_resources() {
    let denied = lacking(3, "connect() to 127.0.0.1:9101 failed", 13);
    assert_eq!(only(judged(denied)).cause, Cause::Unexplained);
}

#[test]
fn advice_gives_the_numbers_in_force() {
    let records = || lacking(2, "14 worker_connections are not enough", 0);
    let text = advised(&[("worker_connections", "14")], records());
    assert!(text.contains("worker_connections (now 14)"), "{text}");
    let text = advised(&[], records());
    assert!(text.contains("(not set: 512)"), "{text}");
    let kept = advised(&[], no_ports());
    assert!(
        kept.contains("more than 16 idle connections in `upstream app`"),
        "{kept}"
    );
}

#[test]
fn a_full_queue_of_a_unix_socket_is_no_want_of_nginxs() {
    let line = |errno| {
        let mut line = said(
            5000,
            "connect() to unix:/run/app.sock failed",
            errno,
            CONNECTING,
        );
        line.upstream = "http://unix:/run/app.sock:/a".to_owned();
        only(judged(vec![line.logged(), line.line()]))
    };
    let full = line(11);
    assert_verdict(&full, Cause::BacklogFull, Confidence::Certain);
    assert_eq!((full.side, full.means), (Side::Backend, Means::Refused));
    assert_eq!(line(2).cause, Cause::ConnectRefused);
}

#[test]
fn another_server_is_advised_only_where_there_is_none() {
    let line = said(5000, "connect() failed", 111, CONNECTING);
    let records = || vec![line.line()];
    // `upstream app` has two.
    let in_force = advised(&[], records());
    assert!(!in_force.contains("next_upstream"), "{in_force}");
    let off = advised(&[("proxy_next_upstream", "off")], records());
    assert!(off.contains("`proxy_next_upstream error`"), "{off}");
}

#[test]
fn a_retry_is_advised_only_where_nginx_does_none() {
    let line = said(5000, PREMATURE, 0, HEADER);
    let asked = connection(1, 0)
        .request(1)
        .fin(4999, 0)
        .eof(5000)
        .closed(5000);
    let records = || vec![line.logged(), ended(asked.clone()), line.line()];
    let off = advised(&[("proxy_next_upstream", "timeout")], records());
    assert!(off.contains("proxy_next_upstream hides it"), "{off}");
    assert!(!advised(&[], records()).contains("next_upstream"));
}

#[test]
fn a_shutdown_timeout_is_nginxs_own_word() {
    let mut line = said(5000, "shutdown timeout", 0, "proxying connection");
    line.level = 7;
    line.upstream = PEER.to_owned();
    let session = connection(1, 0).request(1).answer(2).closed(5000);
    let incident = one(session, &line);
    assert_verdict(&incident, Cause::NginxShutdown, Confidence::Certain);
    assert_eq!((incident.side, incident.means), (Side::Nginx, Means::Close));
}

fn gone(ms: u64) -> Record {
    Record::Process(Process {
        ns: at(ms),
        master_pid: MASTER,
        worker: Worker {
            pid: PID,
            inner_pid: PID,
        },
        started: false,
    })
}

fn notes(records: Vec<Record>) -> Vec<String> {
    judged(records).report.notes
}

#[test]
fn requests_that_a_worker_left_unanswered_are_noted() {
    let cut = |cookie| ended(connection(cookie, 0).request(1).closed(5000));
    let pooled = connection(9, 0).request(1).answer(2).closed(5000);
    let notes = notes(vec![cut(1), cut(2), ended(pooled), gone(5800)]);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0]
            .contains("worker 901 of nginx ended with 2 requests unanswered (127.0.0.1:9101 2)"),
        "{notes:?}"
    );
}

#[test]
fn closes_of_a_worker_that_lives_or_with_a_line_are_not_noted() {
    let cut = |ms| ended(connection(1, 0).request(1).closed(ms));
    assert_eq!(notes(vec![cut(5000)]), [""; 0]);
    assert_eq!(notes(vec![cut(5000), gone(9000)]), [""; 0]);
    let answered = connection(1, 0).request(1).answer(2).closed(5000);
    assert_eq!(notes(vec![ended(answered), gone(5800)]), [""; 0]);
    let line = said(5000, "upstream timed out", 110, HEADER);
    let timed_out = vec![line.logged(), cut(5000), line.line(), gone(5800)];
    assert_eq!(notes(timed_out), [""; 0]);
    // An earlier one, whose client left, is no part of the end.
    let left = connection(2, 0).request(1).closed(4500);
    let last = connection(1, 0).request(1).answer(2).closed(5000);
    assert_eq!(notes(vec![ended(left), ended(last), gone(5800)]), [""; 0]);
}
