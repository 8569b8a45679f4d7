//! The judge against recorded runs of every scenario of the lab: without root, without a
//! kernel, with the real command.
//!
//! `cargo xtask lab --fixtures [SCENARIO..]` records them anew. `WHOCLOSED_BLESS=1` writes
//! the verdicts that are now given as those that are expected; review the difference.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use lab::fixture::{self, Fixture};
use lab::scenarios::ALL;
use lab::verdicts::Report;

fn report(folder: &Path) -> Result<Report> {
    let trace = fixture::trace(folder);
    // Nothing of this machine has a part in it.
    let output = Command::new(env!("CARGO_BIN_EXE_whoclosed"))
        .arg("report")
        .arg(&trace)
        .args(["--format", "json"])
        .env_clear()
        .env("TZ", "Asia/Kathmandu")
        .current_dir("/")
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", trace.display());
    Report::parse(&output.stdout)
}

#[test]
fn every_scenario_has_a_fixture_and_every_fixture_a_scenario() {
    let mut recorded: Vec<String> = fs::read_dir(fixture::folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    recorded.sort();
    let mut scenarios: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
    scenarios.sort_unstable();
    assert_eq!(
        recorded, scenarios,
        "`cargo xtask lab --fixtures SCENARIO` records what is missing"
    );
}

#[test]
fn no_verdict_on_a_recorded_run_is_wrong_and_certain() {
    let mut wrong = Vec::new();
    for scenario in ALL {
        let folder = fixture::folder().join(scenario.name);
        let recorded = Fixture::read(&folder).unwrap();
        assert_eq!(recorded.scenario, scenario.name);
        let score = recorded.score(&report(&folder).unwrap());
        let failures = score.failures.iter();
        wrong.extend(failures.map(|failure| format!("{}: {failure}", scenario.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_verdicts_on_recorded_runs_are_the_expected_ones() {
    let mut changed = Vec::new();
    for scenario in ALL {
        let folder = fixture::folder().join(scenario.name);
        let found = fixture::verdicts(&report(&folder).unwrap());
        let file = fixture::expected(&folder);
        if std::env::var_os("WHOCLOSED_BLESS").is_some() {
            fs::write(&file, &found).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if found != expected {
            changed.push(format!(
                "{}:\n{}",
                scenario.name,
                difference(&expected, &found)
            ));
        }
    }
    assert!(
        changed.is_empty(),
        "WHOCLOSED_BLESS=1 accepts this:\n{}",
        changed.join("\n")
    );
}

/// The lines that only one of both has.
fn difference(expected: &str, found: &str) -> String {
    let only = |sign: char, one: &str, other: &str| -> Vec<String> {
        one.lines()
            .filter(|line| !other.lines().any(|same| same == *line))
            .map(|line| format!("{sign} {line}"))
            .collect()
    };
    let mut lines = only('-', expected, found);
    lines.extend(only('+', found, expected));
    lines.join("\n")
}

#[test]
fn no_fixture_names_the_machine_that_recorded_it_and_all_are_small() {
    let mut total = 0;
    for scenario in ALL {
        let folder = fixture::folder().join(scenario.name);
        let trace = fs::read(fixture::trace(&folder)).unwrap();
        let truth = fs::read_to_string(folder.join("truth.json")).unwrap();
        total += trace.len() + truth.len();
        let trace = zstd::decode_all(trace.as_slice()).unwrap();
        let trace = String::from_utf8(trace).unwrap();
        assert!(trace.contains("\"host\":\"web-1\""), "{}", scenario.name);
        for text in [&trace, &truth] {
            for place in ["/tmp/", "/root/", "/home/"] {
                assert!(!text.contains(place), "{}: {place}", scenario.name);
            }
        }
    }
    assert!(total < 3 << 20, "all fixtures have {total} bytes");
}
