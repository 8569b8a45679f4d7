//! `cargo xtask bench-log`: how fast the error log's grammar is, beside `grep -c` on the
//! same file, both in processor time. Continuous integration does not run it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{step, workspace};

/// Real lines of every kind, which the generated file repeats.
const LINES: &str = "tracer-user/tests/fixtures/nginx/errors.log";
const FUZZ: &str = "tests/fuzz/Cargo.toml";
/// The best of so many runs counts.
const RUNS: usize = 3;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Size of the log, in millions of bytes
    #[arg(long, default_value_t = 1000)]
    megabytes: u64,
}

/// Runs the verb.
pub(crate) fn verb(options: &Options) -> Result<()> {
    let build = workspace::target()?.join("fuzz");
    let mut cargo = step::cargo();
    cargo
        .args(["build", "--quiet", "--release", "--bin", "log_speed"])
        .args(["--manifest-path", FUZZ, "--target-dir"])
        .arg(&build);
    step::run("build the measuring program", &mut cargo)?;
    let folder = tempfile_folder()?;
    let file = folder.join("error.log");
    let measured = measure(&build.join("release/log_speed"), &file, options);
    let _ = fs::remove_dir_all(&folder);
    measured
}

fn measure(program: &Path, file: &Path, options: &Options) -> Result<()> {
    let all = fs::read_to_string(workspace::root().join(LINES)).context("no lines to repeat")?;
    // A busy host's log: most lines are about other things.
    let (about, other): (Vec<&str>, Vec<&str>) =
        all.lines().partition(|line| line.contains("upstream"));
    for (name, each) in [("every line about an upstream", 1), ("one line in ten", 10)] {
        generate(file, options.megabytes, &about, &other, each)?;
        let grep = best(&["grep", "-c", "upstream"], file)?;
        let program = program.to_str().context("an odd path")?;
        let parse = best(&[program], file)?;
        let size = fs::metadata(file)?.len();
        let speed = |(seconds, _): &(f64, String)| rate(size, *seconds);
        println!("{name}, {} MB", size / 1_000_000);
        println!("  grep -c   {:>7.0} MB/s  {}", speed(&grep), grep.1);
        println!("  grammar   {:>7.0} MB/s  {}", speed(&parse), parse.1);
        println!("  ratio     {:>7.1}", parse.0 / grep.0);
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "bytes shown as a rate")]
fn rate(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / 1e6 / seconds
}

/// Seconds of processor time of the quickest of some runs, and what the last one printed.
/// What else the machine does then lengthens a run, but hardly its processor time.
fn best(program: &[&str], file: &Path) -> Result<(f64, String)> {
    let mut best = (f64::INFINITY, String::new());
    for _ in 0..RUNS {
        let output = Command::new("bash")
            .args(["-c", "TIMEFORMAT='%U %S'; time \"$@\"", "bash"])
            .args(program)
            .arg(file)
            .output()
            .context("cannot run bash")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let times = said.lines().last().unwrap_or_default();
        let seconds: f64 = times
            .split_whitespace()
            .filter_map(|time| time.parse::<f64>().ok())
            .sum();
        if !output.status.success() || seconds <= 0.0 {
            bail!("{} failed: {said}", program.join(" "));
        }
        best.0 = best.0.min(seconds);
        best.1 = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    Ok(best)
}

/// A log of about that size in which each `each`-th line is about an upstream.
fn generate(
    file: &Path,
    megabytes: u64,
    about: &[&str],
    other: &[&str],
    each: usize,
) -> Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    let mut block = String::new();
    for number in 0..100 * each {
        let lines = if number % each == 0 { about } else { other };
        let line = lines.get(number % lines.len()).context("no lines")?;
        writeln!(block, "{line}")?;
    }
    let mut left = megabytes * 1_000_000;
    while left > 0 {
        out.write_all(block.as_bytes())?;
        left = left.saturating_sub(block.len() as u64);
    }
    out.flush().context("cannot write the log")
}

/// A folder of our own on whatever disk temporary files go to.
fn tempfile_folder() -> Result<std::path::PathBuf> {
    let folder = std::env::temp_dir().join(format!("whoclosed-bench-log.{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}
