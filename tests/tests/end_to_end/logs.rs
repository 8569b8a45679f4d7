//! What happens to workers and error logs while a capture runs: nothing is lost by it,
//! and nothing is told twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lab::backend::{Backend, Habits, IPV4, Why};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, wait_for};
use lab::load::{self, Request};
use lab::nginx::{Configuration, Upstream};
use lab::processes;
use lab::verdicts::Report;

use crate::bench::{Bench, alone};

fn failures(name: &str, count: usize) -> Vec<Request> {
    let fail = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    (0..count)
        .map(|n| Request::post(format!("/app/{name}-{n}"), 3).asking(fail))
        .collect()
}

/// Each close that the backend recorded is one incident, matched to its connection.
#[track_caller]
fn each_close_is_told_once(report: &Report, backend: &Backend) {
    let mut closes: BTreeMap<SocketAddr, String> = BTreeMap::new();
    for record in backend.connections() {
        assert!(record.closed_because(Why::BeforeAnswer), "{record:?}");
        let target = record.requests[0].target.clone();
        assert!(closes.insert(record.remote, target).is_none());
    }
    for incident in &report.incidents {
        assert_eq!(incident.matched, "exact", "{incident:#?}");
        let connection = incident.connection.as_ref().unwrap();
        let target = closes
            .remove(&connection.local)
            .unwrap_or_else(|| panic!("told twice, or of nothing: {incident:#?}"));
        assert_eq!(incident.target(), Some(target.as_str()));
    }
    assert!(closes.is_empty(), "never told: {closes:?}");
}

#[test]
fn lines_of_workers_that_a_reload_brought_are_matched() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address());
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
    let address = bench.nginx.address();
    let _ = load::run(address, &failures("before", 10), 4, false);
    let old = bench.nginx.reload().unwrap();
    wait_for("the old workers to go", PATIENCE, || {
        Ok((!old.iter().any(|&pid| processes::is_alive(pid))).then_some(()))
    })
    .unwrap();
    let _ = load::run(address, &failures("after", 10), 4, false);
    let new = bench.nginx.workers().unwrap();
    let report = bench.report();
    each_close_is_told_once(&report, &backend);
    for incident in &report.incidents {
        let workers = if incident.target().unwrap().contains("before") {
            &old
        } else {
            &new
        };
        let connection = incident.connection.as_ref().unwrap();
        assert!(workers.contains(&connection.worker_pid), "{incident:#?}");
    }
}

/// Failures before two error logs that hold the same lines, over this many clients.
#[track_caller]
fn logged_twice(count: usize, clients: usize, reuse: bool) {
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let configuration = Configuration {
        error_logs: vec!["logs/error.log".into(), "logs/second.log".into()],
        ..Configuration::new(vec![Upstream::new("app", backend.address())])
    };
    let mut bench = Bench::start(&configuration, &[]);
    let requests = failures("twice", count);
    let _ = load::run(bench.nginx.address(), &requests, clients, reuse);
    // Between two workers the order may differ.
    let lines = |log: &str| -> BTreeSet<String> {
        let lines = upstream_lines(&bench.nginx.prefix().join(log));
        assert_eq!(lines.len(), count);
        lines.into_iter().collect()
    };
    assert_eq!(lines("logs/error.log"), lines("logs/second.log"));
    let report = bench.report();
    assert_eq!(report.incidents.len(), count);
    each_close_is_told_once(&report, &backend);
}

#[test]
fn a_line_that_stands_in_two_logs_is_told_once() {
    let _alone = alone();
    logged_twice(20, 4, false);
}

fn upstream_lines(log: &Path) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap();
    let lines = text.lines().filter(|line| line.contains(", upstream: \""));
    lines.map(str::to_owned).collect()
}

/// Whether a process has this file open.
fn has_open(pid: u32, file: &Path) -> anyhow::Result<bool> {
    let identity = |path: &Path| fs::metadata(path).map(|data| (data.dev(), data.ino()));
    let wanted = identity(file)?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that was closed since it was listed is none.
        if identity(&entry?.path()).is_ok_and(|found| found == wanted) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn a_rotation_amid_failures_loses_no_line_and_tells_none_twice() {
    const ROTATIONS: usize = 3;
    const EACH: usize = 100;
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address());
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
    let address = bench.nginx.address();
    let log = bench.nginx.error_log();
    let mut logs = vec![log.clone()];
    for rotation in 0..ROTATIONS {
        let requests = failures(&format!("rotated-{rotation}"), EACH);
        std::thread::scope(|scope| {
            let load = scope.spawn(|| load::run(address, &requests, 4, false));
            let already = rotation * EACH;
            backend
                .wait_until("half of the failures", PATIENCE, |records| {
                    records.len() >= already + EACH / 2
                })
                .unwrap();
            let old = log.with_extension(format!("log.{rotation}"));
            fs::rename(&log, &old).unwrap();
            bench.nginx.reopen_logs().unwrap();
            logs.push(old);
            wait_for("the new log", PATIENCE, || Ok(log.exists().then_some(()))).unwrap();
            load.join().unwrap();
        });
        // A capture looks at the path ten times a second: a log that came and went in
        // between would be none that it could know.
        let agent = bench.capture().pid();
        wait_for("the capture to open the new log", PATIENCE, || {
            Ok(has_open(agent, &log)?.then_some(()))
        })
        .unwrap();
    }
    let lines: Vec<_> = logs.iter().map(|log| upstream_lines(log)).collect();
    // The rotations did fall among the lines.
    assert!(lines[1..].iter().all(|lines| !lines.is_empty()));
    let lines: Vec<_> = lines.concat();
    assert_eq!(lines.len(), ROTATIONS * EACH);
    assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), lines.len());
    let report = bench.report();
    assert_eq!(report.incidents.len(), lines.len());
    each_close_is_told_once(&report, &backend);
}

/// One file is read whole before the other.
#[test]
fn a_burst_of_lines_that_stand_in_two_logs_is_told_once() {
    const COUNT: usize = 1000;
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let configuration = Configuration {
        error_logs: vec!["logs/error.log".into(), "logs/second.log".into()],
        ..Configuration::new(vec![Upstream::new("app", backend.address())])
    };
    let mut bench = Bench::start(&configuration, &[]);
    let fail = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    let requests: Vec<_> = (0..COUNT)
        .map(|n| Request::post(format!("/app/{n}"), 3).asking(fail))
        .collect();
    let _ = load::run(bench.nginx.address(), &requests, 4, true);
    let report = bench.report();
    assert_eq!(report.incidents.len(), COUNT);
    let mut told = BTreeSet::new();
    for record in backend.connections() {
        let target = record.requests[0].target.clone();
        told.insert((target, record.remote));
    }
    for incident in &report.incidents {
        assert_eq!(incident.matched, "exact", "{incident:#?}");
        let connection = incident.connection.as_ref().unwrap();
        let target = incident.target().unwrap().to_owned();
        assert!(told.remove(&(target, connection.local)), "{incident:#?}");
    }
}
