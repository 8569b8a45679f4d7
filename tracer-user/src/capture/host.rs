//! The nginx instances of this host as a capture sees them: found, described for the
//! trace, their logs opened, their workers watched.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::clock;
use super::written::{Source, WrittenLogs};
use crate::nginx::binary::Binary;
use crate::nginx::configuration::{self, InForce, LogKind, NotFollowed};
use crate::nginx::follow::Follower;
use crate::nginx::processes::{self, Instance};
use crate::nginx::time_zone;
use crate::trace::record::{ErrorLog, Line, Nginx, Process};

/// One instance with what was learnt of it.
#[derive(Debug)]
pub struct Watched {
    /// The processes.
    pub instance: Instance,
    /// The binary.
    pub binary: Binary,
    in_force: InForce,
}

/// All instances and their logs.
#[derive(Debug)]
pub struct Host {
    /// The instances.
    pub watched: Vec<Watched>,
    followers: Vec<Follower>,
    /// Logs that are no files.
    pub(super) written: WrittenLogs,
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
        let binary = Binary::read(&instance.exe)?;
        let in_force = configuration::read(&instance, &binary);
        watched.push(Watched {
            instance,
            binary,
            in_force,
        });
    }
    Ok(Host {
        watched,
        followers: Vec::new(),
        written: WrittenLogs::default(),
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

    /// Device and inode of the binary: several masters may run the same one.
    ///
    /// # Errors
    /// If the process has gone.
    pub fn binary_identity(&self) -> Result<(u64, u64)> {
        let metadata = std::fs::metadata(&self.instance.exe)
            .with_context(|| format!("cannot look at {}", self.instance.exe.display()))?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// The instance as the trace records it.
    #[must_use]
    pub fn record(&self, followed: &[ErrorLog], log_calls_seen: bool) -> Nginx {
        let problems = &self.in_force.problems;
        Nginx {
            master_pid: self.instance.master_pid,
            version: self.binary.version.clone(),
            binary: self.instance.binary.clone(),
            configuration_path: Some(self.in_force.path.clone()),
            workers: self.instance.workers.clone(),
            error_logs: followed.to_vec(),
            configuration: self.in_force.configuration.clone(),
            configuration_problem: (!problems.is_empty()).then(|| problems.join("; ")),
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
        let mut seen = HashSet::new();
        if !given.is_empty() {
            let Some(first) = self.watched.first() else {
                bail!("no nginx is watched")
            };
            let mut followed = Vec::new();
            for path in given {
                let path = std::path::absolute(path)
                    .with_context(|| format!("cannot find {}", path.display()))?;
                let text = path.to_str().context("the error log's path is not UTF-8")?;
                let follower =
                    Follower::open_at_end(text, Path::new("/"), first.instance.master_pid)?;
                if seen.insert(follower.identity()) {
                    followed.push(ErrorLog {
                        path: text.to_owned(),
                        level: None,
                    });
                    self.followers.push(follower);
                }
            }
            let others = self.watched.len() - 1;
            return Ok(std::iter::once(followed)
                .chain(std::iter::repeat_with(Vec::new).take(others))
                .collect());
        }
        let mut all = Vec::new();
        for watched in &self.watched {
            let mut followed = Vec::new();
            let mut refused = Vec::new();
            let (root, master) = (&watched.instance.root, watched.instance.master_pid);
            for log in &watched.in_force.error_logs {
                match Follower::open_at_end(&log.path, root, master) {
                    Ok(follower) => {
                        if seen.insert(follower.identity()) {
                            self.followers.push(follower);
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
                        let follower = Follower::open_at_end(&path, &root, master)
                            .map_err(|error| format!("{error:#}"))?;
                        if seen.insert(follower.identity()) {
                            self.followers.push(follower);
                        }
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
            all.push(followed);
        }
        Ok(all)
    }

    /// Is a log a file?
    pub(super) fn follows_files(&self) -> bool {
        !self.followers.is_empty()
    }

    /// New lines of all logs.
    pub fn poll_logs(&mut self, lines: &mut Vec<Line>) {
        self.read_logs(lines, Follower::poll);
    }

    /// What is still held back of all logs.
    pub fn finish_logs(&mut self, lines: &mut Vec<Line>) {
        self.read_logs(lines, Follower::finish);
    }

    fn read_logs(
        &mut self,
        lines: &mut Vec<Line>,
        read: impl Fn(&mut Follower, u64, &mut Vec<Line>) -> Result<()>,
    ) {
        let before = lines.len();
        for follower in &mut self.followers {
            if let Err(error) = read(follower, clock::monotonic_ns(), lines) {
                warn_once(&mut self.warnings, format!("{error:#}"));
            }
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
        let mut sums = [
            ("log_truncations", 0),
            ("log_lines_cut", 0),
            ("log_files_abandoned", 0),
        ];
        sums[1].1 = self.written.cut;
        for follower in &self.followers {
            let counts = follower.counts();
            for (sum, count) in
                sums.iter_mut()
                    .zip([counts.truncations, counts.cut, counts.abandoned])
            {
                sum.1 += count;
            }
        }
        sums.to_vec()
    }

    /// Workers that started or ended since the last call.
    pub fn worker_changes(&mut self, now_ns: u64) -> Vec<Process> {
        self.watched
            .iter_mut()
            .flat_map(|watched| watched.instance.update(now_ns).unwrap_or_default())
            .collect()
    }
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
