//! Finds nginx instances through `/proc`: masters, their workers, and how each
//! master was called.
//!
//! It leaves the binary to [`super::binary`] and the configuration to
//! [`super::configuration`].

mod arguments;
mod arrivals;
pub mod cycle;
mod root;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::binary::Binary;
use crate::trace::record::{Process, Worker};

pub use arguments::Arguments;
pub use arrivals::Arrivals;
pub use root::Root;

/// Names of the binaries looked for if the user gives none.
pub const DEFAULT_NAMES: [&str; 4] = ["nginx", "openresty", "angie", "tengine"];

/// After this time a process without a title has none.
const SETTLES_S: u64 = 2;

/// One nginx instance: a master and its workers, or a process that is both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Master's pid on the host.
    pub master_pid: u32,
    /// Workers when it was found.
    pub workers: Vec<Worker>,
    /// `/proc/PID/exe`: usable even if the file was replaced by an upgrade.
    pub exe: PathBuf,
    /// What that link says: the path as the master sees it.
    pub binary: String,
    /// `/proc/PID/root`; open it as [`Root`].
    pub root: PathBuf,
    /// Working directory as the master sees it.
    pub cwd: PathBuf,
    /// Its command line.
    pub arguments: Arguments,
}

/// Why [`find`] has no instance for the pid it was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// No such process.
    #[error("there is no process {0}; give the pid of an nginx master or worker")]
    NoProcess(u32),
    /// A process, but not nginx.
    #[error("process {pid} is {comm}, not nginx; give the pid of an nginx master or worker")]
    NotNginx {
        /// The pid given.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// A worker or helper whose master has gone.
    #[error("process {0} is an nginx process whose master has gone")]
    NoMaster(u32),
}

/// What a process's title says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Master,
    Worker,
    /// Cache manager, cache loader, privileged agent.
    Helper,
    /// No title: nginx without a master, or one that has not set it yet.
    Untitled,
}

/// A process, as far as it matters here.
#[derive(Clone, Debug)]
struct Candidate {
    pid: u32,
    parent: u32,
    cmdline: Vec<u8>,
    role: Role,
}

/// Finds the instances whose binary or process name is one of `names`, or only the
/// one that `only` (a master's or a worker's pid, by whatever name) belongs to.
///
/// # Errors
///
/// `/proc` cannot be read; [`FindError`] if `only` is not an nginx process.
pub fn find(names: &[String], only: Option<u32>) -> Result<Vec<Instance>> {
    let candidates = candidates(names, only).context("cannot list the processes in /proc")?;
    let mut masters = masters(&candidates);
    if let Some(pid) = only {
        masters = vec![master_of(pid, &candidates, &masters)?];
    }
    let mut instances = Vec::new();
    for pid in masters {
        match instance(pid, &candidates) {
            Ok(instance) => instances.push(instance),
            // It ended since it was listed.
            Err(_) if only.is_none() && !proc_path(pid, "").exists() => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot look at nginx process {pid}"));
            }
        }
    }
    Ok(instances)
}

/// The workers that a master has now, sorted by pid; cheap enough to be called every
/// second. A process without a master is its own worker. Empty if `master` has gone.
///
/// # Errors
///
/// `/proc` cannot be read.
pub fn workers_of(master: u32) -> io::Result<Vec<Worker>> {
    let Ok(own) = fs::read(proc_path(master, "cmdline")) else {
        return Ok(Vec::new());
    };
    if own.is_empty() {
        return Ok(Vec::new());
    }
    if role(&own) == Role::Untitled {
        return Ok(worker(master).into_iter().collect());
    }
    let mut workers: Vec<Worker> = children(master)?
        .into_iter()
        .filter(|&pid| {
            fs::read(proc_path(pid, "cmdline")).is_ok_and(|title| role(&title) == Role::Worker)
        })
        .filter_map(worker)
        .collect();
    workers.sort_by_key(|worker| worker.pid);
    Ok(workers)
}

impl Instance {
    /// Looks at the workers again: brings [`Instance::workers`] up to date and
    /// returns what changed.
    ///
    /// # Errors
    ///
    /// As [`workers_of`].
    pub fn update(&mut self, now_ns: u64) -> io::Result<Vec<Process>> {
        let mut found = workers_of(self.master_pid)?;
        for known in &self.workers {
            // The kernel's list of children may skip some while others exit, so that
            // absence from it is not yet an end.
            let listed = found.iter().any(|worker| worker.pid == known.pid);
            if !listed && still_runs(known.pid) {
                found.push(known.clone());
            }
        }
        found.sort_by_key(|worker| worker.pid);
        let change = |worker: &Worker, started| Process {
            ns: now_ns,
            master_pid: self.master_pid,
            worker: worker.clone(),
            started,
        };
        let gone = self.workers.iter().filter(|worker| !found.contains(worker));
        let new = found.iter().filter(|worker| !self.workers.contains(worker));
        let changes = gone
            .map(|worker| change(worker, false))
            .chain(new.map(|worker| change(worker, true)))
            .collect();
        self.workers = found;
        Ok(changes)
    }

    /// Is it what it is going to be? A master has no title yet in its first moments, and
    /// neither has the process that puts it into the background and ends.
    pub fn is_settled(&self) -> bool {
        let untitled = matches!(self.workers.as_slice(), [only] if only.pid == self.master_pid);
        !untitled || age_s(self.master_pid).is_none_or(|age| age >= SETTLES_S)
    }

    /// When its newest worker started, in seconds since 1970 UTC, give or take one.
    pub fn newest_start_s(&self) -> Option<u64> {
        start_s(self.workers.iter().filter_map(start_ticks).max()?)
    }

    /// When the oldest of the workers started that are not shutting down, likewise: a
    /// reload leaves none of those before it.
    pub fn oldest_start_s(&self) -> Option<u64> {
        let active = self.workers.iter().filter(|worker| {
            let title = fs::read(proc_path(worker.pid, "cmdline")).unwrap_or_default();
            !String::from_utf8_lossy(&title).contains("process is shutting down")
        });
        start_s(active.filter_map(start_ticks).min()?)
    }
}

fn start_ticks(worker: &Worker) -> Option<u64> {
    let process = procfs::process::Process::new(i32::try_from(worker.pid).ok()?).ok()?;
    Some(process.stat().ok()?.starttime)
}

fn start_s(ticks: u64) -> Option<u64> {
    let since_boot_s = ticks.checked_div(procfs::ticks_per_second())?;
    procfs::boot_time_secs().ok()?.checked_add(since_boot_s)
}

/// How long a process has run, in whole seconds.
fn age_s(pid: u32) -> Option<u64> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    let started = process.stat().ok()?.starttime / procfs::ticks_per_second();
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
    Some(u64::try_from(up).ok()?.saturating_sub(started))
}

fn still_runs(pid: u32) -> bool {
    // An ended process that its parent has not collected has no command line.
    fs::read(proc_path(pid, "cmdline"))
        .is_ok_and(|cmdline| matches!(role(&cmdline), Role::Worker) && !cmdline.is_empty())
}

fn proc_path(pid: u32, file: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(file)
}

/// Every process that bears one of the names; given `only`, every one with a title of
/// nginx's as well, and `only` itself if its binary is nginx.
fn candidates(names: &[String], only: Option<u32>) -> Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for process in procfs::process::all_processes()? {
        // A process may end between any two looks at it.
        let Ok(stat) = process.and_then(|process| process.stat()) else {
            continue;
        };
        let (Ok(pid), Ok(parent)) = (u32::try_from(stat.pid), u32::try_from(stat.ppid)) else {
            continue;
        };
        let Ok(exe) = fs::read_link(proc_path(pid, "exe")) else {
            continue;
        };
        let Ok(cmdline) = fs::read(proc_path(pid, "cmdline")) else {
            continue;
        };
        if cmdline.is_empty() {
            continue;
        }
        let role = role(&cmdline);
        let exe = exe.to_string_lossy();
        let exe = without_deleted(&exe);
        let by_exe = names
            .iter()
            .any(|name| exe.rsplit('/').next() == Some(name));
        let by_comm = names.iter().any(|name| is_comm_of(&stat.comm, name));
        // Without a title the process name alone is too little: it may be a script.
        let named = by_exe || (by_comm && role != Role::Untitled);
        let wanted = match role {
            Role::Untitled => only == Some(pid) && is_nginx(pid),
            _ => only.is_some(),
        };
        if named || wanted {
            found.push(Candidate {
                pid,
                parent,
                cmdline,
                role,
            });
        }
    }
    Ok(found)
}

/// Pids of the masters, and of the processes that work without one.
fn masters(candidates: &[Candidate]) -> Vec<u32> {
    let is_master = |pid| {
        candidates
            .iter()
            .any(|c| c.pid == pid && c.role == Role::Master)
    };
    let has_children = |pid| candidates.iter().any(|c| c.parent == pid);
    candidates
        .iter()
        .filter(|candidate| match candidate.role {
            // A worker bears its master's title from fork() until it sets its own.
            Role::Master => !is_master(candidate.parent) || has_children(candidate.pid),
            Role::Untitled => {
                !is_master(candidate.parent)
                    && !Arguments::from_cmdline(&candidate.cmdline).ends_at_once
            }
            Role::Worker | Role::Helper => false,
        })
        .map(|candidate| candidate.pid)
        .collect()
}

fn master_of(
    pid: u32,
    candidates: &[Candidate],
    masters: &[u32],
) -> std::result::Result<u32, FindError> {
    if masters.contains(&pid) {
        return Ok(pid);
    }
    match candidates.iter().find(|candidate| candidate.pid == pid) {
        Some(candidate) if masters.contains(&candidate.parent) => Ok(candidate.parent),
        Some(_) => Err(FindError::NoMaster(pid)),
        None => Err(match fs::read_to_string(proc_path(pid, "comm")) {
            Ok(comm) => FindError::NotNginx {
                pid,
                comm: comm.trim_end().to_owned(),
            },
            Err(_) => FindError::NoProcess(pid),
        }),
    }
}

fn instance(pid: u32, candidates: &[Candidate]) -> io::Result<Instance> {
    let cmdline = candidates
        .iter()
        .find(|candidate| candidate.pid == pid)
        .map_or_else(Vec::new, |candidate| candidate.cmdline.clone());
    let exe = proc_path(pid, "exe");
    let binary = without_deleted(&fs::read_link(&exe)?.to_string_lossy()).to_owned();
    Ok(Instance {
        master_pid: pid,
        workers: workers_of(pid)?,
        exe,
        binary,
        root: proc_path(pid, "root"),
        cwd: fs::read_link(proc_path(pid, "cwd"))?,
        arguments: Arguments::from_cmdline(&cmdline),
    })
}

fn is_nginx(pid: u32) -> bool {
    Binary::read(&proc_path(pid, "exe")).is_ok_and(|binary| binary.exports_log_function)
}

/// The kernel marks the link of a file that an upgrade has replaced.
fn without_deleted(exe: &str) -> &str {
    exe.strip_suffix(" (deleted)").unwrap_or(exe)
}

/// The kernel keeps 15 bytes of a process's name.
fn is_comm_of(comm: &str, name: &str) -> bool {
    comm == name || (comm.len() == 15 && name.starts_with(comm))
}

/// What `/proc/PID/cmdline` says. Titles are `nginx: master process ...` and so on
/// (`src/os/unix/ngx_process_cycle.c`); Angie writes its own name before the colon.
fn role(cmdline: &[u8]) -> Role {
    let text = String::from_utf8_lossy(cmdline);
    let Some((name, title)) = text.split_once(": ") else {
        return Role::Untitled;
    };
    if name.contains(['/', ' ', '\0']) {
        return Role::Untitled;
    }
    if title.starts_with("master process") {
        Role::Master
    } else if title.starts_with("worker process") {
        Role::Worker
    } else if ["cache ", "privileged agent", "helper process"]
        .iter()
        .any(|t| title.starts_with(t))
    {
        Role::Helper
    } else {
        Role::Untitled
    }
}

fn worker(pid: u32) -> Option<Worker> {
    let status = fs::read_to_string(proc_path(pid, "status")).ok()?;
    Some(Worker {
        pid,
        inner_pid: inner_pid(&status).unwrap_or(pid),
    })
}

/// Last number of `NSpid` in `/proc/PID/status`: the pid in the innermost namespace.
fn inner_pid(status: &str) -> Option<u32> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().next_back()?.parse().ok()
}

/// Children of a process. A kernel without CONFIG_PROC_CHILDREN has no such list;
/// then every process is asked for its parent.
pub(super) fn children(pid: u32) -> io::Result<Vec<u32>> {
    // Only the main thread of nginx forks.
    match fs::read_to_string(proc_path(pid, &format!("task/{pid}/children"))) {
        Ok(list) => Ok(list
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect()),
        Err(_) => {
            let mut found = Vec::new();
            for process in procfs::process::all_processes().map_err(io::Error::other)? {
                let Ok(stat) = process.and_then(|process| process.stat()) else {
                    continue;
                };
                if u32::try_from(stat.ppid) == Ok(pid) {
                    found.extend(u32::try_from(stat.pid));
                }
            }
            Ok(found)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(pid: u32, parent: u32, cmdline: &str) -> Candidate {
        let cmdline = cmdline.as_bytes().to_vec();
        Candidate {
            pid,
            parent,
            role: role(&cmdline),
            cmdline,
        }
    }

    #[test]
    fn titles_tell_roles() {
        assert_eq!(
            role(b"nginx: master process /usr/sbin/nginx\0"),
            Role::Master
        );
        assert_eq!(
            role(b"angie: master process v1.9.0 #1 [angie]\0"),
            Role::Master
        );
        assert_eq!(role(b"nginx: worker process\0\0\0"), Role::Worker);
        assert_eq!(
            role(b"nginx: worker process is shutting down\0"),
            Role::Worker
        );
        assert_eq!(role(b"nginx: cache manager process\0"), Role::Helper);
        assert_eq!(role(b"nginx: cache loader process\0"), Role::Helper);
        assert_eq!(role(b"nginx: privileged agent process\0"), Role::Helper);
        assert_eq!(
            role(b"nginx\0-g\0daemon off; # a: master process\0"),
            Role::Untitled
        );
        assert_eq!(role(b"/usr/sbin/nginx\0"), Role::Untitled);
    }

    #[test]
    fn the_innermost_pid_is_the_last_of_nspid() {
        assert_eq!(
            inner_pid("Name:\tnginx\nNSpid:\t4711\t29\t7\nNSpgid:\t1\n"),
            Some(7)
        );
        assert_eq!(inner_pid("NSpid:\t4711\n"), Some(4711));
        assert_eq!(inner_pid("Name:\tnginx\n"), None);
    }

    #[test]
    fn an_upgrade_has_two_masters_and_a_newborn_worker_is_none() {
        let all = [
            candidate(10, 1, "nginx: master process nginx\0"),
            candidate(11, 10, "nginx: worker process\0"),
            candidate(12, 10, "nginx: master process nginx\0"),
            candidate(13, 12, "nginx: worker process\0"),
            candidate(14, 10, "nginx: master process nginx\0"),
            candidate(20, 1, "/usr/sbin/nginx\0-g\0master_process off;\0"),
            candidate(21, 1, "nginx\0-s\0reload\0"),
        ];
        assert_eq!(masters(&all), [10, 12, 20]);
        assert_eq!(master_of(11, &all, &masters(&all)), Ok(10));
        assert_eq!(master_of(13, &all, &masters(&all)), Ok(12));
        assert_eq!(master_of(12, &all, &masters(&all)), Ok(12));
    }

    #[test]
    fn a_pid_that_is_not_nginx_is_refused() {
        let names = DEFAULT_NAMES.map(str::to_owned);
        let error = find(&names, Some(std::process::id())).unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(FindError::NotNginx { .. })),
            "{error:#}"
        );
        let error = find(&names, Some(u32::MAX)).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&FindError::NoProcess(u32::MAX)));
    }

    #[test]
    fn long_names_are_cut_by_the_kernel() {
        assert!(is_comm_of("nginx", "nginx"));
        assert!(is_comm_of("nginx-very-long", "nginx-very-long-name"));
        assert!(!is_comm_of("ngin", "nginx"));
    }
}
