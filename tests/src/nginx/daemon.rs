//! nginx as a service manager starts it: in the background, known by its pid file, so that
//! it can be stopped and started again at the same place, and its binary upgraded while
//! it serves.

use std::fs;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{Configuration, Nginx, free_port, prepared_prefix};
use crate::clock::{PATIENCE, wait_for};
use crate::processes;

/// A master in the background, and those that have taken its place; dropping it ends all.
#[derive(Debug)]
pub struct Daemon {
    binary: PathBuf,
    prefix: TempDir,
    address: SocketAddr,
    workers: usize,
    /// All masters that were ever started here.
    masters: Vec<u32>,
}

impl Daemon {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(binary: &Path, configuration: &Configuration) -> Result<Self> {
        let prefix = prepared_prefix()?;
        let address = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, free_port(0)?));
        let text = configuration.text(address);
        let text = text.strip_prefix("daemon off;").unwrap_or(&text);
        fs::write(prefix.path().join("nginx.conf"), text)?;
        let mut daemon = Self {
            binary: binary.to_owned(),
            prefix,
            address,
            workers: usize::from(configuration.workers),
            masters: Vec::new(),
        };
        daemon.start_again()?;
        Ok(daemon)
    }

    /// Starts it where it was.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_again(&mut self) -> Result<u32> {
        let output = Command::new(&self.binary)
            .arg("-p")
            .arg(self.prefix.path())
            .args(["-e", "logs/error.log", "-c", "nginx.conf"])
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("nginx did not start: {}", said.trim());
        }
        self.await_master("nginx.pid")
    }

    /// Waits for the master that a pid file names, and its workers.
    fn await_master(&mut self, file: &str) -> Result<u32> {
        let path = self.prefix.path().join(file);
        let master = wait_for("nginx's pid file", PATIENCE, || {
            let pid = fs::read_to_string(&path).ok();
            let pid = pid.and_then(|text| text.trim().parse::<u32>().ok());
            Ok(pid.filter(|pid| !self.masters.contains(pid)))
        })?;
        self.masters.push(master);
        wait_for("nginx to serve", PATIENCE, || {
            let serving = self.workers_of(master)?.len() >= self.workers;
            Ok((serving && TcpStream::connect(self.address).is_ok()).then_some(()))
        })?;
        Ok(master)
    }

    /// The workers of one of its masters: those that bear a worker's title.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn workers_of(&self, master: u32) -> Result<Vec<u32>> {
        let mut workers = processes::children(master)?;
        workers.retain(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|title| title.starts_with(b"nginx: worker process"))
        });
        Ok(workers)
    }

    /// Begins an upgrade: the master starts another, which serves beside it.
    ///
    /// # Errors
    /// If none comes.
    pub fn upgrade(&mut self) -> Result<u32> {
        processes::signal(self.master()?, Signal::USR2)?;
        self.await_master("nginx.pid")
    }

    /// The newest master.
    ///
    /// # Errors
    /// If none was started.
    pub fn master(&self) -> Result<u32> {
        self.masters.last().copied().context("no master")
    }

    /// Waits until a master has no workers.
    ///
    /// # Errors
    /// If they do not go.
    pub fn await_idle(&self, master: u32) -> Result<()> {
        wait_for("nginx's old workers to go", PATIENCE, || {
            Ok(self.workers_of(master)?.is_empty().then_some(()))
        })
    }

    /// Sends a master a signal that ends it, and waits until it has gone.
    ///
    /// # Errors
    /// If it does not go.
    pub fn end(&self, master: u32, signal: Signal) -> Result<()> {
        processes::signal(master, signal)?;
        wait_for("nginx to go", PATIENCE, || {
            Ok((!processes::is_alive(master)).then_some(()))
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its prefix.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        self.prefix.path()
    }

    /// Its error log.
    #[must_use]
    pub fn error_log(&self) -> PathBuf {
        self.prefix.path().join("logs/error.log")
    }

    /// Lines of the error log that name an upstream.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn upstream_lines(&self) -> Result<Vec<String>> {
        Nginx::upstream_lines_of(&self.error_log())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for &master in &self.masters {
            if !processes::is_alive(master) {
                continue;
            }
            let workers = processes::children(master).unwrap_or_default();
            let _ = processes::signal(master, Signal::TERM);
            let gone = wait_for("nginx to go", PATIENCE, || {
                Ok((!processes::is_alive(master)).then_some(()))
            });
            if gone.is_err() {
                for pid in workers.into_iter().chain([master]) {
                    let _ = processes::signal(pid, Signal::KILL);
                }
            }
        }
    }
}
