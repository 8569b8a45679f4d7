//! The nginx instances of this host as a capture sees them: found, described for the
//! trace, their logs opened, their workers watched.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::clock;
use super::reloads::Loaded;
use super::written::{Source, WrittenLogs};
use crate::nginx::binary::Binary;
use crate::nginx::configuration::{self, InForce, LogKind, NotFollowed};
use crate::nginx::follow::Logs;
use crate::nginx::processes::{self, Arrivals, Instance};
use crate::nginx::time_zone;
use crate::trace::record::{ErrorLog, Line, Nginx, Process};

/// One instance with what was learnt of it.
#[derive(Debug)]
pub struct Watched {
    /// The processes.
    pub instance: Instance,
    /// The binary.
    pub binary: Binary,
    /// Device and inode of the binary: known when its processes have gone, too.
    identity: Option<(u64, u64)>,
    pub(super) in_force: InForce,
    pub(super) loaded: Loaded,
    /// The logs that are followed, and whether lines are seen being written, as the trace
    /// was told.
    told: (Vec<ErrorLog>, bool),
}

/// All instances and their logs.
#[derive(Debug)]
pub struct Host {
    /// The instances.
    pub watched: Vec<Watched>,
    logs: Logs,
    /// Logs that are no files.
    pub(super) written: WrittenLogs,
    /// Notices other instances; none if one alone was asked for.
    arrivals: Option<Arrivals>,
    names: Vec<String>,
    /// The user has named the logs to follow.
    logs_given: bool,
    /// What the user should know before the capture starts.
    pub warnings: Vec<String>,
}

/// Finds the instances that run under one of `names`, or the one of process `only`.
///
/// # Errors
/// If there is none, or one cannot be looked at.
pub fn find(names: &[String], only: Option<u32>) -> Result<Host> {
    let instances = processes::find(names, only)?;
    if instances.is_empty() {
        bail!(
            "no nginx is running here (looked for processes named {}); start it first, or name \
             another with --process-name or --nginx PID",
            names.join(", ")
        );
    }
    let mut watched = Vec::new();
    for instance in instances {
        watched.push(Watched::new(instance)?);
    }
    Ok(Host {
        watched,
        logs: Logs::new(),
        written: WrittenLogs::default(),
        arrivals: only.is_none().then(|| Arrivals::new(names)),
        names: names.to_vec(),
        logs_given: false,
        warnings: Vec::new(),
    })
}

impl Watched {
    /// Angie puts a file name before errno in its log function since 1.12.
    #[must_use]
    pub fn log_has_file_name(&self) -> bool {
        let version = self.binary.version.as_deref().unwrap_or_default();
        let Some(number) = version.strip_prefix("Angie/") else {
            return false;
        };
        let mut parts = number
            .split('.')
            .map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (1, 12)
    }

    /// What its configuration says.
    #[must_use]
    pub fn in_force(&self) -> &InForce {
        &self.in_force
    }

    /// The logs followed, as the trace was told.
    pub(super) fn told_logs(&self) -> Vec<ErrorLog> {
        self.told.0.clone()
    }

    /// Are its lines seen being written, as the trace was told?
    pub(super) fn sees_log_calls(&self) -> bool {
        self.told.1
    }

    /// Of the logs of its requests the one that hides the most, if it is known: what those
    /// that the user gave may hide is not.
    #[must_use]
    pub fn narrowest(&self, followed: &[ErrorLog]) -> Option<ErrorLog> {
        let path = self.in_force.narrowest_log.clone()?;
        let level = self.in_force.narrowest_level.clone();
        let is_known = followed.iter().any(|log| log.level.is_some());
        is_known.then_some(ErrorLog { path, level })
    }

    fn new(instance: Instance) -> Result<Self> {
        let binary = Binary::read(&instance.exe)?;
        let in_force = configuration::read(&instance, &binary);
        let metadata = std::fs::metadata(&instance.exe).ok();
        Ok(Self {
            identity: metadata.map(|data| (data.dev(), data.ino())),
            loaded: Loaded::by(&instance, &binary),
            instance,
            binary,
            in_force,
            told: Default::default(),
        })
    }

    /// Device and inode of the binary: several masters may run the same one.
    ///
    /// # Errors
    /// If the process had gone when it was found.
    pub fn binary_identity(&self) -> Result<(u64, u64)> {
        let exe = self.instance.exe.display();
        self.identity
            .with_context(|| format!("cannot look at {exe}"))
    }

    /// The instance as the trace records it.
    #[must_use]
    pub fn record(&mut self, followed: &[ErrorLog], log_calls_seen: bool) -> Nginx {
        self.told = (followed.to_vec(), log_calls_seen);
        let problems = &self.in_force.problems;
        Nginx {
            master_pid: self.instance.master_pid,
            version: self.binary.version.clone(),
            binary: self.instance.binary.clone(),
            configuration_path: Some(self.in_force.path.clone()),
            workers: self.instance.workers.clone(),
            error_logs: followed.to_vec(),
            narrowest_level: self.narrowest(followed).and_then(|log| log.level),
            configuration: self.in_force.configuration.clone(),
            configuration_problem: (!problems.is_empty()).then(|| problems.join("; ")),
            changed_before_start: self.in_force.changed_since_start,
            log_calls_seen,
            netns: network_namespace(self.instance.master_pid),
            time_zone: time_zone::find(&self.instance, self.in_force.time_zone.as_deref()),
        }
    }
}

impl Host {
    /// Opens the error logs at their ends: those in force, or the ones given. Returns
    /// for each instance which are followed.
    ///
    /// # Errors
    /// If a log given cannot be followed, or an instance has none that can.
    pub fn follow(&mut self, given: &[PathBuf]) -> Result<Vec<Vec<ErrorLog>>> {
        self.logs_given = !given.is_empty();
        if self.logs_given {
            let Some(first) = self.watched.first() else {
                bail!("no nginx is watched")
            };
            let mut followed = Vec::new();
            for path in given {
                let path = std::path::absolute(path)
                    .with_context(|| format!("cannot find {}", path.display()))?;
                let text = path.to_str().context("the error log's path is not UTF-8")?;
                if !self
                    .logs
                    .follow(text, Path::new("/"), first.instance.master_pid)?
                {
                    bail!("cannot follow the error log {text}: it does not exist");
                }
                followed.push(ErrorLog {
                    path: text.to_owned(),
                    level: None,
                });
            }
            let others = self.watched.len() - 1;
            return Ok(std::iter::once(followed)
                .chain(std::iter::repeat_with(Vec::new).take(others))
                .collect());
        }
        (0..self.watched.len())
            .map(|index| self.follow_logs_of(index))
            .collect()
    }

    /// Opens the error logs that are in force for one instance.
    fn follow_logs_of(&mut self, index: usize) -> Result<Vec<ErrorLog>> {
        let Some(watched) = self.watched.get(index) else {
            bail!("no such instance")
        };
        let mut followed = Vec::new();
        let mut refused = Vec::new();
        let (root, master) = (&watched.instance.root, watched.instance.master_pid);
        for log in &watched.in_force.error_logs {
            match self.logs.follow(&log.path, root, master) {
                Ok(exists) => {
                    if !exists {
                        self.warnings.push(not_there_yet(&log.path));
                    }
                    followed.push(log.clone());
                }
                Err(error) => match self.written.device(&watched.instance, &log.path) {
                    Ok(Source::Calls(path)) => followed.push(ErrorLog {
                        path,
                        level: log.level.clone(),
                    }),
                    _ => refused.push(format!("{error:#}")),
                },
            }
        }
        for log in wanted(&watched.in_force.not_followed, followed.is_empty()) {
            let source = self.written.source(&watched.instance, log);
            let opened = source.and_then(|source| match source {
                Source::Calls(path) => Ok(path),
                Source::File(path, root) => {
                    self.logs
                        .follow(&path, &root, master)
                        .map_err(|error| format!("{error:#}"))?;
                    Ok(path)
                }
            });
            match opened {
                Ok(path) => followed.push(ErrorLog {
                    path,
                    level: Some(log.level.clone()),
                }),
                Err(reason) => refused.push(format!(
                    "the error log {} cannot be followed: {reason}",
                    log.target
                )),
            }
        }
        if followed.is_empty() {
            let why = if refused.is_empty() {
                "its configuration names none".to_owned()
            } else {
                refused.join("; ")
            };
            bail!(
                "nginx (master {master}) has no error log that can be followed: {why}; give \
                 one with --error-log PATH"
            );
        }
        self.warnings.extend(refused);
        Ok(followed)
    }

    /// Instances that have appeared since the last call, by their index: found, and their
    /// logs followed as far as they can be.
    pub(super) fn new_instances(&mut self) -> Vec<(usize, Vec<ErrorLog>)> {
        if !self.arrivals.as_mut().is_some_and(Arrivals::any) {
            return Vec::new();
        }
        let mut new = Vec::new();
        for instance in processes::find(&self.names, None).unwrap_or_default() {
            let known = |watched: &Watched| watched.instance.master_pid == instance.master_pid;
            if self.watched.iter().any(known) || !instance.is_settled() {
                continue;
            }
            // It may have ended by now.
            let Ok(watched) = Watched::new(instance) else {
                continue;
            };
            self.watched.push(watched);
            let index = self.watched.len() - 1;
            new.push((index, self.follow_new_logs(index)));
        }
        new
    }

    pub(super) fn follow_new_logs(&mut self, index: usize) -> Vec<ErrorLog> {
        if self.logs_given {
            return Vec::new();
        }
        self.follow_logs_of(index).unwrap_or_else(|error| {
            warn_once(&mut self.warnings, format!("{error:#}"));
            Vec::new()
        })
    }

    /// What the user is told at the end, once.
    pub(super) fn warn(&mut self, warning: String) {
        warn_once(&mut self.warnings, warning);
    }

    /// Is a log a file?
    pub(super) fn follows_files(&self) -> bool {
        !self.logs.is_empty()
    }

    /// New lines of all logs.
    pub fn poll_logs(&mut self, lines: &mut Vec<Line>) {
        self.read_logs(lines, Logs::poll);
    }

    /// What is still held back of all logs.
    pub fn finish_logs(&mut self, lines: &mut Vec<Line>) {
        self.read_logs(lines, Logs::finish);
    }

    /// Is there more to read at once?
    #[must_use]
    pub fn logs_are_behind(&self) -> bool {
        self.logs.is_behind()
    }

    /// Readable when something has happened in a log's directory.
    #[must_use]
    pub fn log_events(&self) -> Option<OwnedFd> {
        self.logs.descriptor()?.try_clone_to_owned().ok()
    }

    fn read_logs(
        &mut self,
        lines: &mut Vec<Line>,
        read: impl Fn(&mut Logs, u64, &mut Vec<Line>) -> Vec<anyhow::Error>,
    ) {
        let before = lines.len();
        for error in read(&mut self.logs, clock::monotonic_ns(), lines) {
            warn_once(&mut self.warnings, format!("{error:#}"));
        }
        // A line may have been written while the log was being read: it was read later
        // than it was logged, whatever the clock said before.
        let read_ns = clock::monotonic_ns();
        for line in lines.iter_mut().skip(before) {
            line.read_ns = read_ns;
        }
    }

    /// What the logs' followers could not read: pieces cut, truncations, files given up.
    #[must_use]
    pub fn log_losses(&self) -> Vec<(&'static str, u64)> {
        let counts = self.logs.counts();
        vec![
            ("log_truncations", counts.truncations),
            ("log_files_missed", counts.missed),
            ("log_lines_cut", counts.cut + self.written.cut),
            ("log_files_abandoned", counts.abandoned),
        ]
    }

    /// Workers that started or ended since the last call.
    pub fn worker_changes(&mut self, now_ns: u64) -> Vec<Process> {
        self.watched
            .iter_mut()
            .flat_map(|watched| watched.instance.update(now_ns).unwrap_or_default())
            .collect()
    }
}

fn not_there_yet(path: &str) -> String {
    format!("the error log {path} does not exist; it is read once nginx creates it")
}

/// Inode number of a process's network namespace.
fn network_namespace(pid: u32) -> Option<u32> {
    let metadata = std::fs::metadata(format!("/proc/{pid}/ns/net")).ok()?;
    u32::try_from(metadata.ino()).ok()
}

/// The logs without which lines would be missed: those that no file stands beside, or if
/// nothing is followed, all; one that goes nowhere only if there is no other.
fn wanted(logs: &[NotFollowed], none_followed: bool) -> Vec<&NotFollowed> {
    let goes_nowhere = |log: &&NotFollowed| log.kind == LogKind::Null;
    let (null, wanted): (Vec<_>, Vec<_>) = logs
        .iter()
        .filter(|log| log.alone || none_followed)
        .partition(goes_nowhere);
    if wanted.is_empty() && none_followed {
        null
    } else {
        wanted
    }
}

fn warn_once(warnings: &mut Vec<String>, warning: String) {
    if !warnings.contains(&warning) {
        warnings.push(warning);
    }
}
