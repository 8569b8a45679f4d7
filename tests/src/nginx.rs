//! A real nginx of the lab's own: own prefix, own configuration, own ports, and no
//! process of it left when it is dropped.

mod configuration;
mod daemon;

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tempfile::TempDir;

pub use configuration::{Configuration, Upstream};
pub use daemon::Daemon;

use crate::clock::{PATIENCE, wait_for};
use crate::container;
use crate::processes::{self, Stopped};

/// How often another port is tried if somebody took the chosen one.
const PORT_ATTEMPTS: u16 = 20;
/// Ports to choose from: above the usual services, below the range that the kernel
/// gives to outgoing connections (net.ipv4.ip_local_port_range begins at 32768).
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A running nginx; dropping it ends master and workers.
#[derive(Debug)]
pub struct Nginx {
    // Dropped in this order: the processes before their files.
    master: Master,
    address: SocketAddr,
    workers: usize,
    prefix: TempDir,
}

/// The nginx to run: `WHOCLOSED_NGINX`, else the one that `cargo xtask setup`
/// unpacked, else the system's binary (never its configuration).
///
/// # Errors
/// If there is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WHOCLOSED_NGINX") {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("WHOCLOSED_NGINX names {}, which is no file", path.display());
        }
        return Ok(path);
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    if let Some(cache) = cache {
        let unpacked = cache.join("whoclosed/tools/nginx/usr/sbin/nginx");
        if unpacked.is_file() {
            return Ok(unpacked);
        }
    }
    processes::which("nginx").context(
        "no nginx: run `cargo xtask setup`, or name a binary in the environment variable WHOCLOSED_NGINX",
    )
}

/// What the main context of a configuration has to begin with for `stream` blocks: nothing
/// if this nginx was built with them, else the line that loads them as a module.
///
/// # Errors
/// If it has them neither way.
pub fn stream_loader() -> Result<String> {
    let binary = binary()?;
    let output = std::process::Command::new(&binary).arg("-V").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.split_whitespace().any(|word| word == "--with-stream") {
        return Ok(String::new());
    }
    const MODULE: &str = "usr/lib/nginx/modules/ngx_stream_module.so";
    // Beside an unpacked nginx (`TOOLS/nginx/usr/sbin/nginx`), or the system's.
    let root = binary.ancestors().nth(3).unwrap_or(Path::new("/"));
    let beside = root.with_file_name("nginx-stream");
    let module = [beside.join(MODULE), root.join(MODULE)]
        .into_iter()
        .find(|module| module.is_file())
        .with_context(|| {
            format!(
                "{} has no stream module: run `cargo xtask setup`",
                binary.display()
            )
        })?;
    Ok(format!("load_module {};\n", module.display()))
}

impl Nginx {
    /// Starts it and waits until it accepts and its workers run.
    ///
    /// # Errors
    /// If it does not start; the message carries what it said.
    pub fn start(configuration: &Configuration) -> Result<Self> {
        Self::start_binary(&binary()?, configuration)
    }

    /// The same with its stderr a pipe; what comes out is kept in `logs/stderr`.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    pub fn start_piped(configuration: &Configuration) -> Result<Self> {
        Self::start_at(&binary()?, configuration, Place::HostPiped)
    }

    /// The same with its stderr a terminal.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    pub fn start_at_terminal(configuration: &Configuration) -> Result<Self> {
        Self::start_at(&binary()?, configuration, Place::HostTerminal)
    }

    /// The same with its stderr a stream socket, as systemd gives its services one that
    /// leads to the journal.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    pub fn start_journalled(configuration: &Configuration) -> Result<Self> {
        Self::start_at(&binary()?, configuration, Place::HostSocket)
    }

    /// The same as [`Nginx::start_piped`] with a binary of the caller's.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    pub fn start_binary_piped(binary: &Path, configuration: &Configuration) -> Result<Self> {
        Self::start_at(binary, configuration, Place::HostPiped)
    }

    /// The same as [`Nginx::start`] with a binary of the caller's.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    pub fn start_binary(binary: &Path, configuration: &Configuration) -> Result<Self> {
        Self::start_at(binary, configuration, Place::Host)
    }

    /// The same at a place, with the calling thread in that place's network.
    pub(crate) fn start_at(
        binary: &Path,
        configuration: &Configuration,
        place: Place,
    ) -> Result<Self> {
        let prefix = prepared_prefix()?;
        for attempt in 0..PORT_ATTEMPTS {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(attempt)?));
            fs::write(
                prefix.path().join("nginx.conf"),
                configuration.text(address),
            )?;
            let said = prefix.path().join("logs/stderr");
            let mut command = if place == Place::Container {
                container::command(binary, prefix.path())?
            } else {
                let mut command = processes::bound_to_us(binary);
                command.arg("-p").arg(prefix.path());
                command.args(["-e", "logs/error.log", "-c", "nginx.conf"]);
                command
            };
            let file = File::create(&said)?;
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                // Ctrl-C at a terminal is for whoever started the lab, who then ends nginx.
                .process_group(0);
            let mut other_end = None;
            let mut child = match place {
                Place::Host => command.stderr(file.try_clone()?).spawn(),
                Place::HostPiped => command.stderr(Stdio::piped()).spawn(),
                Place::HostTerminal => {
                    let (ours, its) = terminal()?;
                    other_end = Some(ours);
                    command.stderr(its).spawn()
                }
                Place::HostSocket => {
                    let (ours, its) = UnixStream::pair()?;
                    other_end = Some(OwnedFd::from(ours));
                    command.stderr(OwnedFd::from(its)).spawn()
                }
                Place::Container => Ok(container::spawn(command.stderr(Stdio::piped()))?),
            }
            .with_context(|| format!("cannot run {}", binary.display()))?;
            // A copy of the end that is nginx's would keep the reader waiting.
            drop(command);
            if let Some(pipe) = child.stderr.take() {
                other_end = Some(OwnedFd::from(pipe));
            }
            if let Some(other_end) = other_end {
                keep(File::from(other_end), file)?;
            }
            let mut master = Master(child);
            let workers = usize::from(configuration.workers);
            if master.serves(address, workers, &said)? {
                return Ok(Self {
                    master,
                    address,
                    workers,
                    prefix,
                });
            }
        }
        bail!("found no free port for nginx in {PORT_ATTEMPTS} attempts")
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The master's pid.
    #[must_use]
    pub fn master_pid(&self) -> u32 {
        self.master.0.id()
    }

    /// The workers' pids.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn workers(&self) -> Result<Vec<u32>> {
        processes::children(self.master_pid())
    }

    /// Its error log.
    #[must_use]
    pub fn error_log(&self) -> PathBuf {
        self.prefix.path().join("logs/error.log")
    }

    /// What it said on stderr.
    #[must_use]
    pub fn stderr(&self) -> PathBuf {
        self.prefix.path().join("logs/stderr")
    }

    /// Its access log: `lab` format of [`Configuration`].
    #[must_use]
    pub fn access_log(&self) -> PathBuf {
        self.prefix.path().join("logs/access.log")
    }

    /// Its prefix.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        self.prefix.path()
    }

    /// Lines of the error log that name an upstream: what a capture has to explain.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn upstream_lines(&self) -> Result<Vec<String>> {
        Self::upstream_lines_of(&self.error_log())
    }

    /// The same of another log.
    ///
    /// # Errors
    /// As [`Nginx::upstream_lines`].
    pub fn upstream_lines_of(log: &Path) -> Result<Vec<String>> {
        let bytes = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
        Ok(String::from_utf8_lossy(&bytes)
            .lines()
            .filter(|line| line.contains(", upstream: \""))
            .map(str::to_owned)
            .collect())
    }

    /// Stops all workers, as a busy host may, until the guard is dropped.
    ///
    /// # Errors
    /// If one does not stop.
    pub fn stop_workers(&self) -> Result<Stopped> {
        Stopped::stop(&self.workers()?)
    }

    /// Makes it open its logs anew, as after a rotation. Nothing is waited for.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn reopen_logs(&self) -> Result<()> {
        processes::signal(self.master_pid(), Signal::USR1)
    }

    /// Reloads, and waits until new workers are there; returns the old ones, which
    /// may still be finishing.
    ///
    /// # Errors
    /// If no new workers come.
    pub fn reload(&self) -> Result<Vec<u32>> {
        let old = self.workers()?;
        processes::signal(self.master_pid(), Signal::HUP)?;
        wait_for("nginx's new workers", PATIENCE, || {
            let new = self
                .workers()?
                .into_iter()
                .filter(|pid| !old.contains(pid))
                .count();
            Ok((new >= self.workers).then_some(()))
        })?;
        Ok(old)
    }
}

/// Where nginx runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Here, stderr a file.
    Host,
    /// Here, stderr a pipe.
    HostPiped,
    /// Here, stderr a terminal.
    HostTerminal,
    /// Here, stderr a stream socket.
    HostSocket,
    /// In namespaces of its own, stderr a pipe.
    Container,
}

/// A place for an nginx of its own.
fn prepared_prefix() -> Result<TempDir> {
    let prefix = tempfile::Builder::new()
        .prefix("whoclosed-lab-")
        .tempdir()?;
    // Workers run as another user and write their temporary files below it.
    fs::set_permissions(prefix.path(), fs::Permissions::from_mode(0o755))?;
    for folder in ["logs", "temp"] {
        fs::create_dir(prefix.path().join(folder))?;
    }
    Ok(prefix)
}

/// A terminal: the end of whoever looks at it, and the program's.
///
/// # Errors
/// If the host gives none.
pub fn terminal() -> Result<(OwnedFd, File)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).context("no terminal")?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?.into_string()?;
    let its = File::options().read(true).write(true).open(name)?;
    Ok((ours, its))
}

/// Writes what comes out of nginx's stderr to a file, until nginx has gone.
fn keep(mut pipe: File, mut file: File) -> Result<()> {
    std::thread::Builder::new()
        .name("nginx's stderr".into())
        .spawn(move || {
            // A full disk is for whoever reads the file to notice.
            let _ = std::io::copy(&mut pipe, &mut file);
        })?;
    Ok(())
}

/// The master process; dropping it ends it and its workers.
#[derive(Debug)]
struct Master(Child);

impl Master {
    /// Waits until it serves; false if its port was taken.
    fn serves(&mut self, address: SocketAddr, workers: usize, said: &Path) -> Result<bool> {
        wait_for("nginx to serve", PATIENCE, || {
            if let Some(status) = self.0.try_wait()? {
                let mut text = fs::read_to_string(said).unwrap_or_default();
                let log = said.with_file_name("error.log");
                text += &fs::read_to_string(log).unwrap_or_default();
                if text.contains("Address already in use") {
                    return Ok(Some(false));
                }
                bail!("nginx ended at once ({status}): {}", text.trim());
            }
            // One that has just been forked bears its master's title, and is no worker yet
            // to whoever looks for workers.
            let is_worker = |pid: &u32| {
                fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|title| title.starts_with(b"nginx: worker process"))
            };
            let children = processes::children(self.0.id())?;
            let running = children.iter().filter(|&pid| is_worker(pid)).count() >= workers;
            Ok((running && TcpStream::connect(address).is_ok()).then_some(true))
        })
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let workers = processes::children(self.0.id()).unwrap_or_default();
        for &pid in &workers {
            // One that a test left stopped would not hear the master.
            let _ = processes::signal(pid, Signal::CONT);
        }
        processes::end(&mut self.0, Signal::TERM, PATIENCE);
        for pid in workers {
            // The master has waited for them, unless it was killed.
            if processes::status(pid).is_some_and(|status| status.parent == 1) {
                let _ = processes::signal(pid, Signal::KILL);
            }
        }
    }
}

/// A port that nobody has at the moment.
pub(crate) fn free_port(attempt: u16) -> Result<u16> {
    // Different processes begin at different places, so that they seldom meet.
    let id = u16::try_from(std::process::id() % 10_000).unwrap_or(0);
    let time = u16::try_from(crate::clock::now_ns() / 1000 % 10_000).unwrap_or(0);
    let count = PORTS.end - PORTS.start;
    let begin = (id.wrapping_add(time).wrapping_add(attempt * 101)) % count;
    (0..count)
        .map(|step| PORTS.start + (begin + step) % count)
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .context("no free port for nginx")
}
