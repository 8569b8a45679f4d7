//! What all guests have in common, and the runs: a command of the user's, or all scenarios
//! on each kernel.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::another::Carried;
use super::boot::Booted;
use super::files::Removed;
use super::rows::{self, HOST, Run};
use super::scenarios::{self, Scenario};
use super::table::{self, Row, Told};
use super::withheld::Calls;
use super::{Options, boot, emulator, enough, files, image};
use crate::machine::Machine;
use crate::{step, workspace};

/// The lab's programs that run in a guest.
const LAB: [&str; 4] = [
    "whoclosed-lab",
    "whoclosed-backend",
    "whoclosed-crowd",
    "whoclosed-demo",
];

/// Which rows there have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Each of them.
    Each,
    /// Of all that there might be, [`enough`].
    All,
    /// Those that can be had, if it is one.
    Some,
}

/// File systems by machine, as far as they could be made.
struct Images(Vec<(Option<Machine>, Option<Removed>)>);

impl Images {
    fn of(&self, run: &Run) -> Option<&Path> {
        let machine = run.machine()?;
        let (_, image) = self.0.iter().find(|(made, _)| *made == machine)?;
        image.as_ref().map(|image| image.0.as_path())
    }
}

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

    /// Writes the guests' file system; that of guests of another machine carries what was
    /// built for it.
    fn image(&self, command: &str, more: &[PathBuf], another: Option<&Carried>) -> Result<PathBuf> {
        let root = another.map(|carried| &carried.root);
        let (agent, nginx, lab, setpriv) = match another {
            None => (
                self.agent.clone(),
                self.nginx.clone(),
                &self.lab,
                workspace::find_program("setpriv").context(
                    "no setpriv, with which the lab ends what it started; it is in util-linux",
                )?,
            ),
            Some(Carried { root, agent, lab }) => (
                agent.clone(),
                root.program("nginx")?,
                lab,
                root.program("setpriv")?,
            ),
        };
        let lab = LAB.map(|name| (name, lab.join(name)));
        let mut programs: Vec<image::Program<'_>> = vec![
            ("whoclosed", &agent),
            ("nginx", &nginx),
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
        let machine = root.map(|root| root.machine);
        let image = files::own(&files::image(machine))?;
        fs::write(&image, image::build(&programs, command, root)?)
            .with_context(|| format!("cannot write {}", image.display()))?;
        Ok(image)
    }

    /// The file systems that these rows need. Of another machine's it is told why it could
    /// not be made; its rows are then among those that could not be had.
    fn images(&self, runs: &[Run], command: &str, more: &[PathBuf]) -> Result<Images> {
        let mut images = Vec::new();
        for machine in runs.iter().filter_map(Run::machine) {
            if images.iter().any(|(made, _)| *made == machine) {
                continue;
            }
            let image = match machine {
                None => Some(self.image(command, more, None)?),
                Some(machine) => Carried::have(machine)
                    .and_then(|carried| self.image(command, more, Some(&carried)))
                    .inspect_err(|error| eprintln!("kernels: {error:#}"))
                    .ok(),
            };
            images.push((machine, image.map(Removed)));
        }
        Ok(Images(images))
    }

    /// Runs a command of the user's.
    pub(super) fn run(&self, options: &Options, command: &str) -> Result<()> {
        let runs = rows::plan(&options.versions)?;
        let images = self.images(&runs, command, &options.with)?;
        for run in runs {
            let (Some(kernel), Some(image)) = (&run.kernel, images.of(&run)) else {
                bail!("{} is no kernel that can be booted", run.name);
            };
            let append = format!("{} {}", run.append, options.append);
            let folder = files::own(&run.name)?;
            let booted = boot::boot(&boot::Boot {
                kernel,
                image,
                append: &append,
                folder: &folder,
            });
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
        wanted: Wanted,
    ) -> Result<()> {
        let began = Instant::now();
        let script = scenarios::PLACES.to_owned() + &scenarios::script(chosen, options.seed);
        let images = self.images(runs, &script, &options.with)?;
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
                let row = self.guest(run, images.of(run), chosen, &options.append);
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
            emulator::version().unwrap_or_default()
        );
        let wrong = |row: &&Row| row.is_wrong() || (wanted == Wanted::Each && row.is_missing());
        let wrong: Vec<&str> = rows
            .iter()
            .filter(wrong)
            .map(|row| row.name.as_str())
            .collect();
        let mut complaints = Vec::new();
        if !wrong.is_empty() {
            complaints.push(format!("not right on {}", wrong.join(", ")));
        }
        if wanted == Wanted::All {
            complaints.extend(enough::missing(&rows, &release_here()));
        } else if rows.iter().all(Row::is_missing) {
            complaints.push("no kernel could be had".to_owned());
        }
        if !complaints.is_empty() {
            bail!("{}", complaints.join("; "));
        }
        Ok(())
    }

    /// One kernel in a guest.
    fn guest(&self, run: &Run, image: Option<&Path>, chosen: &[&Scenario], append: &str) -> Row {
        let began = Instant::now();
        let mut row = Row {
            name: run.name.clone(),
            scenarios: chosen.len(),
            ..Row::default()
        };
        let (Some(kernel), Some(image)) = (&run.kernel, image) else {
            row.told = Told::Missing;
            return row;
        };
        row.release.clone_from(&kernel.release);
        let append = format!("{} {append}", run.append);
        let booted = files::folder().and_then(|folder| {
            boot::boot(&boot::Boot {
                kernel,
                image,
                append: &append,
                folder: &folder.join(&run.name),
            })
        });
        match booted {
            Ok(booted) => {
                let outcomes = scenarios::read(chosen, &booted.output, run.refuses, run.calls());
                row.told = Told::Ran(outcomes);
                row.preemption = scenarios::preemption(&booted.output).map(str::to_owned);
                row.failure = booted.failure_or_status();
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
        let output = scenarios::here(chosen, seed, &self.lab, &self.agent, &self.nginx);
        let said = output.as_deref().unwrap_or_default();
        let outcomes = scenarios::read(chosen, said, None, Calls::default());
        Ok(Row {
            name: name.to_owned(),
            release: release_here(),
            scenarios: chosen.len(),
            told: Told::Ran(outcomes),
            preemption: scenarios::preemption(said).map(str::to_owned),
            failure: output.as_ref().err().map(|error| format!("{error:#}")),
            work: Vec::new(),
            seconds: began.elapsed().as_secs_f64(),
        })
    }
}

/// The host's own kernel, as `uname -r` says it.
fn release_here() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
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
