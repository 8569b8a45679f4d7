//! A server's processes, in a folder and on a port of their own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::clock::{PATIENCE, wait_for};
use crate::nginx::free_port;
use crate::processes;

/// How often another port is tried if the server does not start on the chosen one.
const ATTEMPTS: u16 = 4;

/// A running server; dropping it ends its processes.
#[derive(Debug)]
pub struct Process {
    // Dropped in this order: the processes before their files.
    group: Group,
    address: SocketAddr,
    folder: TempDir,
}

#[derive(Debug)]
struct Group(Child);

impl Process {
    /// Starts what `command` makes for an address and a folder, and waits until it
    /// accepts connections. Its output goes to the file `log` in the folder, which is
    /// its working folder and which any user may write to.
    ///
    /// # Errors
    /// If it does not start; the message carries what it said.
    pub fn start(command: impl Fn(SocketAddr, &Path) -> Result<Command>) -> Result<Self> {
        let mut attempt = 0;
        loop {
            let started = Self::attempt(attempt, &command);
            attempt += 1;
            match started {
                Err(_) if attempt < ATTEMPTS => {}
                started => return started,
            }
        }
    }

    fn attempt(
        attempt: u16,
        command: impl Fn(SocketAddr, &Path) -> Result<Command>,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("whoclosed-lab-")
            .tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(attempt)?));
        let log = File::create(folder.path().join("log"))?;
        let mut command = command(address, folder.path())?;
        let child = command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C at a terminal is for whoever started the lab, who then ends it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let mut started = Self {
            group: Group(child),
            address,
            folder,
        };
        started.await_service()?;
        Ok(started)
    }

    fn await_service(&mut self) -> Result<()> {
        let address = self.address;
        let child = &mut self.group.0;
        let log = self.folder.path().join("log");
        wait_for("a server to serve", PATIENCE * 2, || {
            if let Some(status) = child.try_wait()? {
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("it ended ({status}): {}", said.trim());
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
            Ok(TcpStream::connect(address).ok().map(drop))
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A file of its folder.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// A file of its folder as text; nothing if there is none.
    #[must_use]
    pub fn text(&self, file: &str) -> String {
        let bytes = fs::read(self.path(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        processes::end(&mut self.0, Signal::TERM, PATIENCE / 4);
        // Its children that have not gone by themselves.
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_ends_at_once_is_told_with_what_it_said() {
        let error = Process::attempt(0, |_, _| {
            let mut command = Command::new("sh");
            command.args(["-c", "echo no such directive >&2; exit 3"]);
            Ok(command)
        })
        .unwrap_err();
        assert!(error.to_string().contains("no such directive"));
    }
}
