//! The scoring itself: bad judges score badly, and each kind of mistake shows.

use serde_json::{Value as Json, json};

use super::*;
use crate::act::{Constant, Value};
use crate::draw::Draw;
use crate::idle::Silence;

const CAUSES: [(&str, &str, &str); 4] = [
    ("backend", "fin", "closed-without-answer"),
    ("backend", "rst", "response-aborted"),
    ("nginx", "timeout", "read-timeout"),
    ("backend", "fin", "stale-keepalive"),
];

fn acts(count: u16) -> Vec<Act> {
    (0..count)
        .map(|number| {
            let (side, means, cause) = CAUSES[usize::from(number) % CAUSES.len()];
            Act {
                upstream: "127.0.0.1:9000".into(),
                nginx_end: Some(([127, 0, 0, 1], 1000 + number).into()),
                target: (cause != "stale-keepalive").then(|| format!("/x/{number}")),
                at_ns: number.into(),
                what: cause.into(),
                expected: Some(Expected::new(side, means, cause)),
            }
        })
        .collect()
}

fn incident(number: usize, verdict: (&str, &str, &str)) -> Json {
    let (side, means, cause) = verdict;
    json!({
        "id": number + 1, "upstream": "127.0.0.1:9000", "side": side, "means": means,
        "phase": "wait", "cause": cause, "confidence": "certain", "match": "exact",
        "retried": null, "served": null, "request_group": number + 1, "evidence": [],
        "line": { "message": "m", "request": format!("GET /x/{number} HTTP/1.1"), "file": "log",
                  "offset": number * 100, "connection": 1 },
        "connection": { "local": format!("127.0.0.1:{}", 1000 + number),
                        "remote": "127.0.0.1:9000", "worker_pid": 7, "requests": 2,
                        "reused": true, "idle_ms": 1.5 },
    })
}

fn report(incidents: &[Json]) -> Report {
    let json = json!({
        "schema": "whoclosed.report/1", "capture": { "lost": {} },
        "summary": { "lines": incidents.len(), "matched": {} }, "incidents": incidents,
        "upstreams": [{ "address": "127.0.0.1:9000", "connections": 9,
                        "idle_timeout": { "ms": 1010.0, "samples": 4 },
                        "work_timeout": { "ms": 2050.0, "samples": 4 },
                        "size_threshold": { "bytes": 20_300, "answered_bytes": 9_000 } }],
    });
    Report::parse(json.to_string().as_bytes()).unwrap()
}

fn right(count: usize) -> Vec<Json> {
    let right = |number| incident(number, CAUSES[number % CAUSES.len()]);
    (0..count).map(right).collect()
}

fn log(count: usize) -> Vec<LogLine> {
    let line = |number: usize| LogLine {
        offset: number as u64 * 100,
        text: String::new(),
    };
    (0..count).map(line).collect()
}

fn recorded(acts: &[Act], lines: usize) -> Recorded {
    Recorded {
        acts: acts
            .iter()
            .map(|act| ("s".to_owned(), act.clone()))
            .collect(),
        log: log(lines),
        ..Recorded::default()
    }
}

fn score(incidents: &[Json], acts: &[Act]) -> Score {
    Score::of(&report(incidents), &recorded(acts, incidents.len()))
}

fn right_causes(score: &Score) -> usize {
    score.causes.values().map(|row| row.right_cause).sum()
}

/// Every incident says 1.5 ms.
#[test]
fn an_idle_time_that_the_records_belie_fails_the_run() {
    let held = |least_ns| {
        let mut acts = acts(4);
        let idle = Silence::Lasted {
            least_ns,
            most_ns: Some(least_ns + 1),
        };
        let expected = acts[1].expected.take();
        acts[1].expected = expected.map(|expected| expected.after(idle));
        score(&right(4), &acts)
    };
    let right = held(1_500_000);
    assert!(right.holds() && right.idle_times == 1, "{right}");
    let wrong = held(1_700_000);
    assert_eq!(wrong.failures.len(), 1, "{wrong}");
    assert!(
        wrong.failures[0].contains("idle time is 1.500 ms"),
        "{wrong}"
    );
}

#[test]
fn a_judge_that_is_always_right_scores_full() {
    let score = score(&right(8), &acts(8));
    assert!(score.holds(), "{score}");
    assert_eq!(right_causes(&score), 8);
    assert!(
        score.mistakes.is_empty() && score.without_line.is_empty(),
        "{score}"
    );
    assert!(
        score
            .causes
            .values()
            .all(|row| row.right_connection == row.lines)
    );
    assert_eq!(score.calibration["certain"].right, 8);
}

#[test]
fn a_judge_at_random_scores_badly() {
    let mut draw = Draw::new(1);
    let incidents: Vec<_> = (0..400)
        .map(|number| incident(number, draw.one_of(&CAUSES)))
        .collect();
    let score = score(&incidents, &acts(400));
    assert!(!score.holds());
    assert!(right_causes(&score) < 160, "{}", right_causes(&score));
    assert!(score.causes.values().all(|row| row.wrong > row.lines / 2));
}

#[test]
fn a_judge_that_always_says_stale_keepalive_scores_badly() {
    let incidents: Vec<_> = (0..400).map(|number| incident(number, CAUSES[3])).collect();
    let score = score(&incidents, &acts(400));
    assert!(!score.holds());
    assert_eq!(right_causes(&score), 100);
    assert_eq!(score.confusion["read-timeout"]["stale-keepalive"], 100);
    assert_eq!(score.calibration["certain"].right, 100);
}

#[test]
fn a_wrong_connection_and_a_swapped_pair_show() {
    let mut incidents = right(8);
    incidents[0]["connection"]["local"] = json!("127.0.0.1:9");
    assert!(score(&incidents, &acts(8)).failures[0].starts_with("wrong connection 1"));
    let mut incidents = right(8);
    let (first, second) = (
        incidents[0]["connection"].clone(),
        incidents[1]["connection"].clone(),
    );
    incidents[0]["connection"] = second;
    incidents[1]["connection"] = first;
    let swapped = score(&incidents, &acts(8));
    assert_eq!(swapped.failures.len(), 2, "{swapped}");
    incidents[0]["connection"] = Json::Null;
    assert_eq!(score(&incidents, &acts(8)).failures.len(), 2);
}

#[test]
fn two_stale_lines_with_each_others_connection_show_by_the_wire() {
    let stale = |number| incident(number, CAUSES[3]);
    let mut incidents = [stale(3), stale(7)];
    let mut recorded = recorded(&acts(8), 0);
    for number in [3, 7] {
        recorded.log.push(LogLine {
            offset: number * 100,
            text: "while reading response header from upstream".into(),
        });
        recorded.wire.push(Carried {
            target: format!("/x/{number}"),
            upstream: "127.0.0.1:9000".parse().unwrap(),
            ends: vec![format!("127.0.0.1:{}", 1000 + number).parse().unwrap()],
            answered: false,
        });
    }
    let score = Score::of(&report(&incidents), &recorded);
    assert!(score.holds() && score.witnessed == 2, "{score}");
    let first = incidents[0]["connection"].take();
    incidents[0]["connection"] = incidents[1]["connection"].take();
    incidents[1]["connection"] = first;
    let score = Score::of(&report(&incidents), &recorded);
    assert_eq!(score.failures.len(), 2, "{score}");
    assert!(score.failures[0].contains("the wire has 127.0.0.1:1003"));
}

#[test]
fn a_backend_and_the_wire_that_disagree_show() {
    let mut recorded = recorded(&acts(1), 1);
    recorded.wire.push(Carried {
        target: "/x/0".into(),
        upstream: "127.0.0.1:9000".parse().unwrap(),
        ends: vec!["127.0.0.1:7".parse().unwrap()],
        answered: false,
    });
    let score = Score::of(&report(&right(1)), &recorded);
    assert!(
        score.failures[0].starts_with("s recorded /x/0 on"),
        "{score}"
    );
}

#[test]
fn a_truth_in_words_that_no_report_says_shows() {
    let mut acts = acts(1);
    acts[0].expected = Some(Expected::new("backend", "fin", "closed-without-an-answer"));
    let score = score(&right(1), &acts);
    assert!(
        score.failures[0].contains("which no report says"),
        "{score}"
    );
}

#[test]
fn a_missing_line_shows() {
    let score = Score::of(&report(&right(7)), &recorded(&acts(8), 8));
    assert_eq!(score.failures.len(), 1, "{score}");
    assert!(score.failures[0].starts_with("missing line at byte 700"));
}

#[test]
fn an_incident_without_an_act_or_about_a_normal_one_is_false() {
    let nothing = score(&right(1), &[]);
    assert!(
        nothing.failures[0].starts_with("false incident"),
        "{nothing}"
    );
    let mut acts = acts(1);
    acts[0].expected = None;
    let normal = score(&right(1), &acts);
    assert!(normal.failures[0].contains("normal act"), "{normal}");
}

#[test]
fn an_act_stands_behind_one_incident_only() {
    let twice = [incident(0, CAUSES[0]), incident(0, CAUSES[0])];
    let score = score(&twice, &acts(1));
    assert!(
        score
            .failures
            .iter()
            .any(|failure| failure.contains("false incident")),
        "{score}"
    );
}

#[test]
fn unexplained_is_no_wrong_verdict_and_counts_only_where_there_was_evidence() {
    let unexplained = [incident(0, ("backend", "fin", "unexplained"))];
    let mut acts = acts(1);
    let row = |acts: &[Act]| score(&unexplained, acts).causes["closed-without-answer"].clone();
    assert_eq!(
        (row(&acts).unexplained, row(&acts).needlessly_unexplained),
        (1, 1)
    );
    assert_eq!(row(&acts).wrong, 0);
    acts[0].expected = acts[0].expected.take().map(Expected::without_evidence);
    assert_eq!(
        (row(&acts).unexplained, row(&acts).needlessly_unexplained),
        (1, 0)
    );
}

#[test]
fn a_wrong_guess_that_is_not_certain_is_a_mistake_and_no_failure() {
    let mut guess = incident(0, CAUSES[2]);
    guess["confidence"] = json!("likely");
    let score = score(&[guess], &acts(1));
    assert!(score.holds() && score.mistakes.len() == 1, "{score}");
    assert_eq!(score.calibration["likely"].right, 0);
}

fn inferred(value: Value) -> bool {
    let constant = Constant {
        upstream: "127.0.0.1:9000".into(),
        value,
    };
    let recorded = Recorded {
        constants: vec![("s".into(), constant)],
        ..Recorded::default()
    };
    Score::of(&report(&[]), &recorded).constants[0].right
}

#[test]
fn an_inferred_idle_timeout_may_be_off_by_two_percent_or_twenty_milliseconds() {
    for (ms, is_right) in [(1000.0, true), (991.0, true), (985.0, false)] {
        assert_eq!(inferred(Value::IdleTimeoutMs(ms)), is_right, "{ms}");
    }
}

#[test]
fn an_inferred_work_timeout_may_be_as_late_as_its_supervisor() {
    for (ms, by_itself, supervised) in [
        (2000.0, true, true),
        (2300.0, false, true),
        (3200.0, false, false),
    ] {
        assert_eq!(inferred(Value::WorkTimeoutMs(ms)), by_itself, "{ms}");
        let right = inferred(Value::SupervisedTimeoutMs(ms));
        assert_eq!(right, supervised, "{ms}");
    }
}

#[test]
fn an_inferred_size_lies_between_what_was_answered_and_what_was_not() {
    for (answered, failed, is_right) in [
        (9_500, 20_000, true),
        (9_500, 15_000, false),
        (2_000, 20_000, false),
        (19_000, 20_500, false),
    ] {
        let value = Value::SizeThreshold { answered, failed };
        assert_eq!(inferred(value), is_right, "{value}");
    }
}

#[test]
fn each_failed_body_has_to_be_counted_whole() {
    let constant = Constant {
        upstream: "127.0.0.1:9000".into(),
        value: Value::FailedBodyBytes(1_000_000),
    };
    let recorded = Recorded {
        constants: vec![("s".into(), constant)],
        ..Recorded::default()
    };
    for (counted, is_right) in [
        (vec![1_000_200, 1_000_090], true),
        // Heads alone, as where files go another way; one of two; the bodies twice.
        (vec![90, 90], false),
        (vec![1_000_200, 999_999], false),
        (vec![2_000_180], false),
        (vec![], false),
    ] {
        let incidents: Vec<Json> = counted
            .iter()
            .map(|bytes| {
                let mut incident = incident(0, CAUSES[0]);
                incident["connection"]["request_bytes"] = json!(bytes);
                incident
            })
            .collect();
        let score = Score::of(&report(&incidents), &recorded);
        assert_eq!(score.constants[0].right, is_right, "{counted:?}");
    }
}

#[test]
fn what_became_of_each_hook_is_told() {
    let mut report = report(&[]);
    let hooks = json!([
        { "name": "one", "attached": true },
        { "name": "two", "attached": true, "by": "fexit other", "reason": "not here" },
        { "name": "three", "attached": false, "reason": "not here" },
    ]);
    report.capture.hooks = serde_json::from_value(hooks).unwrap();
    let hooks = Score::of(&report, &Recorded::default()).hooks;
    let became = ["one", "two", "three"].map(|hook| hooks[hook].as_str());
    assert_eq!(became, ["attached", "by fexit other", "absent (not here)"]);
}

#[test]
fn a_loss_and_a_good_request_that_failed_fail_the_run() {
    let mut losing = report(&[]);
    losing.capture.lost.insert("connection_records".into(), 3);
    losing.capture.lost.insert("logged_records".into(), 0);
    let mut recorded = recorded(&[], 0);
    recorded.traffic = Some(Traffic {
        answered: 1200,
        failed: 1,
        seconds: 2.0,
        failures: vec!["502".into()],
    });
    let mut score = Score::of(&losing, &recorded);
    assert_eq!(score.failures.len(), 2, "{score}");
    assert_eq!(score.lost["connection_records"], 3);
    score.add("again", Score::of(&losing, &recorded));
    let traffic = score.traffic.unwrap();
    assert!((traffic.rate() - 600.0).abs() < 0.1 && traffic.failed == 2);
    assert_eq!(score.lost["connection_records"], 6);
}

#[test]
fn an_idle_timeout_is_right_as_configured_or_as_the_backend_recorded() {
    // 1010 ms is what the report says.
    let right = |timeout, most| {
        let constant = Constant {
            upstream: "127.0.0.1:9000".into(),
            value: Value::KeptMs {
                timeout,
                least: timeout,
                most,
            },
        };
        Inferred::of(&report(&[]), "s", &constant).right
    };
    assert!(right(1000.0, 1000.0));
    assert!(right(800.0, 1015.0) && !right(800.0, 1005.0));
    assert!(!right(1040.0, 1100.0));
}
