//! The settings in force: those that each worker's master had loaded when it started the
//! worker, whatever stands in the files by now.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use lab::backend::{Backend, Habits, IPV4};
use lab::behaviour::Behaviour;
use lab::clock::{PATIENCE, wait_for};
use lab::load::{self, Request};
use lab::nginx::{Configuration, Nginx, Upstream};
use lab::processes;
use lab::verdicts::Report;
use rustix::process::Signal;

use crate::bench::{Bench, alone, records, report};

const NOT_LOADED: &str = "the files were changed after the workers started, and not loaded";
const OLDER: &str = "nginx runs with older settings, so that none is named here";

fn configuration(backend: &Backend, timeout: &str) -> Configuration {
    let upstream = Upstream::new("app", backend.address());
    Configuration {
        workers: 1,
        ..Configuration::new(vec![
            upstream.with(&format!("proxy_read_timeout {timeout};")),
        ])
    }
}

fn file(nginx: &Nginx) -> PathBuf {
    nginx.prefix().join("nginx.conf")
}

/// Writes another timeout into the file, which nginx is not told of.
fn set_timeout(nginx: &Nginx, from: &str, to: &str) {
    let text = fs::read_to_string(file(nginx)).unwrap();
    let (from, to) = (
        format!("proxy_read_timeout {from};"),
        format!("proxy_read_timeout {to};"),
    );
    assert!(text.contains(&from), "{text}");
    fs::write(file(nginx), text.replace(&from, &to)).unwrap();
}

/// Makes the file's change one that came well after all that runs started.
fn date_late(nginx: &Nginx) {
    let late = SystemTime::now() + Duration::from_secs(60);
    let file = File::options().write(true).open(file(nginx)).unwrap();
    file.set_modified(late).unwrap();
}

/// Reloads; the old workers take no requests any more.
fn reload(nginx: &Nginx) {
    let old = nginx.reload().unwrap();
    wait_for("the old workers to retire", PATIENCE, || {
        let works = |pid: &u32| {
            let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let title = String::from_utf8_lossy(&title).into_owned();
            processes::is_alive(*pid) && !title.contains("is shutting down")
        };
        Ok((!old.iter().any(works)).then_some(()))
    })
    .unwrap();
}

fn unanswered(target: &str) -> Request {
    let never = Behaviour::ANSWER.after(Duration::from_secs(600));
    Request::get(format!("/app/{target}")).asking(never)
}

fn fail(nginx: &Nginx, target: &str) {
    let outcomes = load::run(nginx.address(), &[unanswered(target)], 1, false);
    assert!(!outcomes[0].served());
}

/// Which timer the report names for each request.
#[track_caller]
fn timers(report: &Report) -> BTreeMap<String, String> {
    let timer = |evidence: &[String]| {
        let told = evidence
            .iter()
            .find_map(|told| told.strip_prefix("nginx gave up by its own timer ("));
        told.unwrap().trim_end_matches(')').to_owned()
    };
    let incidents = report.incidents.iter();
    incidents
        .map(|incident| {
            assert_eq!(incident.cause, "read-timeout", "{incident:#?}");
            let target = incident.target().unwrap().trim_start_matches("/app/");
            (target.to_owned(), timer(&incident.evidence))
        })
        .collect()
}

fn expected<const N: usize>(timers: [(&str, &str); N]) -> BTreeMap<String, String> {
    let owned = |(target, timer): (&str, &str)| (target.to_owned(), timer.to_owned());
    timers.into_iter().map(owned).collect()
}

fn notes(report: &Report, text: &str) -> usize {
    let notes = report.notes.iter();
    notes.filter(|note| note.contains(text)).count()
}

/// The worker that came in the place of one that has been killed.
fn kill_worker(nginx: &Nginx) {
    let old = nginx.workers().unwrap();
    for &pid in &old {
        processes::signal(pid, Signal::KILL).unwrap();
    }
    wait_for("another worker", PATIENCE, || {
        let now = nginx.workers()?;
        let other = now.iter().any(|pid| !old.contains(pid));
        Ok((other && !now.iter().any(|pid| old.contains(pid))).then_some(()))
    })
    .unwrap();
}

#[test]
fn each_incident_names_the_timeout_that_was_in_force_for_it() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let mut bench = Bench::start(&configuration(&backend, "1s"), &[]);
    fail(&bench.nginx, "before");
    // In force is what is loaded, not what is written.
    set_timeout(&bench.nginx, "1s", "2s");
    fail(&bench.nginx, "written");
    reload(&bench.nginx);
    fail(&bench.nginx, "loaded");
    set_timeout(&bench.nginx, "2s", "1500ms");
    reload(&bench.nginx);
    fail(&bench.nginx, "again");
    let report = bench.report();
    assert_eq!(
        timers(&report),
        expected([
            ("before", "proxy_read_timeout 1s"),
            ("written", "proxy_read_timeout 1s"),
            ("loaded", "proxy_read_timeout 2s"),
            ("again", "proxy_read_timeout 1500ms"),
        ])
    );
    assert_eq!(notes(&report, "loaded another configuration"), 1);
    assert_eq!(notes(&report, NOT_LOADED), 0, "{:?}", report.notes);
}

#[test]
fn a_worker_that_a_reload_retires_keeps_its_timeout() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let mut bench = Bench::start(&configuration(&backend, "4s"), &[]);
    let address = bench.nginx.address();
    let old = std::thread::spawn(move || load::run(address, &[unanswered("old")], 1, false));
    backend
        .wait_until("the request of the old worker", PATIENCE, |connections| {
            connections.iter().any(|known| !known.requests.is_empty())
        })
        .unwrap();
    set_timeout(&bench.nginx, "4s", "1s");
    reload(&bench.nginx);
    fail(&bench.nginx, "new");
    assert!(!old.join().unwrap()[0].served());
    let report = bench.report();
    // Seen if the test fails.
    for kind in ["capture", "process", "instance"] {
        println!("{:#?}", records(&bench.trace(), kind));
    }
    assert_eq!(
        timers(&report),
        expected([
            ("old", "proxy_read_timeout 4s"),
            ("new", "proxy_read_timeout 1s"),
        ])
    );
}

#[test]
fn a_file_that_was_changed_and_not_loaded_is_not_in_force() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let mut bench = Bench::start(&configuration(&backend, "1s"), &[]);
    set_timeout(&bench.nginx, "1s", "2s");
    date_late(&bench.nginx);
    fail(&bench.nginx, "before");
    // Its master starts it again with what it had loaded.
    kill_worker(&bench.nginx);
    fail(&bench.nginx, "after");
    let report = bench.report();
    assert_eq!(
        timers(&report),
        expected([
            ("before", "proxy_read_timeout 1s"),
            ("after", "proxy_read_timeout 1s"),
        ])
    );
    assert_eq!(notes(&report, NOT_LOADED), 1, "{:?}", report.notes);
    assert_eq!(notes(&report, "loaded another"), 0, "{:?}", report.notes);
    // The capture has noticed the other worker.
    let processes = records(&bench.trace(), "process");
    assert!(processes.iter().any(|process| process["started"] == true));
}

#[test]
fn a_file_changed_before_the_capture_is_not_in_force_until_it_is_loaded() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let nginx = Nginx::start(&configuration(&backend, "1s")).unwrap();
    set_timeout(&nginx, "1s", "2s");
    date_late(&nginx);
    let mut bench = Bench::before(nginx, &[]);
    fail(&bench.nginx, "before");
    let file = File::options()
        .write(true)
        .open(file(&bench.nginx))
        .unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60))
        .unwrap();
    reload(&bench.nginx);
    fail(&bench.nginx, "after");
    bench.finish();
    let report = report(&bench.trace());
    assert_eq!(
        timers(&report),
        expected([
            ("before", "proxy_read_timeout, whose value is not known"),
            ("after", "proxy_read_timeout 2s"),
        ])
    );
    let trace = records(&bench.trace(), "capture");
    let problem = trace[0]["nginx"][0]["configuration_problem"]
        .as_str()
        .unwrap();
    assert!(problem.contains(OLDER), "{problem}");
}
