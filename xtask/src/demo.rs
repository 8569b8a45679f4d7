//! `cargo xtask demo`: the real command watching a real nginx before backends that
//! misbehave. The nginx, the backends and the checking live in the crate
//! `whoclosed-tests`; this only builds and starts its demo.

use std::fs;

use anyhow::{Context, Result};
use clap::Args;

use crate::{build, setup, step, workspace};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Fail unless every fault that the demo makes got its verdict
    #[arg(long)]
    check: bool,
    /// Arguments for the demo itself, after `--`
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs the verb.
pub(crate) fn verb(options: &Options) -> Result<()> {
    step::require_root("the demo needs", "demo")?;
    let found = setup::test()?;
    let agent = build::build(&found.build, &build::Options::default())?;

    let target = workspace::target()?;
    let folder = target.join("demo");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let trace = folder.join("whoclosed.trace");
    if trace.exists() {
        // The demo's own, of the last run; a capture does not overwrite a file.
        fs::remove_file(&trace).with_context(|| format!("cannot remove {}", trace.display()))?;
    }
    let mut demo = step::cargo();
    demo.env("WHOCLOSED", agent)
        .env("WHOCLOSED_NGINX", found.nginx)
        .args([
            "run",
            "--quiet",
            "--package",
            "whoclosed-tests",
            "--bin",
            "whoclosed-demo",
        ])
        .arg("--target-dir")
        .arg(&target)
        .arg("--")
        .arg("--output")
        .arg(&trace);
    if options.check {
        demo.arg("--check");
    }
    step::run("demo", demo.args(&options.arguments))
}
