//! A log that is rotated by both methods while a thousand requests fail: what a reader
//! could see is told once, and what nobody could see is counted.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use lab::backend::{Backend, Habits, IPV4};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, wait_for};
use lab::load::{self, Request};
use lab::nginx::{Configuration, Upstream};
use lab::verdicts::Report;

use crate::bench::{self, Bench, alone};

const FAILURES: usize = 1000;
const ROTATIONS: usize = 10;

/// Fails a thousand requests and calls `rotate` ten times among them. Returns how many
/// of them the clients saw fail.
#[track_caller]
fn fail_while(bench: &Bench, backend: &Backend, mut rotate: impl FnMut(usize)) -> usize {
    let fail = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    let requests: Vec<Request> = (0..FAILURES)
        .map(|n| Request::post(format!("/app/{n}"), 3).asking(fail))
        .collect();
    let address = bench.nginx.address();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| load::run(address, &requests, 4, true));
        for rotation in 0..ROTATIONS {
            let enough = (rotation + 1) * FAILURES / (ROTATIONS + 1);
            backend
                .wait_until("failures before a rotation", PATIENCE, |records| {
                    records.len() >= enough
                })
                .unwrap();
            rotate(rotation);
        }
        let outcomes = load.join().unwrap();
        outcomes.iter().filter(|outcome| !outcome.served()).count()
    })
}

/// How often each failed request stands in these files, by its target.
#[track_caller]
fn logged(files: &[PathBuf]) -> BTreeMap<String, usize> {
    let mut logged = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        for line in text.lines().filter(|line| line.contains(", upstream: \"")) {
            let request = line.split_once("request: \"POST ").unwrap().1;
            let target = request.split_once(' ').unwrap().0;
            *logged.entry(target.to_owned()).or_default() += 1;
        }
    }
    logged
}

/// How often each failed request is an incident.
#[track_caller]
fn told(report: &Report) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for incident in &report.incidents {
        assert_eq!(incident.matched, "exact", "{incident:#?}");
        let target = incident.target().unwrap().to_owned();
        *told.entry(target).or_default() += 1;
    }
    told
}

fn started(workers: u16) -> (Backend, Bench) {
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let configuration = Configuration {
        workers,
        ..Configuration::new(vec![Upstream::new("app", backend.address())])
    };
    let bench = Bench::start(&configuration, &[]);
    (backend, bench)
}

fn numbered(log: &Path, number: usize) -> PathBuf {
    log.with_extension(format!("log.{number}"))
}

/// Every second rotation comes at once after the one before: the file between stands at
/// the log's path for no longer than nginx needs to create the next.
#[test]
fn a_thousand_failures_across_renames_are_told_once_each() {
    let _alone = alone();
    let (backend, mut bench) = started(2);
    let log = bench.nginx.error_log();
    let rename = |to: &Path| {
        fs::rename(&log, to).unwrap();
        bench.nginx.reopen_logs().unwrap();
        wait_for("the new log", PATIENCE, || Ok(log.exists().then_some(()))).unwrap();
    };
    let mut files = vec![log.clone()];
    let failed = fail_while(&bench, &backend, |rotation| {
        for half in 0..2 {
            let old = numbered(&log, 2 * rotation + half);
            rename(&old);
            files.push(old);
        }
    });
    let logged = logged(&files);
    assert_eq!((failed, logged.len()), (FAILURES, FAILURES));
    let report = bench.report();
    assert_eq!(told(&report), logged);
    assert!(logged.values().all(|count| *count == 1));
}

/// Copied and truncated, as `logrotate` does with `copytruncate`. What nginx writes
/// after the copy and before the truncation is in no file afterwards.
#[test]
fn a_thousand_failures_across_truncations_are_told_once_each_as_far_as_they_can_be_read() {
    let _alone = alone();
    let (backend, mut bench) = started(2);
    let log = bench.nginx.error_log();
    let mut files = vec![log.clone()];
    let failed = fail_while(&bench, &backend, |rotation| {
        let copy = numbered(&log, rotation);
        fs::copy(&log, &copy).unwrap();
        let file = OpenOptions::new().write(true).open(&log).unwrap();
        file.set_len(0).unwrap();
        files.push(copy);
    });
    assert_eq!(failed, FAILURES);
    let logged = logged(&files);
    assert!(logged.values().all(|count| *count == 1));
    bench.finish();
    let report = bench::report(&bench.trace());
    let told = told(&report);
    let lines = bench::records(&bench.trace(), "line");
    for target in logged.keys() {
        let lines = lines.iter().filter(|line| {
            line["text"]
                .as_str()
                .unwrap()
                .contains(&format!("{target} "))
        });
        let lines: Vec<_> = lines.collect();
        assert_eq!(
            (told.get(target), lines.len()),
            (Some(&1), 1),
            "{target}: {lines:#?}; lost: {:?}",
            report.capture.lost
        );
    }
    // What the tool read before it was truncated is told as well, and told once.
    assert!(told.values().all(|count| *count == 1));
    let mut lost = report.capture.lost.clone();
    lost.retain(|what, _| !what.starts_with("missed_runs:"));
    // Two that come between two looks of a busy host's are seen as one.
    let truncations = lost.remove("log_truncations").unwrap_or(0);
    assert!(
        (1..=ROTATIONS as u64).contains(&truncations),
        "{truncations}"
    );
    assert!(lost.is_empty(), "{lost:?}");
    // What nobody could read was seen being written, and is counted.
    let unseen = FAILURES - told.len();
    let note = report
        .notes
        .iter()
        .find(|note| note.contains("seen being written but found in no log"));
    let counted = note.map_or(0, |note| {
        note.split(' ').next().unwrap().parse::<usize>().unwrap()
    });
    assert_eq!(counted, unseen, "{:?}", report.notes);
}
