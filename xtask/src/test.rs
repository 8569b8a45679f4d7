//! `cargo xtask test`: the tests without root, then the end-to-end tests on this
//! machine's kernel, a short lab, and a few of the lab's scenarios on other kernels.

use anyhow::Result;
use clap::Args;

use crate::{build, kernels, lab, setup, step, workspace};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Run only tests whose name contains this
    filter: Option<String>,
}

/// Runs the verb.
pub(crate) fn verb(options: &Options) -> Result<()> {
    let found = setup::test()?;
    let agent = build::build(&found.build, &build::Options::default())?;
    let target = workspace::target()?;

    let mut plain = step::cargo();
    plain
        .args(["test", "--workspace", "--target-dir"])
        .arg(&target)
        .args(&options.filter);
    step::run("tests without root", &mut plain)?;

    step::require_root("the end-to-end tests need", "test")?;
    let mut end_to_end = step::cargo();
    end_to_end
        .env("WHOCLOSED", &agent)
        .env("WHOCLOSED_NGINX", &found.nginx)
        .args(["test", "--package", "whoclosed-tests", "--features", "root"])
        .args(["--test", "end_to_end", "--target-dir"])
        .arg(&target)
        .args(&options.filter)
        // They share the kernel's hooks, and a busy machine tells less.
        .args(["--", "--test-threads=1"]);
    step::run("end-to-end tests", &mut end_to_end)?;
    if options.filter.is_some() {
        return Ok(());
    }
    lab::short(&agent, &found.nginx)?;
    kernels::test(&agent, &found.nginx)
}
