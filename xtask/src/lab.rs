//! `cargo xtask lab`: failures of every kind made on purpose, and the real command's
//! verdicts scored against the truth. The scenarios and the scoring live in the crate
//! `whoclosed-tests`; this only builds and starts its lab.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::{build, setup, step, workspace};

/// The seed of the short lab that `cargo xtask test` runs.
const SEED: u64 = 1;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Scenarios to run [default: all]
    scenarios: Vec<String>,
    /// Where all parameters are drawn from
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Run those that can share an nginx at once, on one
    #[arg(long)]
    mixed: bool,
    /// Binary of the nginx to run [default: the one that setup unpacked]
    #[arg(long, value_name = "FILE")]
    nginx: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
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
    let agent = build::build(&found.build, &build::Options::default())?;
    let mut arguments = options.scenarios.clone();
    arguments.extend(["--seed".to_owned(), options.seed.to_string()]);
    for (given, name) in [
        (options.mixed, "--mixed"),
        (options.json, "--json"),
        (options.list, "--list"),
    ] {
        if given {
            arguments.push(name.to_owned());
        }
    }
    let nginx = options.nginx.as_ref().unwrap_or(&found.nginx);
    run(&agent, nginx, &arguments)
}

/// Every scenario once, with one fixed seed.
pub(crate) fn short(agent: &Path, nginx: &Path) -> Result<()> {
    run(agent, nginx, &["--seed".to_owned(), SEED.to_string()])
}

fn run(agent: &Path, nginx: &Path, arguments: &[String]) -> Result<()> {
    let target = workspace::target()?;
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
