//! The same trace gives the same report, byte for byte, to a user who has neither
//! root nor nginx.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lab::backend::{Backend, Habits, IPV4, Idle};
use lab::behaviour::{Behaviour, Framing, Kind, Means};
use lab::load::{self, Method, Request};
use lab::nginx::{Configuration, Upstream};
use lab::stale::{Race, race};
use lab::{processes, tool};
use tempfile::TempDir;

use crate::bench::{Bench, alone};

/// A copy of the command that everybody can run.
pub(crate) fn copied_command(folder: &TempDir) -> PathBuf {
    let copy = folder.path().join("whoclosed");
    fs::copy(tool::binary().unwrap(), &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    copy
}

/// A command as the user who owns nothing, in an empty environment.
pub(crate) fn as_nobody(program: &Path) -> Command {
    let setpriv = processes::which("setpriv").expect("setpriv of util-linux");
    let mut command = Command::new(setpriv);
    command
        .arg(format!("--reuid={}", processes::NOBODY))
        .arg(format!("--regid={}", processes::NOBODY))
        .args(["--clear-groups", "--no-new-privs"])
        .arg(program)
        .env_clear()
        .current_dir("/");
    command
}

/// A capture with several kinds of incidents, and what it printed.
#[track_caller]
fn captured(more: &[&str]) -> (Bench, Vec<u8>) {
    let idle = Some(Idle {
        after: Duration::from_millis(400),
        means: Means::Fin,
    });
    let backend = Backend::start(
        IPV4,
        Habits {
            idle,
            ..Habits::default()
        },
    )
    .unwrap();
    let upstream = Upstream::new("app", backend.address()).keepalive(16);
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), more);
    let plan = Race {
        location: "/app/".into(),
        requests: 3,
        method: Method::Get,
        served_before: 2,
    };
    race(&bench.nginx, &backend, &plan).unwrap();
    let cut = Kind::CloseInBody {
        body: 50_000,
        framing: Framing::Length,
        means: Means::Fin,
    };
    let requests: Vec<_> = [cut, Kind::CloseWithoutAnswer(Means::Rst)]
        .into_iter()
        .map(|kind| Request::get("/app/x").asking(Behaviour::of(kind)))
        .collect();
    let _ = load::run(bench.nginx.address(), &requests, 1, false);
    let printed = bench.finish().stdout;
    (bench, printed)
}

#[track_caller]
fn the_same_to_nobody(format: &str) {
    let (bench, printed) = captured(&["--format", format]);
    assert!(!printed.is_empty());
    let command = copied_command(bench.folder());
    chown(
        bench.trace(),
        Some(processes::NOBODY),
        Some(processes::NOBODY),
    )
    .unwrap();
    let mut report = as_nobody(&command);
    report
        .arg("report")
        .arg(bench.trace())
        .args(["--format", format]);
    let reported = tool::finish(&mut report).unwrap().succeeded().unwrap();
    assert!(
        reported.stdout == printed,
        "capture printed\n{}\nthe report is\n{}",
        String::from_utf8_lossy(&printed),
        reported.text()
    );
}

#[test]
fn the_text_report_of_a_user_without_root_is_the_one_that_capture_printed() {
    let _alone = alone();
    the_same_to_nobody("text");
}

#[test]
fn the_json_report_of_a_user_without_root_is_the_one_that_capture_printed() {
    let _alone = alone();
    the_same_to_nobody("json");
}

#[test]
fn a_trace_is_for_its_owner_alone() {
    let _alone = alone();
    let (bench, _) = captured(&[]);
    let mode = fs::metadata(bench.trace()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let command = copied_command(bench.folder());
    let mut report = as_nobody(&command);
    let refused = tool::finish(report.arg("report").arg(bench.trace())).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        refused.stderr.contains(bench.trace().to_str().unwrap()),
        "{}",
        refused.stderr
    );
}
