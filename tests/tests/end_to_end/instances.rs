//! Several nginx instances at once, and one that starts while the capture runs: each has
//! its own workers, log and incidents, although they pass requests to the same backend.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use lab::attached::{FOR_LOGS_WITHOUT_FILES, held_by, keys_of};
use lab::backend::{Backend, Habits, IPV4};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, wait_for};
use lab::load::{self, Request};
use lab::nginx::{self, Configuration, Nginx, Upstream};
use lab::tool::Capture;
use lab::verdicts::Report;

use crate::bench::{alone, report};

const EACH: usize = 15;

/// Fails requests, and names them after the instance.
fn fail(nginx: &Nginx, name: &str) {
    let fail = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    let requests: Vec<Request> = (0..EACH)
        .map(|n| Request::post(format!("/app/{name}-{n}"), 3).asking(fail))
        .collect();
    let outcomes = load::run(nginx.address(), &requests, 2, true);
    assert!(outcomes.iter().all(|outcome| !outcome.served()));
}

fn has_open(pid: u32, file: &Path) -> anyhow::Result<bool> {
    let identity = |path: &Path| fs::metadata(path).map(|data| (data.dev(), data.ino()));
    let wanted = identity(file)?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        if identity(&entry?.path()).is_ok_and(|found| found == wanted) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// All of an instance's failures, each once, by its workers, and as its own.
#[track_caller]
fn told_of(report: &Report, nginx: &Nginx, workers: &[u32], name: &str) {
    let own = |target: &str| target.starts_with(&format!("/app/{name}-"));
    let mut told: Vec<&str> = Vec::new();
    for incident in &report.incidents {
        let target = incident.target().unwrap();
        assert_eq!(
            incident.instance == Some(nginx.master_pid()),
            own(target),
            "{incident:#?}"
        );
        if own(target) {
            assert_eq!(incident.matched, "exact", "{incident:#?}");
            let worker = incident.connection.as_ref().unwrap().worker_pid;
            assert!(workers.contains(&worker), "{incident:#?}");
            told.push(target);
        }
    }
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), EACH, "{told:?}");
}

#[test]
fn one_that_starts_later_and_whose_log_is_no_file_is_taken_up_too() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let name = format!("wc-{}", std::process::id());
    let binary = folder.path().join(&name);
    fs::copy(nginx::binary().unwrap(), &binary).unwrap();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let configuration = |log: &str| Configuration {
        error_logs: vec![log.to_owned()],
        ..Configuration::new(vec![Upstream::new("app", backend.address())])
    };
    let piped = || Nginx::start_binary_piped(&binary, &configuration("stderr")).unwrap();
    let one = Nginx::start_binary(&binary, &configuration("logs/error.log")).unwrap();
    let output = folder.path().join("trace");
    let capture = Capture::start_named(&name, &output, &[]).unwrap();
    let taken_up = |master: u32| {
        // What it looks for, by the kernel's account: a pipe more than before.
        wait_for("the capture to take up another", PATIENCE, || {
            let held = held_by(capture.pid())?;
            let program = FOR_LOGS_WITHOUT_FILES.hooks[0].name();
            let attached = held
                .links
                .values()
                .any(|link| link.tracepoint.as_deref() == Some(program));
            let pipe = fs::metadata(format!("/proc/{master}/fd/2"))?.ino();
            let looked_for = keys_of(&held, "WRITTEN_LOGS")?.contains(&pipe);
            Ok((attached && looked_for).then_some(()))
        })
        .unwrap();
    };
    fail(&one, "one");
    let two = piped();
    taken_up(two.master_pid());
    fail(&two, "two");
    // Another one, when the program is attached already.
    let three = piped();
    taken_up(three.master_pid());
    fail(&three, "three");
    let workers = [&one, &two, &three].map(|nginx| nginx.workers().unwrap());
    capture.finish().unwrap().succeeded().unwrap();
    let report = report(&output);
    assert_eq!(report.incidents.len(), 3 * EACH);
    told_of(&report, &one, &workers[0], "one");
    told_of(&report, &two, &workers[1], "two");
    told_of(&report, &three, &workers[2], "three");
}

#[test]
fn instances_stay_apart_and_one_that_starts_later_is_taken_up() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    // A name that no other nginx of this machine has.
    let name = format!("wc-{}", std::process::id());
    let binary = folder.path().join(&name);
    fs::copy(nginx::binary().unwrap(), &binary).unwrap();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let configuration = || Configuration::new(vec![Upstream::new("app", backend.address())]);
    let start = || Nginx::start_binary(&binary, &configuration()).unwrap();
    let (one, two) = (start(), start());
    let output = folder.path().join("trace");
    let capture = Capture::start_named(&name, &output, &[]).unwrap();
    fail(&one, "one");
    fail(&two, "two");
    let three = start();
    wait_for("the capture to take up the third", PATIENCE, || {
        Ok(has_open(capture.pid(), &three.error_log())?.then_some(()))
    })
    .unwrap();
    fail(&three, "three");
    let workers = [&one, &two, &three].map(|nginx| nginx.workers().unwrap());
    capture.finish().unwrap().succeeded().unwrap();
    let report = report(&output);
    assert_eq!(report.incidents.len(), 3 * EACH);
    told_of(&report, &one, &workers[0], "one");
    told_of(&report, &two, &workers[1], "two");
    told_of(&report, &three, &workers[2], "three");
    let appeared = format!(
        "(master {}) appeared during the capture",
        three.master_pid()
    );
    assert!(
        report.notes.iter().any(|note| note.contains(&appeared)),
        "{:?}",
        report.notes
    );
}
