//! `--check`: the report against what the backends recorded.

use std::collections::BTreeSet;

use anyhow::Result;
use lab::idle::Silence;
use lab::score::is_missed_run;
use lab::truth::{Fault, Happened};
use lab::verdicts::{Report, compare_beside};

use crate::scene::Scene;

/// Every kind of fault that the demo promises.
const PROMISED: [Fault; 7] = [
    Fault::Stale,
    Fault::ClosedBeforeAnswer,
    Fault::ResetBeforeAnswer,
    Fault::Cut,
    Fault::Refused,
    Fault::TooSlow,
    Fault::BigHeader,
];

/// Prints the comparison; true if everything is right.
pub(crate) fn check(
    scene: &Scene,
    truth: &[Happened],
    json: &[u8],
    runs_may_be_missed: bool,
) -> Result<bool> {
    let report = Report::parse(json)?;
    let comparison = compare_beside(truth, &report, &[scene.stale_backend()]);
    println!("{comparison}");
    let mut problems = Vec::new();
    if report.schema != "whoclosed.report/1" {
        problems.push(format!("the report's schema is {:?}", report.schema));
    }
    let made: BTreeSet<_> = truth.iter().map(|happened| happened.fault).collect();
    for fault in PROMISED.iter().filter(|fault| !made.contains(fault)) {
        problems.push(format!("no fault of the kind {fault:?} was made"));
    }
    let lasted = |happened: &&Happened| matches!(happened.idle, Some(Silence::Lasted { .. }));
    let silences = truth.iter().filter(lasted).count();
    println!("idle times held against the records: {silences}");
    if silences == 0 {
        problems.push("no fault was made after a silence".into());
    }
    let lines = scene.nginx().upstream_lines()?.len();
    // A retry that met another stale connection has its own line.
    if lines != report.incidents.len() {
        problems.push(format!(
            "nginx logged {lines} upstream lines, the report has {} incidents",
            report.incidents.len()
        ));
    }
    let good = scene.good().to_string();
    if report
        .incidents
        .iter()
        .any(|incident| incident.upstream == good)
    {
        problems.push(format!("the good upstream {good} is blamed"));
    }
    // The median of what the backend recorded: 1.00 s, or what a machine with too much
    // to do made of it.
    let mut closes = scene.idle_closes();
    closes.sort_unstable();
    let true_ms = closes
        .get(closes.len() / 2)
        .map_or(0.0, |close| close.as_secs_f64() * 1000.0);
    match report
        .upstream(scene.stale())
        .and_then(|upstream| upstream.idle_timeout)
    {
        None => problems.push("no idle timeout was inferred for the stale upstream".into()),
        Some(found) => {
            println!(
                "idle timeout of the stale upstream: {:.1} ms from {} closes; in truth {true_ms:.1} \
                 ms, {} closes",
                found.ms,
                found.samples,
                closes.len()
            );
            if (found.ms - true_ms).abs() > true_ms * 0.05 {
                problems.push("the idle timeout is not within 5 % of the truth".into());
            }
        }
    }
    for (kind, count) in &report.capture.lost {
        println!("lost: {count} {kind}");
        if !(runs_may_be_missed && is_missed_run(kind)) {
            problems.push(format!("records were lost: {count} {kind}"));
        }
    }
    for problem in &problems {
        println!("WRONG: {problem}");
    }
    let right = comparison.holds() && problems.is_empty();
    let verdict = if right { "all right" } else { "NOT all right" };
    println!(
        "{} faults, {} incidents: {verdict}",
        truth.len(),
        report.incidents.len()
    );
    Ok(right)
}
