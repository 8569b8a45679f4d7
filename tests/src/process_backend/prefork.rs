//! A pre-forking backend: a supervisor that opens the listening socket and worker
//! processes that accept from it, as gunicorn, php-fpm or unicorn have them. The
//! supervisor starts lost workers again and writes down what it did, and why.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::{Death, Spec, command, folder, journal, spawn};
use crate::backend::{Connection, read_journal};
use crate::clock::{PATIENCE, wait_for};
use crate::processes;

/// How the supervisor treats its workers.
#[derive(Clone, Copy, Debug)]
pub struct Supervision {
    /// How many there are.
    pub workers: usize,
    /// A worker that has given so many answers drains and exits with 0.
    pub recycle_after: Option<usize>,
    /// A worker that works on one request for longer is killed.
    pub work_limit: Option<Duration>,
    /// How often the supervisor looks.
    pub look_every: Duration,
    /// It sends SIGABRT first, and SIGKILL at the next look.
    pub abort_first: bool,
}

/// What the supervisor did or saw. Kills are written before they are done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A worker began.
    Started {
        /// Its pid.
        pid: u32,
        /// When, CLOCK_MONOTONIC.
        at_ns: u64,
    },
    /// A worker worked for too long on these requests.
    Killed {
        /// Its pid.
        pid: u32,
        /// When.
        at_ns: u64,
        /// By this signal.
        signal: i32,
        /// Targets of the requests that were over the limit.
        overdue: Vec<String>,
    },
    /// A worker ended.
    Ended {
        /// Its pid.
        pid: u32,
        /// When that was seen.
        seen_ns: u64,
        /// As wait() gives it.
        status: i32,
    },
}

/// Appends an event to the supervisor's journal, in one write.
///
/// # Errors
/// If it cannot be written.
pub fn note(journal: &Path, event: &Event) -> Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let file = OpenOptions::new().append(true).create(true).open(journal);
    let mut file: File =
        file.with_context(|| format!("cannot open the journal {}", journal.display()))?;
    file.write_all(&line)?;
    Ok(())
}

/// A running pre-forking backend; dropping it kills all its processes.
#[derive(Debug)]
pub struct Preforking {
    supervisor: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Preforking {
    /// Starts it and waits until its workers have begun.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(program: &Path, spec: &Spec, supervision: Supervision) -> Result<Self> {
        let folder = folder()?;
        let mut command = command(program, spec, &journal(&folder));
        command
            .args(["--workers", &supervision.workers.to_string()])
            .arg("--supervisor-journal")
            .arg(events(&folder))
            .args(["--look-ns", &supervision.look_every.as_nanos().to_string()]);
        if let Some(requests) = supervision.recycle_after {
            command.args(["--recycle-after", &requests.to_string()]);
        }
        if let Some(limit) = supervision.work_limit {
            command.args(["--work-limit-ns", &limit.as_nanos().to_string()]);
        }
        if supervision.abort_first {
            command.arg("--abort-first");
        }
        let (supervisor, address) = spawn(&mut command)?;
        Ok(Self {
            supervisor,
            address,
            folder,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the supervisor did and saw so far.
    ///
    /// # Errors
    /// If its journal cannot be read.
    pub fn events(&self) -> Result<Vec<Event>> {
        let path = events(&self.folder);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read the journal {}", path.display()))?;
        let whole = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        whole
            .map(|line| serde_json::from_str(line).with_context(|| format!("no event: {line}")))
            .collect()
    }

    /// How its workers ended so far.
    ///
    /// # Errors
    /// If the supervisor's journal cannot be read.
    pub fn deaths(&self) -> Result<Vec<Death>> {
        let events = self.events()?.into_iter();
        let deaths = events.filter_map(|event| match event {
            Event::Ended {
                pid,
                seen_ns,
                status,
            } => Some(Death {
                pid,
                status: ExitStatus::from_raw(status),
                seen_ns,
            }),
            _ => None,
        });
        Ok(deaths.collect())
    }

    /// Waits until the supervisor has seen this worker end.
    ///
    /// # Errors
    /// If it does not.
    pub fn await_death(&self, pid: u32) -> Result<Death> {
        wait_for(&format!("worker {pid} to end"), PATIENCE, || {
            let deaths = self.deaths()?.into_iter();
            Ok(deaths.rev().find(|death| death.pid == pid))
        })
    }

    /// All connections so far, of every worker, with the pid that held each.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn connections(&self) -> Result<Vec<(u32, Connection)>> {
        read_journal(&journal(&self.folder))
    }
}

impl Drop for Preforking {
    fn drop(&mut self) {
        // The workers are in the supervisor's group, which is its own.
        let group = i32::try_from(self.supervisor.id()).ok();
        if let (Some(group), Ok(None)) = (group.and_then(Pid::from_raw), self.supervisor.try_wait())
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
        processes::end(&mut self.supervisor, Signal::KILL, PATIENCE);
    }
}

fn events(folder: &TempDir) -> PathBuf {
    folder.path().join("supervisor")
}
