//! The fuzzers' corpus through what the fuzz targets check (`tests/fuzz`), so that what
//! they once found stays found.

#[path = "../../tests/fuzz/fuzz_targets/checks.rs"]
mod checks;

use std::fs;
use std::path::Path;

/// The files of a target's corpus.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fuzz/corpus")
        .join(target);
    let files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(files.len() > 20, "{target}: {} files", files.len());
    files
}

#[test]
fn every_line_that_the_fuzzer_kept_is_read_in_order() {
    corpus("log_line")
        .iter()
        .for_each(|bytes| checks::line(bytes));
}

#[test]
fn nothing_that_the_fuzzer_kept_reaches_a_terminal_raw() {
    for target in ["log_line", "log_terminal"] {
        corpus(target)
            .iter()
            .for_each(|bytes| checks::terminal(bytes));
    }
}
