//! Comparisons that hold, and that do not.

use serde_json::{Value, json};

use super::*;
use crate::idle::Silence;
use crate::truth::{Fault, Happened};

fn fault(port: u16, fault: Fault) -> Happened {
    Happened {
        fault,
        upstream: SocketAddr::from(([127, 0, 0, 1], 9000)),
        nginx_end: Some(SocketAddr::from(([127, 0, 0, 1], port))),
        target: Some("/x".into()),
        requests: Some(2),
        idle: None,
    }
}

fn incident(id: u64, port: u16, cause: &str) -> Value {
    json!({
        "id": id, "upstream": "127.0.0.1:9000", "side": "backend", "means": "fin",
        "phase": "wait", "cause": cause, "confidence": "certain", "match": "exact",
        "retried": true, "served": null, "request_group": id, "evidence": [],
        "line": { "message": "upstream prematurely closed connection", "request": "GET /x HTTP/1.1",
                  "file": "/logs/error.log", "offset": 0, "connection": 1 },
        "connection": {
            "local": format!("127.0.0.1:{port}"), "remote": "127.0.0.1:9000", "worker_pid": 7,
            "requests": 2, "reused": true, "idle_ms": 1.5,
        },
    })
}

fn report(incidents: Vec<Value>) -> Report {
    let json = json!({
        "schema": "whoclosed.report/1", "capture": { "lost": {} },
        "summary": { "lines": incidents.len(), "matched": { "exact": 0 } },
        "incidents": incidents,
        "upstreams": [{ "address": "127.0.0.1:9000", "connections": 9,
                         "idle_timeout": { "ms": 1000.2, "samples": 4 } }],
    });
    Report::parse(json.to_string().as_bytes()).unwrap()
}

#[test]
fn right_verdicts_hold() {
    let truth = [fault(1, Fault::Stale), fault(2, Fault::ClosedBeforeAnswer)];
    let report = report(vec![
        incident(1, 2, "closed-without-answer"),
        incident(2, 1, "stale-keepalive"),
    ]);
    let comparison = compare(&truth, &report);
    assert!(comparison.holds(), "{comparison}");
    assert_eq!(
        report
            .upstream(truth[0].upstream)
            .unwrap()
            .idle_timeout
            .unwrap()
            .samples,
        4
    );
}

#[test]
fn a_wrong_a_missing_and_a_needless_verdict_each_fail() {
    let truth = [fault(1, Fault::Stale)];
    let wrong = compare(
        &truth,
        &report(vec![incident(1, 1, "closed-without-answer")]),
    );
    assert!(!wrong.holds());
    assert!(
        wrong
            .to_string()
            .contains("cause is closed-without-answer, not stale-keepalive")
    );
    let missing = compare(&truth, &report(vec![]));
    assert!(!missing.holds());
    assert!(missing.to_string().contains("no incident"));
    let needless = compare(&[], &report(vec![incident(7, 1, "stale-keepalive")]));
    assert!(!needless.holds());
    assert!(needless.to_string().contains("incident 7"));
}

#[test]
fn an_idle_time_that_is_off_is_wrong_and_one_within_its_bounds_is_right() {
    let after = |least_ns, most_ns| Happened {
        idle: Some(Silence::Lasted { least_ns, most_ns }),
        ..fault(1, Fault::Stale)
    };
    // It says 1.5 ms.
    let report = report(vec![incident(1, 1, "stale-keepalive")]);
    for right in [
        after(1_400_000, Some(1_600_000)),
        after(0, Some(1_500_000)),
        after(1_500_000, None),
    ] {
        let comparison = compare(&[right], &report);
        assert!(comparison.holds(), "{comparison}");
    }
    for wrong in [
        after(1_600_000, None),
        after(1_600_000, Some(1_700_000)),
        after(1_200_000, Some(1_300_000)),
    ] {
        let comparison = compare(&[wrong], &report);
        assert!(!comparison.holds());
        let told = comparison.to_string();
        assert!(told.contains("WRONG: idle time is 1.500 ms, not"), "{told}");
    }
}

#[test]
fn another_connection_is_not_taken_for_the_right_one() {
    let comparison = compare(
        &[fault(1, Fault::Stale)],
        &report(vec![incident(1, 2, "stale-keepalive")]),
    );
    assert!(!comparison.holds());
    assert_eq!(comparison.unexpected.len(), 1);
}

#[test]
fn one_incident_does_not_serve_two_faults() {
    let truth = [fault(1, Fault::Stale), fault(1, Fault::Stale)];
    assert!(!compare(&truth, &report(vec![incident(1, 1, "stale-keepalive")])).holds());
}
