//! Runs scenarios: one nginx, one capture, the parts that fail, and the score.

use std::thread;

use anyhow::{Context, Result, bail};

use crate::draw::Draw;
use crate::nginx::{Configuration, Nginx};
use crate::scenario::{Part, Scenario, Stage};
use crate::score::{Score, read_error_log};
use crate::tool::{self, Capture};
use crate::verdicts::Report;

/// Runs these scenarios together on one nginx, each in a thread of its own, and scores
/// what the command says of them.
///
/// # Errors
/// If something cannot be started, a fact never comes about or the capture fails; a
/// bad score is none.
pub fn run(scenarios: &[Scenario], seed: u64) -> Result<Score> {
    let mut configuration = Configuration {
        log_level: Some("info"),
        ..Configuration::new(Vec::new())
    };
    let mut parts = Vec::new();
    for scenario in scenarios {
        if scenario.alone && scenarios.len() > 1 {
            bail!("{} needs an nginx of its own", scenario.name);
        }
        let part = (scenario.prepare)(&mut Draw::for_scenario(seed, scenario.name))
            .with_context(|| format!("cannot prepare {}", scenario.name))?;
        part.configure(&mut configuration);
        parts.push((scenario.name, part));
    }
    let nginx = Nginx::start(&configuration)?;
    let folder = tempfile::tempdir().context("no folder for the trace")?;
    let trace = folder.path().join("trace");
    let capture = Capture::start(nginx.master_pid(), &trace, &[])?;
    drive(&mut parts, &Stage::new(&nginx))?;
    capture.finish()?.succeeded()?;

    let report = tool::run([
        "report".as_ref(),
        trace.as_os_str(),
        "--format".as_ref(),
        "json".as_ref(),
    ])?;
    let report = Report::parse(&report.succeeded()?.stdout)?;
    let log = read_error_log(&nginx.error_log())?;
    let mut acts = Vec::new();
    let mut constants = Vec::new();
    for (name, part) in &parts {
        acts.extend(
            part.truth()
                .with_context(|| format!("no truth of {name}"))?,
        );
        constants.extend(part.constants());
    }
    Ok(Score::of(&report, &acts, &constants, &log))
}

/// Drives all parts at once.
fn drive(parts: &mut [(&'static str, Box<dyn Part>)], stage: &Stage<'_>) -> Result<()> {
    thread::scope(|scope| {
        let drivers: Vec<_> = parts
            .iter_mut()
            .map(|(name, part)| (*name, scope.spawn(move || part.drive(stage))))
            .collect();
        for (name, driver) in drivers {
            match driver.join() {
                Ok(driven) => driven.with_context(|| format!("{name} failed"))?,
                Err(_) => bail!("{name} panicked"),
            }
        }
        Ok(())
    })
}
