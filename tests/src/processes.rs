//! Processes of the lab: their children and states as `/proc` tells them, stopping
//! and continuing them, and ending them for good.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock::{PATIENCE, wait_for};

/// User and group that own nothing, by number: the names differ between systems.
pub const NOBODY: u32 = 65_534;

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// `R`, `S`, `T` (stopped), `Z` and so on.
    pub state: char,
    /// Parent.
    pub parent: u32,
}

/// The process's status; none if there is no such process.
#[must_use]
pub fn status(pid: u32) -> Option<Status> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `123 (a name) with) S 1 ...`: the name may hold anything, so its last bracket counts.
fn parse(stat: &str) -> Option<Status> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    Some(Status {
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
    })
}

/// Whether the process runs (a zombie does not).
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    status(pid).is_some_and(|status| !matches!(status.state, 'Z' | 'X'))
}

/// Living children of a process, in the order of their pids.
///
/// # Errors
/// If `/proc` cannot be listed.
pub fn children(parent: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot list /proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let is_child = status(pid)
            .is_some_and(|status| status.parent == parent && !matches!(status.state, 'Z' | 'X'));
        if is_child {
            children.push(pid);
        }
    }
    children.sort_unstable();
    Ok(children)
}

/// Sends a signal.
///
/// # Errors
/// If there is no such process.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let id = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .context("not a pid")?;
    kill_process(id, signal).with_context(|| format!("cannot signal process {pid}"))
}

/// Ends a child: asks with `first`, kills it if it has not gone in `patience`, and
/// reaps it either way.
pub fn end(child: &mut Child, first: Signal, patience: Duration) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    // It may go between the two calls; then there is nothing left to do.
    let _ = signal(child.id(), first);
    let deadline = Instant::now() + patience;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A command that receives SIGTERM if this process dies without dropping it. Where
/// util-linux's `setpriv` is missing the command is run plainly. (The kernel ties
/// that signal to the thread that starts the command, prctl(2) PR_SET_PDEATHSIG: it
/// has to outlive the child.)
#[must_use]
pub fn bound_to_us(program: &Path) -> Command {
    match which("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Nobody closes while a child is on its way from fork to exec.
static FORKING: RwLock<()> = RwLock::new(());

/// Starts a child. Until its exec it holds a copy of every descriptor of this process: a
/// socket that another thread closes meanwhile ends with that exec, later and by the
/// child. So closes that are on record as acts take [`closing`].
///
/// # Errors
/// If it cannot be started.
pub fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let _alone = FORKING.write().unwrap_or_else(PoisonError::into_inner);
    // The child's name until then (`begin_new_exec` in fs/exec.c closes what is to be
    // closed, and renames after that; the caller of vfork() goes on before either).
    let before = fs::read("/proc/thread-self/comm")?;
    let child = command.spawn()?;
    let comm = format!("/proc/{}/comm", child.id());
    let deadline = Instant::now() + PATIENCE;
    while fs::read(&comm).is_ok_and(|now| now == before) && Instant::now() < deadline {
        std::thread::yield_now();
    }
    Ok(child)
}

/// No child of [`spawn`] holds a copy of a descriptor until the guard is dropped.
pub fn closing() -> RwLockReadGuard<'static, ()> {
    FORKING.read().unwrap_or_else(PoisonError::into_inner)
}

/// First executable file of this name on PATH, or in the places of system tools.
#[must_use]
pub fn which(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Into::into))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Stopped processes; they continue when this is dropped.
#[derive(Debug)]
pub struct Stopped {
    pids: Vec<u32>,
}

impl Stopped {
    /// Stops them all and waits until they are.
    ///
    /// # Errors
    /// If one of them has gone or does not stop.
    pub fn stop(pids: &[u32]) -> Result<Self> {
        // Made first: whatever fails below, what was stopped continues.
        let stopped = Self {
            pids: pids.to_vec(),
        };
        for &pid in pids {
            signal(pid, Signal::STOP)?;
        }
        for &pid in pids {
            wait_for(&format!("process {pid} to stop"), PATIENCE, || {
                let status = status(pid).with_context(|| format!("process {pid} has gone"))?;
                Ok((status.state == 'T').then_some(()))
            })?;
        }
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for &pid in &self.pids {
            // One that has gone needs no signal.
            let _ = signal(pid, Signal::CONT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_brackets_does_not_shift_the_fields() {
        let status = parse("12 (a) (b)) T 7 1 2 3").unwrap();
        assert_eq!(
            status,
            Status {
                state: 'T',
                parent: 7
            }
        );
        assert!(parse("").is_none());
    }

    #[test]
    fn a_child_is_found_stopped_continued_and_ended() {
        let mut child = bound_to_us(Path::new("/bin/sleep"))
            .arg("600")
            .spawn()
            .unwrap();
        let pid = child.id();
        assert!(children(std::process::id()).unwrap().contains(&pid));
        let stopped = Stopped::stop(&[pid]).unwrap();
        assert_eq!(status(pid).unwrap().state, 'T');
        drop(stopped);
        wait_for("it to continue", PATIENCE, || {
            Ok(status(pid).filter(|status| status.state != 'T'))
        })
        .unwrap();
        end(&mut child, Signal::TERM, PATIENCE);
        assert!(!is_alive(pid));
    }
}
