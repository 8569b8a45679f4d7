//! `cargo xtask kernels`: the real agent, a real nginx and the lab's backends on other
//! kernels than the host's, booted under emulation; a table of kernel by scenario.

mod another;
mod archive;
mod bench;
mod boot;
mod doctor;
mod emulator;
mod enough;
pub(crate) mod fetch;
mod files;
mod given;
mod guest;
mod image;
mod nobody;
mod payload;
mod rows;
mod scenarios;
pub(crate) mod suite;
mod table;
mod unseen;
mod withheld;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{apt, build, setup, step, workspace};
use bench::{Bench, Wanted};
use emulator::Emulator;
use rows::HOST;

/// The kernels of the short matrix: nginx's sends and receives are seen by other means on
/// each. The cloud's are smaller and boot sooner.
const SHORT: [&str; 2] = ["6.1-cloud", "6.12-cloud"];
/// Where the short matrix draws its scenarios' parameters from.
const SEED: u64 = 1;

#[derive(Args, Debug, Default)]
pub(crate) struct Options {
    /// Lines such as 6.12 (the newest kernel of it), 6.12-cloud, 6.12-confidentiality
    /// (locked down), 6.1-preempt, 7.3-fexit and 6.1-unseen (without hooks that it has),
    /// 6.12-cloud-arm64 (another machine's, slow), or host; or a kernel's file with a slash
    /// in its path, such as /boot/vmlinuz-5.15.0-130-generic
    /// [default: all that the archive has for this machine, and host]
    versions: Vec<String>,
    /// Only what `cargo xtask test` runs: two kernels, a few scenarios
    #[arg(long, conflicts_with_all = ["versions", "only", "run"])]
    short: bool,
    /// Run only these scenarios
    #[arg(long = "only", value_name = "SCENARIO")]
    only: Vec<String>,
    /// Where the scenarios' parameters are drawn from
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Run this shell command in the guest instead; its exit status is ours
    #[arg(long, value_name = "COMMAND", requires = "versions")]
    run: Option<String>,
    /// More programs of this machine for the guest's /bin
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// This agent, and not one built now
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// More of the kernel's command line
    #[arg(long, value_name = "TEXT", default_value = "")]
    append: String,
    /// Guests at a time [default: one for each processor]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

/// Runs the verb.
pub(crate) fn verb(options: &Options) -> Result<()> {
    let found = setup::test()?;
    if !options.short {
        install()?;
    }
    let agent = match &options.agent {
        Some(agent) => std::path::absolute(agent)?,
        // Guests of another machine have an agent of their own.
        None if another::are_all(&options.versions) => PathBuf::new(),
        None => build::build(&found.build, &build::Options::default())?,
    };
    if options.short {
        return short(&agent, &found.nginx, options);
    }
    let bench = Bench::new(agent, found.nginx)?;
    if let Some(command) = &options.run {
        return bench.run(options, command);
    }
    let chosen = scenarios::chosen(&options.only)?;
    let explicit = !options.versions.is_empty();
    let mut runs = rows::plan(&options.versions)?;
    if !explicit && !step::is_root() {
        eprintln!("kernels: the host's own kernel is left out, because that needs root");
        runs.retain(|run| run.name != HOST);
    }
    let wanted = if explicit { Wanted::Each } else { Wanted::All };
    bench.matrix(&runs, &chosen, options, wanted)
}

/// What `cargo xtask test` runs of this.
pub(crate) fn test(agent: &Path, nginx: &Path) -> Result<()> {
    let options = Options {
        seed: SEED,
        ..Options::default()
    };
    short(agent, nginx, &options)
}

/// A few scenarios on two kernels, or one line that says why not: what only a download
/// brings is no failure where nothing can be downloaded, unless that is where nobody would
/// read the line. A wrong verdict is one.
fn short(agent: &Path, nginx: &Path, options: &Options) -> Result<()> {
    step::announce(&format!("other kernels, emulated: {}", SHORT.join(", ")));
    let is_ci = is_ci(std::env::var("CI").ok().as_deref());
    let names = SHORT.map(str::to_owned).to_vec();
    let kernels = match install().and_then(|_| fetch::kernels(&names)) {
        Ok(kernels) => kernels,
        Err(error) => return left_out(&error, is_ci),
    };
    let chosen = scenarios::chosen(&scenarios::SHORT.map(str::to_owned))?;
    let bench = Bench::new(agent.to_owned(), nginx.to_owned())?;
    let wanted = if is_ci { Wanted::Each } else { Wanted::Some };
    bench.matrix(&rows::runs(names, &kernels), &chosen, options, wanted)
}

/// Whether this is continuous integration, by the variable that its services set to `true`.
fn is_ci(variable: Option<&str>) -> bool {
    variable == Some("true")
}

/// Says why the short matrix is left out.
fn left_out(error: &anyhow::Error, is_ci: bool) -> Result<()> {
    let why = format!("{error:#}").replace('\n', " ");
    if is_ci {
        bail!("other kernels cannot be booted, and with CI=true that is a failure: {why}");
    }
    eprintln!("kernels: this step is left out: {why}");
    Ok(())
}

/// Installs what the guests need and is missing; the emulator's and busybox's paths.
pub(crate) fn install() -> Result<[PathBuf; 2]> {
    Ok([Emulator::of(None).need()?, image::busybox()?])
}

/// A program that is here, or is now, from this package.
fn need(program: &str, package: &str) -> Result<PathBuf> {
    if workspace::find_program(program).is_none() {
        if !apt::is_here() {
            bail!("{program} is missing, which booting other kernels needs; install it");
        }
        // Also fetches the package lists where there are none.
        apt::first_available(&[package])?;
        apt::install("booting other kernels", &[package.to_owned()])?;
    }
    workspace::find_program(program)
        .with_context(|| format!("no {program}, though {package} is installed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_downloaded_is_left_out_but_not_in_continuous_integration() {
        let error = anyhow::anyhow!("no archive\nat all");
        assert!(left_out(&error, is_ci(None)).is_ok());
        assert!(left_out(&error, is_ci(Some(""))).is_ok());
        assert!(left_out(&error, is_ci(Some("false"))).is_ok());
        let failure = left_out(&error, is_ci(Some("true"))).unwrap_err();
        assert!(
            failure.to_string().ends_with("no archive at all"),
            "{failure}"
        );
    }
}
