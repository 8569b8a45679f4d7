//! The fuzzer's corpus through what its target checks (`tests/fuzz`), and from there to the
//! report's text: what it once found stays found, and nothing of it reaches a terminal.

#![expect(
    clippy::unwrap_used,
    reason = "a test panics where something is not as it must be"
)]

use std::fs;
use std::path::Path;

use tracer_user::judge::judge;
use tracer_user::nginx;
use tracer_user::report::text::{TextOptions, render};
use tracer_user::trace::record::{Line, Record};

#[path = "../../tests/fuzz/fuzz_targets/checks.rs"]
mod checks;

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/log_line");
    let files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(files.len() > 50, "{} files", files.len());
    files
}

#[test]
fn every_line_that_the_fuzzer_kept_is_read_in_order() {
    for bytes in corpus() {
        checks::line(&bytes);
    }
}

#[test]
fn nothing_that_the_fuzzer_kept_reaches_a_terminal_raw() {
    let mut judge = judge([]);
    for (number, bytes) in (0_u64..).zip(corpus()) {
        let (text, latin1) = checks::text_of(&bytes);
        judge.push(&Record::Line(Line {
            pid: None,
            file: "/var/log/nginx/error.log".to_owned(),
            offset: number,
            master_pid: 1,
            read_ns: number * 1_000_000_000,
            text,
            latin1,
        }));
    }
    let report = judge.finish(Vec::new()).report;
    assert!(report.incidents.len() > 10, "{}", report.incidents.len());
    let mut shown = String::new();
    let options = TextOptions {
        colour: false,
        width: 80,
    };
    render(&report, &options, &mut shown).unwrap();
    let acted_on = |character: char| character.is_control() && character != '\n';
    assert!(!shown.contains(acted_on), "{shown:?}");
}
