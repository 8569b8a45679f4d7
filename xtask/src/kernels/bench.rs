//! What all guests have in common, and the runs: a command of the user's, or all scenarios
//! on each kernel.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::boot::Booted;
use super::files::Removed;
use super::rows::{self, HOST, Run};
use super::scenarios::{self, Scenario};
use super::table::{self, Row, Told};
use super::{Options, boot, files, image};
use crate::{step, workspace};

/// The lab's programs that run in a guest.
const LAB: [&str; 4] = [
    "whoclosed-lab",
    "whoclosed-backend",
    "whoclosed-crowd",
    "whoclosed-demo",
];

/// What all guests carry.
pub(super) struct Bench {
    agent: PathBuf,
    nginx: PathBuf,
    lab: PathBuf,
}

impl Bench {
    /// Builds the lab.
    pub(super) fn new(agent: PathBuf, nginx: PathBuf) -> Result<Self> {
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
        let lab = LAB.map(|name| (name, self.lab.join(name)));
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
    pub(super) fn run(&self, options: &Options, command: &str) -> Result<()> {
        let image = Removed(self.image(command, &options.with)?);
        for run in rows::plan(&options.versions)? {
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
    pub(super) fn matrix(
        &self,
        runs: &[Run],
        chosen: &[&Scenario],
        options: &Options,
    ) -> Result<()> {
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
                let outcomes = scenarios::read(chosen, &booted.output, run.refuses);
                row.told = Told::Ran(outcomes);
                row.preemption = scenarios::preemption(&booted.output).map(str::to_owned);
                row.failure = booted.failure();
                row.work = work(&booted, chosen);
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
            told: Told::Ran(scenarios::read(chosen, &output, None)),
            preemption: scenarios::preemption(&output).map(str::to_owned),
            failure: None,
            work: Vec::new(),
            seconds: began.elapsed().as_secs_f64(),
        })
    }
}

/// The emulator's work until the guest was up, and for each scenario.
fn work(booted: &Booted, chosen: &[&Scenario]) -> Vec<(&'static str, Duration)> {
    let progress = &booted.progress;
    let mut begun = Duration::ZERO;
    let mut work = Vec::new();
    let mut what = "boot";
    for (next, byte) in scenarios::beginnings(chosen, &booted.output) {
        let Some(until) = progress.until(byte) else {
            break;
        };
        work.push((what, until.saturating_sub(begun)));
        (what, begun) = (next, until);
    }
    work.push((what, progress.all().saturating_sub(begun)));
    work
}
