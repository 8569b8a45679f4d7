//! Runs real servers: one nginx, one capture, all checks at once, the table and the score.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use super::table::{Row, Table};
use super::{Check, Places, Server};
use crate::draw::Draw;
use crate::nginx::{Configuration, Nginx};
use crate::scenario::Stage;
use crate::score::{Recorded, Score, read_error_log};
use crate::tool::{self, Capture};
use crate::verdicts::Report;

/// What a run gave.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// A line for each check.
    pub rows: Vec<Row>,
    /// The verdicts on what failed.
    pub score: Score,
}

impl Outcome {
    /// Nothing that fails a run: every number is right, and no verdict wrong that may not be.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.score.holds() && self.rows.iter().all(|row| row.right() != Some(false))
    }

    /// The rows as a table in Markdown.
    #[must_use]
    pub fn table(&self) -> Table<'_> {
        Table(&self.rows)
    }
}

/// A server's name and one of its checks.
type Named = (&'static str, Box<dyn Check>);

/// Runs these before this nginx. The trace and the truth are left in the folder `save`, if
/// it is given.
///
/// # Errors
/// If a server is missing or does not start, a fact never comes about or the capture fails.
pub fn run(servers: &[Server], nginx: &Path, seed: u64, save: Option<PathBuf>) -> Result<Outcome> {
    let places = Places::find()?;
    let mut configuration = Configuration {
        log_level: Some("info"),
        ..Configuration::new(Vec::new())
    };
    let mut checks: Vec<Named> = Vec::new();
    for server in servers {
        let prepared = (server.prepare)(&places, &mut Draw::for_scenario(seed, server.name))
            .with_context(|| format!("cannot prepare {}", server.name))?;
        checks.extend(prepared.into_iter().map(|check| (server.name, check)));
    }
    for (_, check) in &checks {
        check.configure(&mut configuration);
    }
    let nginx = Nginx::start_binary(nginx, &configuration)?;
    let folder = tempfile::tempdir().context("no folder for the trace")?;
    let trace = folder.path().join("trace");
    let capture = Capture::start(nginx.master_pid(), &trace, &[])?;
    let stage = Stage::new(&nginx);
    for stops_nginx in [false, true] {
        drive(&mut checks, &stage, stops_nginx)?;
    }
    capture.finish()?.succeeded()?;

    let arguments = ["report".as_ref(), trace.as_os_str()];
    let json = tool::run(
        arguments
            .into_iter()
            .chain(["--format".as_ref(), "json".as_ref()]),
    )?
    .succeeded()?
    .stdout;
    let report = Report::parse(&json)?;
    let raw: Value = serde_json::from_slice(&json)?;
    let mut recorded = Recorded {
        log: read_error_log(&nginx.error_log())?,
        ..Recorded::default()
    };
    let mut rows = Vec::new();
    for (name, check) in &checks {
        let truth = check.truth();
        let truth = truth.with_context(|| format!("no truth of {name}"))?;
        let of_it = |act| ((*name).to_owned(), act);
        recorded.acts.extend(truth.into_iter().map(of_it));
        let row = check.row(&Value::Null);
        let mut row = check.row(about(&raw, &row.upstream));
        row.verdicts = verdicts(&report, &row.upstream);
        rows.push(row);
    }
    if let Some(folder) = save {
        fs::create_dir_all(&folder)
            .and_then(|()| fs::copy(&trace, folder.join("trace")))
            .with_context(|| format!("cannot write {}", folder.display()))?;
        let truth = serde_json::to_string_pretty(&recorded)?;
        fs::write(folder.join("truth.json"), truth).context("cannot keep the truth")?;
    }
    let score = Score::of(&report, &recorded);
    Ok(Outcome { rows, score })
}

/// Drives all checks of one kind at once.
fn drive(checks: &mut [Named], stage: &Stage<'_>, stop_nginx: bool) -> Result<()> {
    thread::scope(|scope| {
        let drivers: Vec<_> = checks
            .iter_mut()
            .filter(|(_, check)| check.stops_nginx() == stop_nginx)
            .map(|(name, check)| (*name, scope.spawn(|| check.drive(stage))))
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

/// The report's part about a backend.
fn about<'a>(report: &'a Value, address: &str) -> &'a Value {
    report["upstreams"]
        .as_array()
        .and_then(|all| all.iter().find(|upstream| upstream["address"] == address))
        .unwrap_or(&Value::Null)
}

fn verdicts(report: &Report, address: &str) -> BTreeMap<String, usize> {
    let mut verdicts = BTreeMap::new();
    for incident in report
        .incidents
        .iter()
        .filter(|one| one.upstream == address)
    {
        *verdicts.entry(incident.cause.clone()).or_default() += 1;
    }
    verdicts
}
