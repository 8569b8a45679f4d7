//! `cargo xtask kernels`: the real agent, a real nginx and the lab's backends on other
//! kernels than the host's, booted under emulation; a table of kernel by scenario.

mod archive;
mod boot;
mod doctor;
pub(crate) mod fetch;
mod files;
mod image;
mod payload;
mod scenarios;
mod suite;
mod table;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{apt, build, setup, step, workspace};
use fetch::Kernel;
use files::Removed;
use scenarios::Scenario;
use table::{Row, Told};

/// The name of the kernel that is running already: its row is no guest's.
const HOST: &str = "host";
/// What a kernel's name may end in, and what that adds to its command line.
const LOCKDOWNS: [(&str, &str); 2] = [
    ("-integrity", "lockdown=integrity"),
    ("-confidentiality", "lockdown=confidentiality"),
];
/// The kernels of the short matrix: nginx's sends and receives are seen by other means on
/// each. The cloud's are smaller and boot sooner.
const SHORT: [&str; 2] = ["6.1-cloud", "6.12-cloud"];
/// Where the short matrix draws its scenarios' parameters from.
const SEED: u64 = 1;
/// The kernel that is also run locked down where no kernel is named.
const LOCKED: &str = "6.12";

#[derive(Args, Debug, Default)]
pub(crate) struct Options {
    /// Lines such as 6.12 (the newest kernel of it), 6.12-cloud, 6.12-confidentiality
    /// (locked down), or host [default: all that the archive has, and host]
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
    let mut runs = plan(&options.versions)?;
    if !explicit && !step::is_root() {
        eprintln!("kernels: the host's own kernel is left out, because that needs root");
        runs.retain(|run| run.name != HOST);
    }
    bench.matrix(&runs, &chosen, options)
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
/// brings is no failure where nothing can be downloaded. A wrong verdict is one.
fn short(agent: &Path, nginx: &Path, options: &Options) -> Result<()> {
    step::announce(&format!("other kernels, emulated: {}", SHORT.join(", ")));
    let names = SHORT.map(str::to_owned).to_vec();
    let kernels = match install().and_then(|_| fetch::kernels(&names)) {
        Ok(kernels) => kernels,
        Err(error) => {
            let why = format!("{error:#}").replace('\n', " ");
            eprintln!("kernels: this step is left out: {why}");
            return Ok(());
        }
    };
    let chosen = scenarios::chosen(&scenarios::SHORT.map(str::to_owned))?;
    let bench = Bench::new(agent.to_owned(), nginx.to_owned())?;
    bench.matrix(&runs(names, &kernels), &chosen, options)
}

/// Installs what the guests need and is missing; the emulator's and busybox's paths.
pub(crate) fn install() -> Result<[PathBuf; 2]> {
    Ok([boot::need_emulator()?, image::busybox()?])
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

/// A kernel to run on.
#[derive(Clone, Debug)]
struct Run {
    name: String,
    /// None: the host's own, or one that cannot be had.
    kernel: Option<Kernel>,
    append: &'static str,
}

/// The kernels of these names, or of all.
fn plan(names: &[String]) -> Result<Vec<Run>> {
    let locked_names = || LOCKDOWNS.map(|(suffix, _)| format!("{LOCKED}{suffix}"));
    let (lines, mut names): (Vec<String>, Vec<String>) = match names {
        [] => (Vec::new(), Vec::new()),
        names => (
            names.iter().map(|name| line(name).0.to_owned()).collect(),
            names.to_vec(),
        ),
    };
    let mut lines: Vec<String> = lines.into_iter().filter(|line| line != HOST).collect();
    lines.dedup();
    let kernels = if names.iter().any(|name| name != HOST) || names.is_empty() {
        fetch::kernels(&lines)
    } else {
        Ok(Vec::new())
    };
    let kernels = kernels.unwrap_or_else(|error| {
        eprintln!("kernels: {error:#}");
        Vec::new()
    });
    if names.is_empty() {
        names = fetch::LINES.map(str::to_owned).to_vec();
        let more = kernels.iter().map(|kernel| kernel.name.clone());
        let more: Vec<String> = more.filter(|name| !names.contains(name)).collect();
        names.extend(more);
        names.extend(locked_names());
        names.push(HOST.to_owned());
    }
    Ok(runs(names, &kernels))
}

/// The kernels of these names, of those that could be had.
fn runs(names: Vec<String>, kernels: &[Kernel]) -> Vec<Run> {
    let run = |name: String| {
        let (line, append) = line(&name);
        let kernel = kernels.iter().find(|kernel| kernel.name == line).cloned();
        Run {
            name,
            kernel,
            append,
        }
    };
    names.into_iter().map(run).collect()
}

/// The line in a kernel's name, and what the rest adds to the command line.
fn line(name: &str) -> (&str, &'static str) {
    LOCKDOWNS
        .iter()
        .find_map(|(suffix, append)| Some((name.strip_suffix(suffix)?, *append)))
        .unwrap_or((name, ""))
}

/// What all guests carry.
struct Bench {
    agent: PathBuf,
    nginx: PathBuf,
    lab: PathBuf,
}

impl Bench {
    /// Builds the lab.
    fn new(agent: PathBuf, nginx: PathBuf) -> Result<Self> {
        let target = workspace::target()?;
        let mut lab = step::cargo();
        lab.args(["build", "--quiet", "--package", "whoclosed-tests", "--bins"])
            .arg("--target-dir")
            .arg(&target);
        step::run("build the lab", &mut lab)?;
        Ok(Self {
            agent,
            nginx,
            lab: target.join("debug"),
        })
    }

    /// Writes the guests' file system.
    fn image(&self, command: &str, more: &[PathBuf]) -> Result<PathBuf> {
        let setpriv = workspace::find_program("setpriv")
            .context("no setpriv, with which the lab ends what it started; it is in util-linux")?;
        let lab = ["whoclosed-lab", "whoclosed-backend", "whoclosed-demo"]
            .map(|name| (name, self.lab.join(name)));
        let mut programs: Vec<image::Program<'_>> = vec![
            ("whoclosed", &self.agent),
            ("nginx", &self.nginx),
            ("setpriv", &setpriv),
        ];
        programs.extend(lab.iter().map(|(name, file)| (*name, file.as_path())));
        for file in more {
            let name = file.file_name().and_then(|name| name.to_str());
            let name = name.with_context(|| format!("{} has no name", file.display()))?;
            programs.push((name, file));
        }
        // Several runs of this verb at a time have an image each.
        files::sweep()?;
        let image = files::own(files::IMAGE)?;
        fs::write(&image, image::build(&programs, command)?)
            .with_context(|| format!("cannot write {}", image.display()))?;
        Ok(image)
    }

    /// Runs a command of the user's.
    fn run(&self, options: &Options, command: &str) -> Result<()> {
        let image = Removed(self.image(command, &options.with)?);
        for run in plan(&options.versions)? {
            let Some(kernel) = &run.kernel else {
                bail!("{} is no kernel that can be booted", run.name);
            };
            let append = format!("{} {}", run.append, options.append);
            let folder = files::own(&run.name)?;
            let booted = boot::boot(&kernel.vmlinux, &image.0, &append, &folder);
            let _ = fs::remove_dir_all(&folder);
            let booted = booted?;
            print!("{}", booted.output);
            if let Some(failure) = booted.failure() {
                bail!("{}: {failure}\n{}", kernel.release, booted.console.trim());
            }
            if let Some(status @ 1..) = booted.status {
                bail!("{}: the command's exit status is {status}", kernel.release);
            }
        }
        Ok(())
    }

    /// Runs the scenarios on each kernel and prints the table.
    fn matrix(&self, runs: &[Run], chosen: &[&Scenario], options: &Options) -> Result<()> {
        let began = Instant::now();
        let image = Removed(self.image(&scenarios::script(chosen, options.seed), &options.with)?);
        let jobs = options
            .jobs
            .or_else(|| Some(thread::available_parallelism().ok()?.get()));
        let waiting: Mutex<VecDeque<(usize, &Run)>> = Mutex::new(
            runs.iter()
                .enumerate()
                .filter(|(_, run)| run.name != HOST)
                .collect(),
        );
        let rows: Mutex<Vec<(usize, Row)>> = Mutex::default();
        let work = || {
            loop {
                let next = waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .pop_front();
                let Some((at, run)) = next else { return };
                let row = self.guest(run, &image.0, chosen, &options.append);
                eprintln!("kernels: {}", row.told());
                rows.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((at, row));
            }
        };
        thread::scope(|scope| {
            for _ in 0..jobs.unwrap_or(1).clamp(1, runs.len().max(1)) {
                scope.spawn(work);
            }
        });
        let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
        // The host's own kernel has the machine to itself.
        for (at, run) in runs.iter().enumerate().filter(|(_, run)| run.name == HOST) {
            let row = self.host(&run.name, chosen, options.seed)?;
            eprintln!("kernels: {}", row.told());
            rows.push((at, row));
        }
        rows.sort_by_key(|(at, _)| *at);
        let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
        print!("{}", table::text(chosen, &rows));
        println!(
            "seed {}, {:.0} s, {}",
            options.seed,
            began.elapsed().as_secs_f64(),
            boot::emulator().unwrap_or_default()
        );
        let explicit = !options.versions.is_empty();
        let wrong = |row: &&Row| row.is_wrong() || (explicit && row.is_missing());
        let wrong: Vec<&str> = rows
            .iter()
            .filter(wrong)
            .map(|row| row.name.as_str())
            .collect();
        if !wrong.is_empty() {
            bail!("not right on {}", wrong.join(", "));
        }
        if rows.iter().all(Row::is_missing) {
            bail!("no kernel could be had");
        }
        Ok(())
    }

    /// One kernel in a guest.
    fn guest(&self, run: &Run, image: &Path, chosen: &[&Scenario], append: &str) -> Row {
        let began = Instant::now();
        let mut row = Row {
            name: run.name.clone(),
            ..Row::default()
        };
        let Some(kernel) = &run.kernel else {
            row.told = Told::Missing;
            return row;
        };
        row.release.clone_from(&kernel.release);
        let append = format!("{} {append}", run.append);
        let booted = files::folder().and_then(|folder| {
            boot::boot(&kernel.vmlinux, image, &append, &folder.join(&run.name))
        });
        match booted {
            Ok(booted) => {
                let outcomes = scenarios::read(chosen, &booted.output, run.append);
                row.told = Told::Ran(outcomes);
                row.failure = booted.failure();
            }
            Err(error) => row.failure = Some(format!("{error:#}")),
        }
        row.seconds = began.elapsed().as_secs_f64();
        row
    }

    /// The host's own kernel, without a guest.
    fn host(&self, name: &str, chosen: &[&Scenario], seed: u64) -> Result<Row> {
        step::require_root("the host's own kernel needs", "kernels")?;
        let began = Instant::now();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let output = scenarios::here(chosen, seed, &self.lab, &self.agent, &self.nginx)?;
        Ok(Row {
            name: name.to_owned(),
            release: release.trim().to_owned(),
            told: Told::Ran(scenarios::read(chosen, &output, "")),
            failure: None,
            seconds: began.elapsed().as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lockdown_in_a_kernels_name_goes_to_its_command_line() {
        assert_eq!(line("6.12"), ("6.12", ""));
        assert_eq!(line("6.12-cloud"), ("6.12-cloud", ""));
        assert_eq!(line("6.12-integrity"), ("6.12", "lockdown=integrity"));
    }
}
