//! A capture that ends before its time: by a signal that it can heed, and by one that
//! it cannot.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, pipe};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lab::attached::{held_by, listed};
use lab::backend::{Backend, Habits, IPV4};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, wait_for};
use lab::load::{self, Request};
use lab::nginx::{Configuration, Nginx, Upstream, terminal};
use lab::{processes, tool};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::Signal;

use crate::bench::{Bench, alone, report};

/// Ids of the BPF programs that a capture holds.
#[track_caller]
fn programs_of(bench: &Bench) -> BTreeSet<u64> {
    let programs = held_by(bench.capture().pid()).unwrap().programs;
    assert!(!programs.is_empty(), "the capture holds no BPF program");
    programs
}

#[track_caller]
fn all_gone(programs: &BTreeSet<u64>) {
    wait_for("the BPF programs to be gone", PATIENCE, || {
        let loaded = listed("prog")?;
        Ok((!programs.iter().any(|id| loaded.contains_key(id))).then_some(()))
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
    let programs = programs_of(&bench);

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
fn each_signal_ends_a_capture_in_order_even_at_once() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address());
    let configuration = Configuration::new(vec![upstream]);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        // Several times, for what is raced here is the capture's own start.
        for _ in 0..3 {
            let nginx = Nginx::start(&configuration).unwrap();
            let mut bench = Bench::by(nginx, |_| heeding_hangups());
            let programs = programs_of(&bench);
            let finished = bench.end_with(signal).succeeded().unwrap();
            assert!(!finished.stdout.is_empty(), "no report is printed");
            assert!(report(&bench.trace()).capture.complete);
            all_gone(&programs);
        }
    }
}

/// The command, whether this test runs under nohup or not.
fn heeding_hangups() -> Command {
    let mut command = processes::bound_to_us(Path::new("env"));
    command.arg("--default-signal=HUP");
    command.arg(tool::binary().unwrap());
    command
}

#[test]
fn a_terminal_that_goes_ends_a_capture_in_order() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address());
    let nginx = Nginx::start(&Configuration::new(vec![upstream])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let (mut child, mut ours) = on_a_terminal("xterm", &nginx, &trace);
    shown_until(tool::CAPTURING, &mut ours);
    let fail = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)).once();
    let requests = [Request::get("/app/failed").asking(fail)];
    let _ = load::run(nginx.address(), &requests, 1, true);
    drop(ours);

    let ended = wait_for("the command to end", PATIENCE, || Ok(child.try_wait()?)).unwrap();
    // It had nobody to tell, which is a failure, but died of nothing.
    assert_eq!(ended.code(), Some(1), "{ended}");
    let report = report(&trace);
    assert!(report.capture.complete);
    assert_eq!(report.incidents.len(), 1);
}

#[test]
fn a_terminal_that_can_show_no_bar_is_told_all_the_same() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address());
    let nginx = Nginx::start(&Configuration::new(vec![upstream])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let (mut child, mut ours) = on_a_terminal("dumb", &nginx, &trace);
    shown_until(tool::CAPTURING, &mut ours);
    let fail = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)).once();
    let requests = [Request::get("/app/failed").asking(fail)];
    let _ = load::run(nginx.address(), &requests, 1, true);
    // As it comes, long before the report.
    shown_until("#1 closed-without-answer", &mut ours);
    processes::signal(child.id(), Signal::INT).unwrap();
    shown_until("What to change", &mut ours);
    let ended = wait_for("the command to end", PATIENCE, || Ok(child.try_wait()?)).unwrap();
    assert!(ended.success(), "{ended}");
}

/// A capture of this nginx on a terminal of its own, and our end of that. It heeds hangups,
/// whether this test runs under nohup or not.
fn on_a_terminal(kind: &str, nginx: &Nginx, trace: &Path) -> (Child, File) {
    let (ours, its) = terminal().unwrap();
    let mut command = processes::bound_to_us(Path::new("setsid"));
    command
        .args(["--ctty", "env", "--default-signal=HUP"])
        .arg(format!("TERM={kind}"))
        .arg(tool::binary().unwrap())
        .args(["capture", "--duration", "600s"])
        .args(["--nginx", &nginx.master_pid().to_string(), "--output"])
        .arg(trace)
        .stdin(its.try_clone().unwrap())
        .stdout(its.try_clone().unwrap())
        .stderr(its);
    (command.spawn().unwrap(), File::from(ours))
}

/// Reads what a terminal shows, as far as these words.
fn shown_until(words: &str, terminal: &mut File) {
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains(words) {
        let mut waiting = [PollFd::new(terminal, PollFlags::IN)];
        let patience = Timespec::try_from(PATIENCE).unwrap();
        let ready = poll(&mut waiting, Some(&patience)).unwrap();
        let said = String::from_utf8_lossy(&shown).into_owned();
        assert!(ready > 0, "waited in vain for {words:?}: {said}");
        let mut some = [0; 256];
        let read = terminal.read(&mut some).unwrap();
        assert!(read > 0 && shown.len() < 1 << 16, "no {words:?}: {said}");
        shown.extend_from_slice(&some[..read]);
    }
}

#[test]
fn under_nohup_a_hangup_ends_no_capture() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address());
    let nginx = Nginx::start(&Configuration::new(vec![upstream])).unwrap();
    let mut bench = Bench::by(nginx, |_| {
        let mut command = processes::bound_to_us(Path::new("nohup"));
        command.arg(tool::binary().unwrap());
        command
    });
    let pid = bench.capture().pid();
    processes::signal(pid, Signal::HUP).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    assert_eq!(ignored & 1, 1, "SIGHUP is no longer ignored");
    let fail = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)).once();
    let requests = [Request::get("/app/failed").asking(fail)];
    let _ = load::run(bench.nginx.address(), &requests, 1, true);
    assert_eq!(bench.report().incidents.len(), 1);
}

#[test]
fn an_interrupted_capture_reports_ends_its_trace_and_unloads_its_programs() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address()).keepalive(8);
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
    let programs = programs_of(&bench);
    let fail = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    let requests = [Request::post("/app/last", 3).asking(fail)];
    // The line and its socket end just before the signal: draining must find both.
    let _ = load::run(bench.nginx.address(), &requests, 1, true);
    let report = bench.report();
    assert_eq!(report.incidents.len(), 1);
    assert_eq!(report.incidents[0].matched, "exact");
    all_gone(&programs);
}

#[test]
fn a_signal_during_the_report_ends_the_command() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address());
    let nginx = Nginx::start(&Configuration::new(vec![upstream])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    // Nobody reads the report: it never ends.
    let (unread, stdout) = pipe().unwrap();
    fcntl_setpipe_size(&stdout, 4096).unwrap();
    let mut command = processes::bound_to_us(&tool::binary().unwrap());
    command
        .args(["capture", "--duration", "60s", "--format", "json"])
        .args(["--nginx", &nginx.master_pid().to_string(), "--output"])
        .arg(&trace)
        .stdout(stdout)
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(stderr.any(|line| line.unwrap().starts_with(tool::CAPTURING)));
    // More to report than the pipe holds.
    let fail = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)).once();
    let requests = vec![Request::get("/app/failed").asking(fail); 20];
    let _ = load::run(nginx.address(), &requests, 4, true);

    processes::signal(child.id(), Signal::INT).unwrap();
    wait_for("the report to begin", PATIENCE, || {
        Ok((ioctl_fionread(&unread)? > 0).then_some(()))
    })
    .unwrap();
    processes::signal(child.id(), Signal::INT).unwrap();
    let ended = wait_for("the command to end", PATIENCE, || Ok(child.try_wait()?)).unwrap();
    assert_eq!(ended.signal(), Some(Signal::INT.as_raw()));
    assert!(report(&trace).capture.complete);
}
