//! With fewer privileges than root's: what is missing is named in the same words by both
//! verbs, what is needed suffices, and what is needed no longer is given up.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use lab::attached::held_by;
use lab::backend::{Backend, Habits, IPV4};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, wait_for};
use lab::load::{self, Client, Request};
use lab::netns::Namespace;
use lab::nginx::{self, Configuration, Nginx, Upstream};
use lab::tool::Capture;
use lab::{processes, tool};
use serde_json::Value;
use tempfile::TempDir;

use crate::bench::{Bench, alone, records, report};
use crate::causes::{is_on, only};
use crate::doctor::{doctor, remedy_and_text};
use crate::unprivileged::copied_command;

/// What a capture needs, and its bit (include/uapi/linux/capability.h).
const NEEDED: [(&str, u32); 4] = [
    ("bpf", 39),
    ("perfmon", 38),
    ("sys_ptrace", 19),
    ("dac_read_search", 2),
];
/// What a capture keeps to look at processes: CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH.
pub(crate) const READS: u64 = 1 << 19 | 1 << 2;
/// What it keeps for later uprobes where there are no links of them: CAP_PERFMON,
/// CAP_SYS_ADMIN.
const UPROBES: u64 = 1 << 38 | 1 << 21;

/// Failures of an instance.
const EACH: usize = 12;

/// The program as a user who owns nothing and has these capabilities alone: as systemd
/// runs a unit with User=, AmbientCapabilities= and CapabilityBoundingSet=.
pub(crate) fn with_alone<'a>(
    program: &Path,
    capabilities: impl IntoIterator<Item = &'a str>,
) -> Command {
    let list: String = capabilities
        .into_iter()
        .map(|name| format!(",+{name}"))
        .collect();
    let list = format!("-all{list}");
    let setpriv = processes::which("setpriv").expect("setpriv of util-linux");
    let mut command = Command::new(setpriv);
    command
        .arg(format!("--reuid={}", processes::NOBODY))
        .arg(format!("--regid={}", processes::NOBODY))
        .args(["--clear-groups", "--no-new-privs"])
        .args(["--bounding-set", &list])
        .args(["--inh-caps", &list])
        .args(["--ambient-caps", &list])
        .arg(program)
        .env_clear()
        .current_dir("/");
    command
}

pub(crate) fn needed() -> impl Iterator<Item = &'static str> {
    NEEDED.iter().map(|(name, _)| *name)
}

/// Capability sets of each thread of a process: `CapPrm` and the like.
fn sets(pid: u32, which: &str) -> BTreeSet<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .map(|task| {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix(which));
            u64::from_str_radix(line.unwrap().trim_start_matches(':').trim(), 16).unwrap()
        })
        .collect()
}

/// Waits until no thread of it has more than these: it says that it captures before.
#[track_caller]
pub(crate) fn gives_up(pid: u32, most: u64) {
    wait_for("the capture to give up capabilities", PATIENCE, || {
        let within = |set| sets(pid, set).iter().all(|set| set & !most == 0);
        Ok((within("CapPrm") && within("CapEff")).then_some(()))
    })
    .unwrap();
}

fn failing() -> (Backend, Nginx) {
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address());
    let nginx = Nginx::start(&Configuration::new(vec![upstream])).unwrap();
    (backend, nginx)
}

/// One failure, and it is matched to the connection that the backend recorded.
#[track_caller]
fn tells_a_failure(mut bench: Bench, backend: &Backend, matched: &str) {
    let close = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    let request = Request::get("/app/x").asking(close);
    let _ = load::run(bench.nginx.address(), &[request], 1, false);
    let report = bench.report();
    let incident = only(&report);
    assert_eq!(incident.side, "backend", "{incident:#?}");
    assert_eq!(incident.means, "fin", "{incident:#?}");
    assert_eq!(incident.matched, matched, "{incident:#?}");
    let record = backend.connections().pop().unwrap();
    is_on(incident, &record);
}

#[test]
fn each_missing_capability_is_named_in_the_same_words_by_both_verbs() {
    let _alone = alone();
    let (_backend, nginx) = failing();
    let folder = tempfile::tempdir().unwrap();
    let program = copied_command(&folder);
    let pid = nginx.master_pid().to_string();
    for (missing, _) in NEEDED {
        let rest = || needed().filter(|name| *name != missing);
        let name = format!("CAP_{}", missing.to_uppercase());
        let (status, found) = doctor(with_alone(&program, rest()), &["--nginx", &pid]);
        assert_eq!(status, 1, "without {name}");
        assert_eq!(found["possible"], false, "without {name}");
        let prevents: Vec<_> = found["statements"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|said| said["weight"] == "prevents")
            .collect();
        assert_eq!(prevents.len(), 1, "{found:#}");
        let words = remedy_and_text(prevents[0]);
        for (other, _) in NEEDED {
            let other = format!("CAP_{}", other.to_uppercase());
            assert_eq!(words.contains(&other), other == name, "{words}");
        }
        let mut capture = with_alone(&program, rest());
        capture.args(["capture", "--duration", "1s", "--nginx", &pid]);
        capture.arg("--output").arg(folder.path().join("trace"));
        let finished = tool::finish(&mut capture).unwrap();
        assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
        assert_eq!(finished.stderr, format!("whoclosed: {words}\n"));
    }
}

#[test]
fn without_root_but_with_its_capabilities_a_failure_is_matched_exactly() {
    let _alone = alone();
    let (backend, nginx) = failing();
    let folder = tempfile::tempdir().unwrap();
    let program = copied_command(&folder);
    let pid = nginx.master_pid().to_string();
    let (status, found) = doctor(with_alone(&program, needed()), &["--nginx", &pid]);
    assert_eq!((status, &found["full"]), (0, &true.into()), "{found:#}");
    let capabilities = found["found"]["process"]["capabilities"]
        .as_array()
        .unwrap();
    let optional: Vec<_> = (capabilities.iter())
        .filter(|one| one["required"] == false)
        .collect();
    assert_eq!(optional.len(), 1, "{capabilities:#?}");
    assert_eq!(optional[0]["name"], "CAP_SYS_ADMIN");
    assert_eq!(optional[0]["held"], false);
    let bench = Bench::by(nginx, |_| with_alone(&program, needed()));
    let uid = fs::read_to_string(format!("/proc/{}/status", bench.capture().pid())).unwrap();
    assert!(
        uid.contains("\nUid:\t65534\t65534\t65534\t65534\n"),
        "{uid}"
    );
    tells_a_failure(bench, &backend, "exact");
}

/// What doctor weighs as limits, as a capture says it.
#[track_caller]
fn limits(found: &Value) -> Vec<String> {
    let all = found["statements"].as_array().unwrap().iter();
    let limits = all.filter(|said| said["weight"] == "limits");
    limits.map(remedy_and_text).collect()
}

#[test]
fn what_an_optional_capability_is_for_is_told_by_both_verbs_where_it_is_missing() {
    let _alone = alone();
    let namespace = Namespace::create().unwrap();
    let upstream = Upstream::new("app", "127.0.0.1:1");
    let start = || Nginx::start(&Configuration::new(vec![upstream.clone()]));
    let nginx = namespace.enter(start).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = copied_command(&folder);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let pid = nginx.master_pid().to_string();
    let (status, found) = doctor(with_alone(&program, needed()), &["--nginx", &pid]);
    assert_eq!((status, &found["possible"]), (1, &true.into()), "{found:#}");
    let said = limits(&found);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("listening sockets"), "{said:?}");
    let mut capture = with_alone(&program, needed());
    capture.args(["capture", "--duration", "1s", "--nginx", &pid]);
    capture.arg("--output").arg(folder.path().join("trace"));
    let finished = tool::finish(&mut capture).unwrap().succeeded().unwrap();
    let warning = format!("warning: {}\n", said[0]);
    assert!(finished.stderr.starts_with(&warning), "{}", finished.stderr);
    assert_eq!(finished.stderr.matches("warning: ").count(), 1);
    let more = needed().chain(["sys_admin"]);
    let (status, found) = doctor(with_alone(&program, more), &["--nginx", &pid]);
    assert_eq!((status, &found["full"]), (0, &true.into()), "{found:#}");
}

#[test]
fn on_a_backends_host_the_same_capabilities_suffice_and_are_given_up() {
    const REQUESTS: usize = 3;
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let port = backend.address().port();
    let folder = tempfile::tempdir().unwrap();
    let program = copied_command(&folder);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let more = ["--role", "backend", "--port", &port.to_string()];
    let (_, found) = doctor(with_alone(&program, needed()), &more);
    // Namespaces of others on this host may be beyond it.
    assert_eq!(found["possible"], true, "{found:#}");
    let trace = folder.path().join("trace");
    let command = with_alone(&program, needed());
    let capture = Capture::of_backend_as(command, port, &trace).unwrap();
    gives_up(capture.pid(), READS);
    assert_eq!(sets(capture.pid(), "NoNewPrivs"), BTreeSet::from([1]));
    let close = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    let mut ends = BTreeSet::new();
    for _ in 0..REQUESTS {
        let mut client = Client::connect(backend.address()).unwrap();
        ends.insert(client.local().to_string());
        assert!(client.ask(&Request::get("/x").asking(close)).is_err());
    }
    capture.finish().unwrap().succeeded().unwrap();

    assert_eq!(records(&trace, "end").len(), 1);
    assert_eq!(records(&trace, "loss"), [Value::Null; 0]);
    let accepted = records(&trace, "accepted");
    assert_eq!(accepted.len(), REQUESTS, "{accepted:#?}");
    let this_process = std::process::id();
    for record in &accepted {
        assert_eq!(record["end"], "closed", "{record:#}");
        assert_eq!(record["pid"], this_process, "{record:#}");
    }
    let remotes = accepted.iter().map(|one| one["remote"].as_str().unwrap());
    assert_eq!(remotes.map(str::to_owned).collect::<BTreeSet<_>>(), ends);
}

#[test]
fn a_capture_gives_up_what_it_needs_no_longer_and_goes_on() {
    let _alone = alone();
    let (backend, nginx) = failing();
    let bench = Bench::before(nginx, &["--no-uprobe"]);
    let pid = bench.capture().pid();
    gives_up(pid, READS);
    assert_eq!(sets(pid, "NoNewPrivs"), BTreeSet::from([1]));
    // A log that is not there yet, nor readable to everybody: opened under way.
    let log = bench.nginx.error_log();
    fs::rename(&log, log.with_extension("1")).unwrap();
    bench.nginx.reopen_logs().unwrap();
    tells_a_failure(bench, &backend, "ordered");
}

#[test]
fn with_uprobes_too_a_capture_keeps_only_what_it_looks_at_processes_with() {
    let _alone = alone();
    let (backend, nginx) = failing();
    let bench = Bench::before(nginx, &[]);
    gives_up(bench.capture().pid(), READS);
    tells_a_failure(bench, &backend, "exact");
}

#[test]
fn without_links_of_uprobes_a_capture_keeps_what_later_binaries_need() {
    let _alone = alone();
    a_later_instance_has_its_uprobes(READS | UPROBES, |name, folder| {
        let trace = folder.path().join("trace");
        Capture::start_named(name, &trace, &["--no-uprobe-links"]).unwrap()
    });
}

/// An instance with a binary of its own starts when the capture has no more than `most`
/// of all capabilities; each failure of both has its connection, exactly.
#[track_caller]
fn a_later_instance_has_its_uprobes(most: u64, capture: impl FnOnce(&str, &TempDir) -> Capture) {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("wc-{}", std::process::id());
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let start = |which: &str| {
        let own = folder.path().join(which);
        fs::create_dir(&own).unwrap();
        let binary = own.join(&name);
        fs::copy(nginx::binary().unwrap(), &binary).unwrap();
        let upstream = Upstream::new("app", backend.address());
        Nginx::start_binary(&binary, &Configuration::new(vec![upstream])).unwrap()
    };
    let fail = |nginx: &Nginx, which: &str| {
        let close = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
        let requests: Vec<_> = (0..EACH)
            .map(|n| Request::get(format!("/app/{which}-{n}")).asking(close))
            .collect();
        let _ = load::run(nginx.address(), &requests, 2, false);
    };
    let first = start("first");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let capture = capture(&name, &folder);
    gives_up(capture.pid(), most);
    let uprobes = || {
        let held = held_by(capture.pid()).unwrap();
        held.links.values().filter(|link| link.is_uprobe()).count()
    };
    let attached = uprobes();
    assert!(attached > 0);
    fail(&first, "first");
    let second = start("second");
    wait_for("the uprobes in its binary", PATIENCE, || {
        Ok((uprobes() == 2 * attached).then_some(()))
    })
    .unwrap();
    fail(&second, "second");
    capture.finish().unwrap().succeeded().unwrap();

    let report = report(&folder.path().join("trace"));
    assert_eq!(report.incidents.len(), 2 * EACH);
    let records = backend.connections();
    for incident in &report.incidents {
        assert_eq!(incident.matched, "exact", "{incident:#?}");
        let found = incident.connection.as_ref().unwrap();
        let record = records.iter().find(|record| record.remote == found.local);
        is_on(incident, record.unwrap());
        let carried = record.unwrap().requests.last().unwrap();
        assert_eq!(incident.target(), Some(carried.target.as_str()));
    }
}

#[test]
fn an_instance_that_starts_later_has_its_uprobes_without_any_capability_for_them() {
    let _alone = alone();
    a_later_instance_has_its_uprobes(READS, |name, folder| {
        let trace = folder.path().join("trace");
        Capture::start_named(name, &trace, &[]).unwrap()
    });
}

#[test]
fn without_root_an_instance_that_starts_later_has_its_uprobes_too() {
    let _alone = alone();
    a_later_instance_has_its_uprobes(READS, |name, folder| {
        let command = with_alone(&copied_command(folder), needed());
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let trace = folder.path().join("trace");
        Capture::start_named_as(command, name, &trace, &[]).unwrap()
    });
}
