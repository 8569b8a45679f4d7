//! The commands that read traces, as they are called: on files, without root.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

use std::ffi::OsStr;
use std::fs;
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
