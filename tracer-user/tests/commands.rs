//! The commands that read traces, as they are called: on files, without root.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/demo.trace");

/// The command in this folder, away from what the machine sets.
fn command<I: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whoclosed"));
    command.args(arguments).env_clear().current_dir(folder);
    command
}

fn run(folder: &Path, line: &str) -> Output {
    command(folder, line.split_whitespace()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Failed with this status, saying this and printing nothing.
#[track_caller]
fn refused(output: &Output, status: i32, said: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(stderr.contains(said), "no {said:?} in {stderr:?}");
    assert_eq!(text(&output.stdout), "");
}

/// A copy of the demo's trace in this folder.
fn demo(folder: &Path, name: &str) -> PathBuf {
    let copy = folder.join(name);
    fs::copy(DEMO, &copy).unwrap();
    copy
}

#[test]
fn a_trace_cut_off_before_its_capture_began_is_no_empty_report() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let whole = fs::read(demo(folder, "whole")).unwrap();
    let header = "{\"kind\":\"trace\",\"format\":\"whoclosed.trace\",\"version\":1,\
                  \"writer\":\"whoclosed 0.1.0\"}\n";
    fs::write(folder.join("stub"), header).unwrap();
    for line in [
        "report stub",
        "report stub whole",
        "report whole stub",
        "report stub --format json",
        "show stub 1",
        "show whole 1 --backend stub",
    ] {
        let said = "stub holds nothing yet";
        refused(&run(folder, line), 1, said);
    }
    for length in (0..3000).step_by(100) {
        fs::write(folder.join("stub"), &whole[..length]).unwrap();
        let output = run(folder, "report stub");
        match output.status.code() {
            Some(0) => assert!(text(&output.stdout).contains(", Linux 6."), "{length}"),
            _ => refused(&output, 1, "stub"),
        }
    }
}

#[test]
fn a_report_to_no_terminal_is_as_wide_as_columns_says() {
    let folder = tempfile::tempdir().unwrap();
    let widest = |columns: Option<&str>| {
        let mut report = command(folder.path(), ["report", DEMO]);
        report.envs(columns.map(|columns| ("COLUMNS", columns)));
        let shown = text(&report.output().unwrap().stdout);
        let widths = shown.lines().map(|line| line.chars().count());
        widths.max().unwrap()
    };
    assert!((50..=60).contains(&widest(Some("60"))));
    assert!((70..=80).contains(&widest(Some("80"))));
    // Not said, nonsense, and more than can be read.
    for columns in [None, Some("wide"), Some(""), Some("0"), Some("300")] {
        assert!((90..=100).contains(&widest(columns)), "{columns:?}");
    }
}

#[test]
fn a_report_in_a_file_is_its_owners_alone_and_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    demo(folder, "t");
    let printed = run(folder, "report t");
    assert!(printed.status.success());
    let written = run(folder, "report t --output r");
    assert!(written.status.success(), "{}", text(&written.stderr));
    assert!(written.stdout.is_empty());
    let report = folder.join("r");
    assert_eq!(fs::read(&report).unwrap(), printed.stdout);
    let mode = || fs::metadata(&report).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);

    fs::write(&report, "precious").unwrap();
    fs::set_permissions(&report, Permissions::from_mode(0o644)).unwrap();
    refused(&run(folder, "report t -o r"), 1, "r exists already");
    assert_eq!(fs::read(&report).unwrap(), b"precious");
    assert!(run(folder, "report t -o r --force").status.success());
    assert_eq!(fs::read(&report).unwrap(), printed.stdout);
    assert_eq!(mode(), 0o600);

    symlink("t", folder.join("link")).unwrap();
    let to_a_link = run(folder, "report t -o link --force");
    refused(&to_a_link, 2, "would replace the trace t");
    fs::write(folder.join("other"), "precious").unwrap();
    symlink("other", folder.join("other-link")).unwrap();
    let to_a_link = run(folder, "report t -o other-link --force");
    refused(&to_a_link, 1, "not a regular file");
    assert_eq!(fs::read(folder.join("other")).unwrap(), b"precious");
    refused(&run(folder, "report t --force"), 2, "--output");
}

#[test]
fn a_report_goes_to_stdout_by_a_dash_and_into_devices() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let whole = run(folder, &format!("report {DEMO}"));
    for place in ["-", "/dev/stdout"] {
        let output = run(folder, &format!("report {DEMO} --output {place}"));
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(output.stdout, whole.stdout, "{place}");
    }
    assert!(
        run(folder, &format!("report {DEMO} -o /dev/null"))
            .status
            .success()
    );
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
}

#[test]
fn what_fail_on_found_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let fail_on = |causes: &str| {
        let asked = causes.replace(' ', " --fail-on ");
        let output = run(folder.path(), &format!("report {DEMO} --fail-on {asked}"));
        assert!(!output.stdout.is_empty());
        (output.status.code(), text(&output.stderr))
    };
    let found = "read-timeout: 4 incidents (--fail-on)\n".to_owned();
    assert_eq!(fail_on("read-timeout"), (Some(1), found.clone()));
    assert_eq!(
        fail_on("read-timeout unreachable"),
        (Some(1), found.clone())
    );
    let both = format!("stale-keepalive: 21 incidents (--fail-on)\n{found}");
    assert_eq!(fail_on("read-timeout stale-keepalive"), (Some(1), both));
    assert_eq!(fail_on("unreachable"), (Some(0), String::new()));
}

#[test]
fn several_reports_stand_apart_under_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    demo(folder, "a.trace");
    demo(folder, "b.trace");
    let one = text(&run(folder, "report a.trace").stdout);
    let both = text(&run(folder, "report a.trace b.trace").stdout);
    assert_eq!(both, format!("a.trace:\n\n{one}\nb.trace:\n\n{one}"));
    // As JSON, one object after the other.
    let one = text(&run(folder, "report a.trace --format json").stdout);
    let both = text(&run(folder, "report a.trace b.trace --format json").stdout);
    assert_eq!(both, format!("{one}{one}"));

    symlink("a.trace", folder.join("c.trace")).unwrap();
    for (line, twice) in [
        ("report a.trace a.trace", "a.trace is given twice"),
        (
            "report a.trace b.trace ./b.trace",
            "./b.trace is given twice",
        ),
        ("report a.trace c.trace", "c.trace is given twice"),
        ("report -", "traces are read from files"),
        ("show - 1", "traces are read from files"),
    ] {
        refused(&run(folder, line), 2, twice);
    }
}
