//! Traces that are not whole, not traces, or from a later version.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use lab::backend::{Backend, Habits, IPV4};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::load::{self, Request};
use lab::nginx::{Configuration, Upstream, terminal};
use lab::tool::{self, Finished};
use lab::verdicts::Report;
use rustix::termios::{Winsize, tcsetwinsize};

use crate::bench::{Bench, alone};

fn reported(trace: &Path) -> Finished {
    tool::run(["report", trace.to_str().unwrap(), "--format", "json"]).unwrap()
}

#[track_caller]
fn refused(trace: &Path, words: &[&str]) {
    let finished = reported(trace);
    let said = &finished.stderr;
    assert_eq!(finished.status.code(), Some(1), "{said}");
    assert!(finished.stdout.is_empty(), "{}", finished.text());
    for word in [&[trace.to_str().unwrap()], words].concat() {
        assert!(
            said.to_lowercase().contains(&word.to_lowercase()),
            "no {word:?} in {said:?}"
        );
    }
}

/// A zstd frame of one raw block (RFC 8878, 3.1.1): what any compressor may write.
fn frame(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    // Magic; single segment with a content size of 4 bytes; the size; last block, raw.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1010_0000];
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&(1 | length << 3).to_le_bytes()[..3]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// What a command prints on a terminal so many columns wide.
#[track_caller]
fn on_a_terminal(columns: u16, arguments: &[&str]) -> String {
    let (ours, its) = terminal().unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&its, size).unwrap();
    let mut child = Command::new(tool::binary().unwrap())
        .args(arguments)
        .env("TERM", "xterm")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(its)
        .spawn()
        .unwrap();
    let mut shown = Vec::new();
    // Once nobody has the other end open the kernel answers with EIO.
    let ended = File::from(ours).read_to_end(&mut shown);
    assert!(ended.is_err_and(|error| error.raw_os_error() == Some(5)));
    assert!(child.wait().unwrap().success());
    String::from_utf8(shown).unwrap()
}

#[test]
fn a_report_is_as_wide_as_its_terminal_and_without_colours_where_none_are_wanted() {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo.trace");
    let widest = |columns| {
        let shown = on_a_terminal(columns, &["report", trace]);
        assert!(!shown.contains('\u{1b}'), "{shown}");
        shown
            .lines()
            .map(|line| line.trim_end().chars().count())
            .max()
    };
    assert!((60..=90).contains(&widest(90).unwrap()));
    // Longer lines are hard to read.
    assert!((91..=100).contains(&widest(200).unwrap()));
}

#[test]
fn a_file_that_is_missing_empty_or_something_else_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    refused(&trace, &["no such file"]);
    fs::write(&trace, "").unwrap();
    refused(&trace, &["empty"]);
    for alien in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x1f\x8b\x08\0\0\0\0\0",
        &[0; 5000],
    ] {
        fs::write(&trace, alien).unwrap();
        refused(&trace, &["not a"]);
    }
    fs::write(&trace, frame("{\"kind\":\"something\",\"else\":1}\n")).unwrap();
    refused(&trace, &["not a"]);
    refused(folder.path(), &[]);
}

#[test]
fn a_trace_of_a_later_version_is_refused_with_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let header = "{\"kind\":\"trace\",\"format\":\"whoclosed.trace\",\"version\":9999,\
                  \"writer\":\"whoclosed 99.0\"}\n";
    fs::write(&trace, frame(header)).unwrap();
    refused(&trace, &["9999", "newer"]);
}

#[test]
fn a_trace_cut_anywhere_reads_up_to_the_cut_and_never_panics() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address()).keepalive(8);
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
    let fail = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    let requests: Vec<_> = (0..10)
        .map(|n| Request::post(format!("/app/{n}"), 3).asking(fail))
        .collect();
    let _ = load::run(bench.nginx.address(), &requests, 2, true);
    let whole = bench.report();
    assert_eq!(whole.incidents.len(), 10);
    let bytes = fs::read(bench.trace()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut");
    let mut most = 0;
    for at in (1..=40)
        .map(|step| bytes.len() * step / 41)
        .chain([bytes.len() - 1])
    {
        fs::write(&cut, &bytes[..at]).unwrap();
        let finished = reported(&cut);
        assert!(
            !finished.stderr.contains("panicked"),
            "at {at}: {}",
            finished.stderr
        );
        match finished.status.code() {
            Some(0) => {
                let report = Report::parse(&finished.stdout).unwrap();
                assert!(!report.capture.complete, "whole at {at} of {}", bytes.len());
                // A longer piece tells at least as much.
                assert!(report.incidents.len() >= most);
                most = report.incidents.len();
            }
            // Cut within its first record: nothing is left to report.
            code => assert_eq!(code, Some(1), "at {at}: {}", finished.stderr),
        }
    }
    assert!(most > 0, "no cut trace told anything");
    // One flipped bit in the middle is found by the frame's checksum.
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 0x10;
    fs::write(&cut, &flipped).unwrap();
    let finished = reported(&cut);
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
}
