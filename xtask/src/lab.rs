//! `cargo xtask lab`: failures of every kind made on purpose, and the real command's
//! verdicts scored against the truth. The scenarios and the scoring live in the crate
//! `whoclosed-tests`; this only builds and starts its lab.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::{build, nginx, servers, setup, step, workspace};

/// The seed of the short lab that `cargo xtask test` runs, and of the fixtures.
const SEED: u64 = 1;

/// Where fixtures are recorded.
const FIXTURES: &str = "tests/fixtures/lab";
/// The page about the accuracy, and what it says beside the numbers.
const PAGE: &str = "docs/accuracy.md";
const NOTES: &str = "docs/accuracy-notes.md";

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Scenarios to run [default: all]
    scenarios: Vec<String>,
    /// Where all parameters are drawn from
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Every seed from the first to the last, summed up
    #[arg(long, value_name = "FIRST..LAST", conflicts_with = "seed")]
    seeds: Option<String>,
    /// Run those that can share an nginx at once, on one, with good traffic beside
    #[arg(long)]
    mixed: bool,
    /// Run what is mixed so many times with each seed, each time with other parameters
    #[arg(long, value_name = "TIMES")]
    repeat: Option<u32>,
    /// Good traffic beside scenarios that run singly, too
    #[arg(long)]
    traffic: bool,
    /// The nginx to run, 1.22 (the distribution's, whichever that is), 1.28, static (1.28
    /// without symbols) or a binary; may be repeated [default: 1.22]
    #[arg(long, value_name = "VERSION|FILE")]
    nginx: Vec<String>,
    /// Captures attach nothing to nginx's binary: lines are matched by their order
    #[arg(long, conflicts_with_all = ["real", "fixtures"])]
    no_uprobe: bool,
    /// Captures do without the tracepoints of sends and receives
    #[arg(long, conflicts_with_all = ["real", "fixtures", "write"])]
    no_io_tracepoints: bool,
    /// Captures do without the ends of the kernel's functions
    #[arg(long, conflicts_with_all = ["real", "fixtures", "write"])]
    no_fentry: bool,
    /// Captures miss so many of a hundred sends and receives, as they may on a busy host
    #[arg(long, value_name = "PERCENT", conflicts_with_all = ["real", "fixtures", "write"])]
    miss_calls: Option<u32>,
    /// Worker processes of nginx, where a scenario does not need a number of its own
    #[arg(long, value_name = "N")]
    workers: Option<u16>,
    /// Write docs/accuracy.md, with docs/accuracy-notes.md at its end
    #[arg(long)]
    write: bool,
    /// Keep what each run left, its trace and what really happened, below this folder
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
    /// Record each scenario anew as a fixture in tests/fixtures/lab, with the verdicts that
    /// are now given as those that are expected
    #[arg(long, conflicts_with_all = ["mixed", "seeds", "traffic"])]
    fixtures: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Real servers instead of scenarios, installed into the cache first
    #[arg(long, conflicts_with_all = ["mixed", "traffic", "seeds"])]
    real: bool,
    /// List the scenarios and run none
    #[arg(long)]
    list: bool,
}

/// Runs the verb.
pub(crate) fn verb(options: &Options) -> Result<()> {
    if !options.list {
        step::require_root("the lab needs", "lab")?;
    }
    let found = setup::test()?;
    if options.real && !options.list {
        servers::install()?;
    }
    let agent = build::build(&found.build, &build::Options::default())?;
    let mut arguments = options.arguments()?;
    for version in &options.nginx {
        arguments.push("--nginx".into());
        arguments.push(binary(version, &found.nginx)?.into());
    }
    if options.fixtures {
        arguments.push("--fixtures".into());
        arguments.push(workspace::root().join(FIXTURES).into());
    }
    let outcome = run(&agent, &found.nginx, &arguments);
    if options.fixtures {
        bless()?;
    }
    outcome
}

/// Takes the verdicts on the fixtures as they are now for the expected ones.
fn bless() -> Result<()> {
    let mut test = step::cargo();
    test.env("WHOCLOSED_BLESS", "1")
        .args(["test", "--quiet", "--package", "tracer-user"])
        .args(["--test", "lab_fixtures", "--target-dir"])
        .arg(workspace::target()?)
        .arg("the_verdicts");
    step::run("expected verdicts of the fixtures", &mut test)
}

/// Every scenario once, with one fixed seed: at once, but for those that need an nginx
/// of their own.
pub(crate) fn short(agent: &Path, nginx: &Path) -> Result<()> {
    let seed = SEED.to_string();
    run(
        agent,
        nginx,
        &["--mixed".into(), "--seed".into(), seed.into()],
    )
}

impl Options {
    /// The lab's own arguments, but for the binaries.
    fn arguments(&self) -> Result<Vec<OsString>> {
        let mut arguments: Vec<OsString> = self.scenarios.iter().map(Into::into).collect();
        match &self.seeds {
            Some(seeds) => arguments.extend(["--seeds".into(), seeds.into()]),
            None => arguments.extend(["--seed".into(), self.seed.to_string().into()]),
        }
        for (given, name) in [
            (self.mixed, "--mixed"),
            (self.traffic, "--traffic"),
            (self.no_uprobe, "--no-uprobe"),
            (self.no_io_tracepoints, "--no-io-tracepoints"),
            (self.no_fentry, "--no-fentry"),
            (self.json, "--json"),
            (self.real, "--real"),
            (self.list, "--list"),
        ] {
            if given {
                arguments.push(name.into());
            }
        }
        if let Some(times) = self.repeat {
            arguments.extend(["--repeat".into(), times.to_string().into()]);
        }
        if let Some(percent) = self.miss_calls {
            arguments.extend(["--miss-calls".into(), percent.to_string().into()]);
        }
        if let Some(workers) = self.workers {
            arguments.extend(["--workers".into(), workers.to_string().into()]);
        }
        if let Some(folder) = &self.save {
            let folder = std::path::absolute(folder)?;
            arguments.extend(["--save".into(), folder.into()]);
        }
        if self.write {
            let root = workspace::root();
            arguments.extend(["--write".into(), root.join(PAGE).into()]);
            if root.join(NOTES).is_file() {
                arguments.extend(["--notes".into(), root.join(NOTES).into()]);
            }
            arguments.extend(["--command".into(), Self::command().into()]);
        }
        Ok(arguments)
    }

    /// The command that was given.
    fn command() -> String {
        let given: Vec<String> = std::env::args().skip(1).collect();
        format!("cargo xtask {}", given.join(" "))
    }
}

/// The binary of a version, or the given one.
fn binary(version: &str, distribution: &Path) -> Result<PathBuf> {
    Ok(match version {
        "1.22" => distribution.to_owned(),
        "1.28" => nginx::version_1_28()?,
        "static" => nginx::static_1_28()?,
        file => std::path::absolute(file)?,
    })
}

fn run(agent: &Path, nginx: &Path, arguments: &[OsString]) -> Result<()> {
    let target = workspace::target()?;
    let mut lab = step::cargo();
    // The backends with processes of their own are programs beside the lab's.
    lab.args(["build", "--quiet", "--package", "whoclosed-tests", "--bins"])
        .arg("--target-dir")
        .arg(&target);
    step::run("build the lab", &mut lab)?;
    let mut lab = step::cargo();
    lab.env("WHOCLOSED", agent)
        .env("WHOCLOSED_NGINX", nginx)
        .args(["run", "--quiet", "--package", "whoclosed-tests"])
        .args(["--bin", "whoclosed-lab", "--target-dir"])
        .arg(&target)
        .arg("--")
        .args(arguments);
    step::run("lab", &mut lab)
}
