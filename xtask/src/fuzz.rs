//! `cargo xtask fuzz`: the error log's grammar against what libFuzzer thinks of.
//!
//! cargo-fuzz wants a nightly compiler for the flags that count coverage. The stable one
//! takes them too if RUSTC_BOOTSTRAP is set, and without a sanitizer nothing of the
//! standard library has to be built again. What the fuzzed code does is safe Rust, so that
//! an address sanitizer would have nothing to find.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::{apt, step, workspace};

const VERSION: &str = "0.13.2";
const FOLDER: &str = "tests/fuzz";
const TARGET: &str = "log_line";
/// nginx's lines are 2048 bytes at most, OpenResty's 4096.
const LONGEST: u32 = 4200;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// How long to look for more
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Take what covers more than the corpus that is checked in into it
    #[arg(long)]
    keep: bool,
}

/// Runs the verb.
pub(crate) fn verb(options: &Options) -> Result<()> {
    let program = install()?;
    let build = workspace::target()?.join("fuzz");
    let found = build.join("found");
    fs::create_dir_all(&found).with_context(|| format!("cannot create {}", found.display()))?;
    let corpus = workspace::root().join(FOLDER).join("corpus").join(TARGET);
    let dictionary = workspace::root().join(FOLDER).join("nginx.dict");
    let fuzz = |folders: [&PathBuf; 2], arguments: &[String]| {
        let mut run = step::outside_cargo(&program);
        run.env("RUSTC_BOOTSTRAP", "1")
            .args(["run", "--fuzz-dir", FOLDER, "--sanitizer", "none"])
            .arg("--target-dir")
            .arg(&build)
            .arg(TARGET)
            .args(folders)
            .arg("--")
            .arg(format!("-max_len={LONGEST}"))
            .arg(format!("-dict={}", dictionary.display()))
            .args(arguments);
        run
    };
    let seconds = format!("-max_total_time={}", options.seconds);
    // What is new goes to the first folder.
    let mut search = fuzz([&found, &corpus], &[seconds]);
    step::run("fuzz the error log's grammar", &mut search)?;
    if options.keep {
        let mut merge = fuzz(
            [&corpus, &found],
            &["-set_cover_merge=1", "-use_counters=0"].map(str::to_owned),
        );
        step::run("take what covers more into the corpus", &mut merge)?;
    }
    Ok(())
}

/// cargo-fuzz: ours, or the one in PATH; built first if there is none.
fn install() -> Result<PathBuf> {
    if workspace::find_program("c++").is_none() && apt::is_here() {
        // libFuzzer is built from its source.
        apt::install("libFuzzer", &apt::missing(&["g++"]))?;
    }
    let root = workspace::tools()?.join("cargo-fuzz");
    let ours = root.join("bin/cargo-fuzz");
    if ours.is_file() {
        return Ok(ours);
    }
    if let Some(program) = workspace::find_program("cargo-fuzz") {
        return Ok(program);
    }
    println!("setup: builds cargo-fuzz {VERSION} (once, about a minute) into the cache");
    let mut command = step::cargo();
    command
        .args(["install", "--locked", "cargo-fuzz", "--version", VERSION])
        .arg("--root")
        .arg(&root);
    step::run("setup: build cargo-fuzz", &mut command)?;
    Ok(ours)
}
