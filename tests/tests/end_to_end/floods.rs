//! A flood of the error log beside real failures: memory stays bounded, no line is lost,
//! and each failure has its connection.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::backend::{Backend, Habits, IPV4, Why};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, wait_for};
use lab::load::{self, Request};
use lab::nginx::{Configuration, Upstream};

use crate::bench::{Bench, alone, report};

/// Bytes of the flood.
const FLOOD: usize = 100 << 20;
/// Lines written at once: much of what a busy logger has on its way.
const AT_ONCE: usize = 2000;
const FAILURES: usize = 200;
/// Resident memory of the capture at most, in KiB. `docs/limits.md` has what was measured;
/// a build with all its debug information takes more.
const MOST_KIB: u64 = 64 << 10;

/// Another program's lines about files that are not there, in nginx's words.
fn flood(log: &Path) -> usize {
    let now = Command::new("date").arg("+%Y/%m/%d %H:%M:%S").output();
    let now = String::from_utf8(now.unwrap().stdout).unwrap();
    let mut log = File::options().append(true).open(log).unwrap();
    let (mut written, mut lines) = (0, 0);
    while written < FLOOD {
        let mut text = String::new();
        for number in lines..lines + AT_ONCE {
            writeln!(
                text,
                "{} [error] 77#77: *{number} open() \"/srv/www/missing/{number}\" failed (2: No \
                 such file or directory), client: 192.0.2.7, server: lab.test, request: \"GET \
                 /missing/{number} HTTP/1.1\", host: \"lab.test\"",
                now.trim()
            )
            .unwrap();
        }
        log.write_all(text.as_bytes()).unwrap();
        written += text.len();
        lines += AT_ONCE;
    }
    lines
}

/// Bytes that a process has read in all.
fn read_by(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar:"));
    line.unwrap().trim().parse().unwrap()
}

/// The most memory that a process has had, in KiB.
fn most_resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().trim_end_matches("kB").trim();
    number.parse().unwrap()
}

/// Lines in a trace.
fn recorded(trace: &Path) -> usize {
    let trace = BufReader::new(zstd::Decoder::new(File::open(trace).unwrap()).unwrap());
    let lines = trace.lines().map(Result::unwrap);
    lines
        .filter(|line| line.starts_with("{\"kind\":\"line\""))
        .count()
}

#[test]
fn a_hundred_megabytes_of_other_lines_hide_no_failure_and_take_no_memory() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address());
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
    let log = bench.nginx.error_log();
    let agent = bench.capture().pid();
    let before = read_by(agent);
    let close = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    let requests: Vec<Request> = (0..FAILURES)
        .map(|n| Request::post(format!("/app/{n}"), 3).asking(close.after(PAUSE)))
        .collect();
    let flooded = std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&log));
        let _ = load::run(bench.nginx.address(), &requests, 2, false);
        flood.join().unwrap()
    });
    let written = fs::metadata(&log).unwrap().len();
    wait_for("the capture to have read the log", 6 * PATIENCE, || {
        Ok((read_by(agent) >= before + written).then_some(()))
    })
    .unwrap();
    let resident = most_resident(agent);
    println!("{written} bytes of log: {resident} KiB resident at most");
    assert!(resident < MOST_KIB, "{resident} KiB");

    bench.finish_within(6 * PATIENCE);
    let report = report(&bench.trace());
    assert_eq!(recorded(&bench.trace()), flooded + FAILURES);
    assert_eq!(report.incidents.len(), FAILURES);
    let mut closes = BTreeSet::new();
    for record in backend.connections() {
        assert!(record.closed_because(Why::BeforeAnswer), "{record:?}");
        closes.insert((record.requests[0].target.clone(), record.remote));
    }
    for incident in &report.incidents {
        assert_eq!(incident.matched, "exact", "{incident:#?}");
        let local = incident.connection.as_ref().unwrap().local;
        let target = incident.target().unwrap().to_owned();
        assert!(closes.remove(&(target, local)), "{incident:#?}");
    }
}

/// The failures last as long as the flood, about.
const PAUSE: Duration = Duration::from_millis(15);
