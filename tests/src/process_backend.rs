//! A backend in a process of its own (`whoclosed-backend`), which can be killed, exits
//! or crashes; its records survive it. What it does is [`crate::backend`]'s. Several
//! processes on one socket are [`Preforking`], a cgroup of its own is [`MemoryGroup`].

mod memory;
mod prefork;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Signal;
use tempfile::TempDir;

pub use memory::MemoryGroup;
pub use prefork::{Event, Preforking, Supervision, note};

use crate::backend::{Connection, Habits, read_journal};
use crate::behaviour::Means;
use crate::clock::{PATIENCE, now_ns, wait_for};
use crate::processes;

/// What to start.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Where to listen; port 0: any.
    pub address: SocketAddr,
    /// Its habits.
    pub habits: Habits,
    /// On SIGTERM it closes every connection and exits with 0, instead of dying of it.
    pub graceful: bool,
}

/// How a process of the backend ended.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    /// Which process.
    pub pid: u32,
    /// Exit code or signal.
    pub status: ExitStatus,
    /// When it was seen to have ended: after the fact.
    pub seen_ns: u64,
}

/// A running, or ended, backend; dropping it kills its process.
#[derive(Debug)]
pub struct ProcessBackend {
    child: Child,
    program: PathBuf,
    spec: Spec,
    group: Option<MemoryGroup>,
    deaths: Vec<Death>,
    /// Nobody else gets its port while it is down.
    _port: Option<OwnedFd>,
    folder: TempDir,
}

/// The program: beside the running one, or in the folder above (tests lie in `deps`).
///
/// # Errors
/// If it is in neither.
pub fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the running program")?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("whoclosed-backend"))
        .find(|file| file.is_file())
        .context("no whoclosed-backend beside this program: cargo build -p whoclosed-tests")
}

impl ProcessBackend {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(program: &Path, spec: Spec) -> Result<Self> {
        Self::start_in(program, spec, None)
    }

    /// The same in a memory cgroup of its own.
    ///
    /// # Errors
    /// If it does not start, or cannot enter the group.
    pub fn start_confined(program: &Path, spec: Spec, group: MemoryGroup) -> Result<Self> {
        Self::start_in(program, spec, Some(group))
    }

    fn start_in(program: &Path, mut spec: Spec, group: Option<MemoryGroup>) -> Result<Self> {
        let folder = folder()?;
        let port = reserve(&mut spec.address);
        let mut command = command(program, &spec, &journal(&folder));
        let (child, address) = spawn(confined(&mut command, group.as_ref()))?;
        spec.address = address;
        Ok(Self {
            child,
            program: program.to_owned(),
            spec,
            group,
            deaths: Vec::new(),
            _port: port,
            folder,
        })
    }

    /// Where it listens, or listened.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.spec.address
    }

    /// Its process, the latest.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it has gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        processes::signal(self.pid(), signal)
    }

    /// Waits until its process has ended.
    ///
    /// # Errors
    /// If it does not.
    pub fn wait(&mut self, patience: Duration) -> Result<Death> {
        if let Some(death) = self.death() {
            return Ok(death);
        }
        let status = wait_for("the backend to end", patience, || {
            Ok(self.child.try_wait()?)
        })?;
        let death = Death {
            pid: self.pid(),
            status,
            seen_ns: now_ns(),
        };
        self.deaths.push(death);
        Ok(death)
    }

    fn death(&self) -> Option<Death> {
        let last = self.deaths.last().copied();
        last.filter(|death| death.pid == self.pid())
    }

    /// How its processes ended so far, as far as they were waited for.
    #[must_use]
    pub fn deaths(&self) -> &[Death] {
        &self.deaths
    }

    /// Starts it again on the same port, once its process has ended.
    ///
    /// # Errors
    /// If it has not ended, or does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.wait(PATIENCE)?;
        let mut command = command(&self.program, &self.spec, &journal(&self.folder));
        let (child, _) = spawn(confined(&mut command, self.group.as_ref()))?;
        self.child = child;
        Ok(())
    }

    /// The memory cgroup that it is in.
    #[must_use]
    pub fn group(&self) -> Option<&MemoryGroup> {
        self.group.as_ref()
    }

    /// All connections so far, of every process of it, with the pid that held each.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn connections(&self) -> Result<Vec<(u32, Connection)>> {
        read_journal(&journal(&self.folder))
    }
}

impl Drop for ProcessBackend {
    fn drop(&mut self) {
        processes::end(&mut self.child, Signal::KILL, PATIENCE);
    }
}

fn folder() -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let folder = builder.prefix("whoclosed-backend-").tempdir();
    folder.context("no folder for the backend")
}

fn journal(folder: &TempDir) -> PathBuf {
    folder.path().join("journal")
}

/// Binds a socket to the address, port 0 becoming a free one, that never listens: the
/// kernel gives the port to no connect meanwhile (net/ipv4/inet_hashtables.c
/// `__inet_hash_connect` passes over ports that somebody has bound), and a listener
/// may bind it beside, since both allow reuse and this one does not listen
/// (net/ipv4/inet_connection_sock.c `inet_csk_bind_conflict`). None where the address is
/// not this network namespace's.
fn reserve(address: &mut SocketAddr) -> Option<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None).ok()?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true).ok()?;
    rustix::net::bind(&socket, address).ok()?;
    *address = SocketAddr::try_from(rustix::net::getsockname(&socket).ok()?).ok()?;
    Some(socket)
}

fn confined<'a>(command: &'a mut Command, group: Option<&MemoryGroup>) -> &'a mut Command {
    if let Some(group) = group {
        command.arg("--cgroup").arg(group.processes());
    }
    command
}

/// The program with the arguments that its spec needs.
fn command(program: &Path, spec: &Spec, journal: &Path) -> Command {
    let mut command = processes::bound_to_us(program);
    let habits = spec.habits;
    command
        .args(["--listen", &spec.address.to_string()])
        .arg("--journal")
        .arg(journal)
        .args(["--behaviour", &habits.behaviour.to_string()]);
    if let Some(idle) = habits.idle {
        command.args(["--idle-ns", &idle.after.as_nanos().to_string()]);
        if idle.means == Means::Rst {
            command.arg("--idle-rst");
        }
    }
    if let Some(limit) = habits.request_limit {
        command.args(["--request-limit", &limit.to_string()]);
    }
    if spec.graceful {
        command.arg("--graceful");
    }
    command
}

/// Starts it, in a process group of its own: the process and where it listens.
fn spawn(command: &mut Command) -> Result<(Child, SocketAddr)> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0);
    let mut child = processes::spawn(command).with_context(|| format!("cannot run {command:?}"))?;
    let mut line = String::new();
    let read = match child.stdout.take() {
        Some(output) => BufReader::new(output)
            .read_line(&mut line)
            .map_err(anyhow::Error::from),
        None => Err(anyhow::anyhow!("no pipe")),
    };
    let address = read.and_then(|_| Ok(line.trim().parse()?));
    if address.is_err() {
        processes::end(&mut child, Signal::KILL, PATIENCE);
    }
    let address = address.context("the backend did not say where it listens")?;
    Ok((child, address))
}
