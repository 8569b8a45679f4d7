//! nginx's masters come and go during a capture: its binary is upgraded, it is stopped and
//! started again. Each failure has its line, connection and master all the same.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use lab::attached::held_by;
use lab::backend::{Backend, Connection, Habits, IPV4, Why};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, wait_for};
use lab::load::{self, Client, Request};
use lab::nginx::{self, Configuration, Daemon, Upstream};
use lab::processes;
use lab::tool::Capture;
use lab::truth;
use lab::verdicts::{Report, compare};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::bench::{alone, report};
use crate::privileges::{READS, gives_up, needed, with_alone};
use crate::unprivileged::copied_command;

const EACH: usize = 12;
const CLOSE: Behaviour = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));

/// An nginx in the background by a name that no other of this machine has, its capture,
/// and what it is to fail on.
struct Host {
    // Dropped in this order.
    capture: Option<Capture>,
    nginx: Daemon,
    backend: Backend,
    binary: PathBuf,
    folder: TempDir,
}

impl Host {
    #[track_caller]
    fn start() -> Self {
        Self::captured(|name, folder| {
            Capture::start_named(name, &folder.path().join("trace"), &[]).unwrap()
        })
    }

    /// The same with a capture of every nginx of that name, as the caller starts it: its
    /// trace goes to `trace` in the folder.
    #[track_caller]
    fn captured(capture: impl FnOnce(&str, &TempDir) -> Capture) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("wc-{}", std::process::id());
        let binary = folder.path().join(&name);
        fs::copy(nginx::binary().unwrap(), &binary).unwrap();
        let backend = Backend::start(IPV4, Habits::default()).unwrap();
        let upstream = Upstream::new("app", backend.address());
        let nginx = Daemon::start(&binary, &Configuration::new(vec![upstream])).unwrap();
        let capture = capture(&name, &folder);
        Self {
            capture: Some(capture),
            nginx,
            backend,
            binary,
            folder,
        }
    }

    /// Fails requests, each on a connection of its own, and names them.
    fn fail(&self, name: &str) {
        // It can answer, so that each close stands for itself.
        assert_eq!(self.clients(1).len(), 1);
        let requests: Vec<Request> = (0..EACH)
            .map(|n| Request::post(format!("/app/{name}-{n}"), 3).asking(CLOSE))
            .collect();
        let outcomes = load::run(self.nginx.address(), &requests, 2, false);
        assert!(outcomes.iter().all(|outcome| !outcome.served()));
    }

    /// Clients whose connections the workers of now have accepted.
    fn clients(&self, count: usize) -> Vec<Client> {
        let client = |n| {
            let mut client = Client::connect(self.nginx.address()).unwrap();
            let response = client
                .ask(&Request::get(format!("/app/first-{n}")))
                .unwrap();
            assert!(response.status == 200 && response.kept);
            client
        };
        (0..count).map(client).collect()
    }

    /// Waits until the backend has these requests in its hands, or had.
    fn await_requests(&self, beginning: &str, count: usize) {
        let has_all = |records: &[Connection]| {
            let targets = records.iter().flat_map(|record| &record.requests);
            let targets = targets.filter(|request| request.target.starts_with(beginning));
            targets.count() >= count
        };
        self.backend
            .wait_until("the requests", PATIENCE, has_all)
            .unwrap();
    }

    /// Waits until the capture knows this master.
    fn await_taken_up(&self, master: u32) {
        let trace = self.folder.path().join("trace");
        let appeared = format!("(master {master}) appeared during the capture");
        wait_for("the capture to take it up", PATIENCE, || {
            let notes = report(&trace).notes;
            Ok(notes
                .iter()
                .any(|note| note.contains(&appeared))
                .then_some(()))
        })
        .unwrap();
    }

    /// Ends the capture; its report, in which nothing is missing and nothing twice: every
    /// failure that the backend recorded has its incident, with the right connection and
    /// verdict.
    #[track_caller]
    fn report(&mut self) -> Report {
        let capture = self.capture.take().unwrap();
        capture.finish().unwrap().succeeded().unwrap();
        let report = report(&self.folder.path().join("trace"));
        let truth = truth::recorded(&self.backend.connections());
        // What nginx itself gave up has no line.
        let truth: Vec<_> = truth
            .into_iter()
            .filter(|happened| happened.fault == truth::Fault::ClosedBeforeAnswer)
            .collect();
        let comparison = compare(&truth, &report);
        assert!(comparison.holds(), "\n{comparison}");
        let lines = self.nginx.upstream_lines().unwrap().len();
        assert_eq!(report.incidents.len(), lines);
        assert_eq!(truth.len(), lines);
        report
    }
}

/// Of each group of requests how many failures each master's workers had.
#[track_caller]
fn told_by(report: &Report, workers: &BTreeMap<u32, Vec<u32>>) -> BTreeMap<(String, u32), usize> {
    let mut told = BTreeMap::new();
    for incident in &report.incidents {
        let master = incident.instance.unwrap();
        let worker = incident.connection.as_ref().unwrap().worker_pid;
        assert!(workers[&master].contains(&worker), "{incident:#?}");
        let target = incident.target().unwrap().trim_start_matches("/app/");
        let group = target.rsplit_once('-').unwrap().0.to_owned();
        *told.entry((group, master)).or_insert(0) += 1;
    }
    told
}

#[track_caller]
fn has_note(report: &Report, text: &str) {
    let found = report.notes.iter().filter(|note| note.contains(text));
    assert_eq!(found.count(), 1, "{text:?} in {:#?}", report.notes);
}

/// Upgrades the binary as the manual has it (USR2, WINCH, QUIT), with failures all along.
fn upgraded(host: &mut Host, before_new_ones_fail: impl FnOnce(&Host)) {
    let old = host.nginx.master().unwrap();
    host.fail("before");
    let mut kept = host.clients(EACH);
    let mut cut = host.clients(3);
    let new = host.nginx.upgrade().unwrap();
    let mut workers = BTreeMap::new();
    for master in [old, new] {
        workers.insert(master, host.nginx.workers_of(master).unwrap());
    }
    before_new_ones_fail(host);

    // Two masters' workers accept now; these connections are the old ones'.
    for (n, client) in kept.iter_mut().enumerate() {
        let request = Request::post(format!("/app/kept-{n}"), 3).asking(CLOSE);
        let _ = client.ask(&request);
    }
    host.fail("between");

    // The old ones are told to go; what is in their hands they bring to its end.
    let mut last = host.clients(2 * EACH);
    for (n, client) in cut.iter_mut().enumerate() {
        let never = Behaviour::ANSWER.after(Duration::from_secs(600));
        let request = Request::get(format!("/app/cut-{n}")).asking(never);
        client.send(&request).unwrap();
    }
    for (n, client) in last.iter_mut().enumerate() {
        let request = Request::post(format!("/app/last-{n}"), 3);
        let slow = CLOSE.after(Duration::from_millis(700));
        client.send(&request.asking(slow)).unwrap();
    }
    host.await_requests("/app/cut-", cut.len());
    host.await_requests("/app/last-", last.len());
    processes::signal(old, Signal::WINCH).unwrap();
    host.nginx.await_idle(old).unwrap();
    drop(last);
    host.fail("without-old-workers");
    host.nginx.end(old, Signal::QUIT).unwrap();
    host.fail("after");

    let report = host.report();
    let told = told_by(&report, &workers);
    let by = |group: &str, master| {
        let found = told.get(&(group.to_owned(), master));
        found.copied().unwrap_or(0)
    };
    assert_eq!(by("before", old), EACH);
    assert_eq!(by("kept", old), EACH);
    assert_eq!(by("between", old) + by("between", new), EACH);
    assert_eq!(by("last", old) + by("last", new), 2 * EACH);
    assert_eq!(by("without-old-workers", new), EACH);
    assert_eq!(by("after", new), EACH);
    for incident in &report.incidents {
        assert_eq!(incident.cause, "closed-without-answer", "{incident:#?}");
    }
    has_note(&report, &format!("(master {new}) appeared during the"));
    // Requests that the old workers gave up have no line, and are told of.
    let cut_by_nginx: Vec<SocketAddr> = host
        .backend
        .connections()
        .iter()
        .filter(|record| record.end.is_some_and(|end| end.why == Why::PeerInFlight))
        .map(|record| record.remote)
        .collect();
    assert_eq!(cut_by_nginx.len(), cut.len());
    has_note(&report, "nginx ended with 3 requests unanswered");
}

#[test]
fn an_upgrade_of_the_binary_loses_no_line_and_names_each_ones_master() {
    let _alone = alone();
    upgraded(&mut Host::start(), |_| {});
}

/// Upgrades to another binary when the capture has given up all that it may.
fn upgraded_to_another(mut host: Host) {
    let uprobes = |host: &Host| {
        let held = held_by(host.capture.as_ref().unwrap().pid()).unwrap();
        held.links.values().filter(|link| link.is_uprobe()).count()
    };
    gives_up(host.capture.as_ref().unwrap().pid(), READS);
    let attached = uprobes(&host);
    assert!(attached > 0);
    // As a package manager does: another file by the same name.
    let new = host.binary.with_extension("new");
    fs::copy(&host.binary, &new).unwrap();
    fs::rename(&new, &host.binary).unwrap();
    upgraded(&mut host, |host| {
        wait_for("the uprobes in the new binary", PATIENCE, || {
            Ok((uprobes(host) == 2 * attached).then_some(()))
        })
        .unwrap();
    });
}

#[test]
fn a_binary_that_was_replaced_on_disk_is_seen_too() {
    let _alone = alone();
    upgraded_to_another(Host::start());
}

#[test]
fn without_root_a_binary_that_was_replaced_on_disk_is_seen_too() {
    let _alone = alone();
    upgraded_to_another(Host::captured(|name, folder| {
        let program = copied_command(folder);
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let command = with_alone(&program, needed());
        Capture::start_named_as(command, name, &folder.path().join("trace"), &[]).unwrap()
    }));
}

#[test]
fn an_nginx_that_is_stopped_and_started_again_is_followed_on() {
    let _alone = alone();
    let mut host = Host::start();
    let mut workers = BTreeMap::new();
    for n in 0..3 {
        let master = host.nginx.master().unwrap();
        workers.insert(master, host.nginx.workers_of(master).unwrap());
        host.fail(&format!("life-{n}"));
        if n < 2 {
            // Gracefully, and at once.
            let signal = [Signal::QUIT, Signal::TERM][n];
            host.nginx.end(master, signal).unwrap();
            let master = host.nginx.start_again().unwrap();
            host.await_taken_up(master);
        }
    }
    let report = host.report();
    let told = told_by(&report, &workers);
    assert_eq!(told.values().copied().collect::<Vec<_>>(), [EACH; 3]);
    assert_eq!(told.len(), 3);
    for incident in &report.incidents {
        assert_eq!(incident.cause, "closed-without-answer", "{incident:#?}");
    }
}
