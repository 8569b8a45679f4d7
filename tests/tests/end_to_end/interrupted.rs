//! A capture that ends before its time: by a signal that it can heed, and by one that
//! it cannot.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use lab::backend::{Backend, Habits, IPV4};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, wait_for};
use lab::load::{self, Request};
use lab::nginx::{Configuration, Upstream};
use lab::{processes, tool};
use serde_json::Value;

use crate::bench::{Bench, alone, report};

/// Ids of all loaded BPF programs.
#[track_caller]
fn loaded() -> BTreeSet<u64> {
    let bpftool = processes::which("bpftool").expect("bpftool: run `cargo xtask setup`");
    let listed = tool::finish(Command::new(bpftool).args(["prog", "show", "-j"])).unwrap();
    let listed = listed.succeeded().unwrap();
    let programs: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    programs
        .iter()
        .filter_map(|program| program["id"].as_u64())
        .collect()
}

/// Ids of the BPF programs that a process holds, itself or by a link, as its
/// descriptors tell (`prog_id:` in fdinfo). Other captures on this host have others.
#[track_caller]
fn held_by(pid: u32) -> BTreeSet<u64> {
    let mut held = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        // One that was closed since it was listed holds nothing.
        let text = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        let ids = text
            .lines()
            .filter_map(|line| line.strip_prefix("prog_id:"));
        held.extend(ids.filter_map(|id| id.trim().parse::<u64>().ok()));
    }
    held
}

#[track_caller]
fn all_gone(programs: &BTreeSet<u64>) {
    wait_for("the BPF programs to be gone", PATIENCE, || {
        Ok(loaded().is_disjoint(programs).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_killed_capture_leaves_a_readable_trace_no_program_and_an_nginx_that_never_noticed() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address()).keepalive(8);
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
    let workers = bench.nginx.workers().unwrap();
    let programs = held_by(bench.capture().pid());
    assert!(!programs.is_empty(), "the capture holds no BPF program");
    assert!(loaded().is_superset(&programs));

    let address = bench.nginx.address();
    let fail = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)).once();
    let requests: Vec<_> = (0..20)
        .map(|n| {
            let request = Request::get(format!("/app/{n}"));
            if n % 2 == 0 {
                request.asking(fail)
            } else {
                request
            }
        })
        .collect();
    let _ = load::run(address, &requests, 4, true);
    let lines = bench.nginx.upstream_lines().unwrap().len();
    assert_eq!(lines, 10);
    // The trace is flushed at least once a second: wait until it tells of all lines.
    let trace = bench.trace();
    wait_for("the trace to be flushed", PATIENCE, || {
        Ok((report(&trace).incidents.len() == lines).then_some(()))
    })
    .unwrap();

    bench.kill();
    let report = report(&trace);
    assert_eq!(report.incidents.len(), lines);
    assert!(
        !report.capture.complete,
        "a killed capture cannot have written an end"
    );
    all_gone(&programs);

    let good = vec![Request::get("/app/after"); 50];
    let outcomes = load::run(address, &good, 4, true);
    assert!(outcomes.iter().all(load::Outcome::served), "{outcomes:?}");
    assert_eq!(bench.nginx.workers().unwrap(), workers);
    assert_eq!(bench.nginx.upstream_lines().unwrap().len(), lines);
}

#[test]
fn an_interrupted_capture_reports_ends_its_trace_and_unloads_its_programs() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address()).keepalive(8);
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
    let programs = held_by(bench.capture().pid());
    let fail = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    let requests = [Request::post("/app/last", 3).asking(fail)];
    // The line and its socket end just before the signal: draining must find both.
    let _ = load::run(bench.nginx.address(), &requests, 1, true);
    let report = bench.report();
    assert_eq!(report.incidents.len(), 1);
    assert_eq!(report.incidents[0].matched, "exact");
    all_gone(&programs);
}
