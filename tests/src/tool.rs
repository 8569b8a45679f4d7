//! The command under test, from outside: its arguments, exit status and output.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::clock::PATIENCE;
use crate::processes;

/// Beginning of the line on stderr after which a capture misses nothing.
pub const CAPTURING: &str = "capturing";

/// The command, from the environment variable `WHOCLOSED`.
///
/// # Errors
/// If the variable is unset or names no file.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::var_os("WHOCLOSED").map(PathBuf::from).context(
        "the environment variable WHOCLOSED must hold the path of the command under test; \
         `cargo xtask test` and `cargo xtask demo` build it and set this",
    )?;
    if !path.is_file() {
        bail!("WHOCLOSED names {}, which is no file", path.display());
    }
    path.canonicalize()
        .with_context(|| format!("cannot resolve {}", path.display()))
}

/// What a finished command left.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its status.
    pub status: ExitStatus,
    /// Its stdout.
    pub stdout: Vec<u8>,
    /// Its stderr.
    pub stderr: String,
}

impl Finished {
    /// stdout as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// This, if it exited with 0.
    ///
    /// # Errors
    /// Otherwise; the message carries its stderr.
    pub fn succeeded(self) -> Result<Self> {
        if !self.status.success() {
            bail!(
                "the command failed ({}): {}",
                self.status,
                self.stderr.trim()
            );
        }
        Ok(self)
    }
}

/// Runs the command to its end.
///
/// # Errors
/// If it cannot be started or does not end.
pub fn run<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Result<Finished> {
    let mut command = Command::new(binary()?);
    command.args(arguments);
    finish(&mut command)
}

/// Runs any command to its end, nothing on its stdin.
///
/// # Errors
/// If it cannot be started or has not ended after a minute and [`PATIENCE`].
pub fn finish(command: &mut Command) -> Result<Finished> {
    Running::start(command)?.wait(Duration::from_secs(60) + PATIENCE)
}

/// A capture that is under way; dropping it kills it.
#[derive(Debug)]
pub struct Capture {
    running: Running,
    output: PathBuf,
}

impl Capture {
    /// Starts `capture --nginx MASTER --output OUTPUT` with more arguments and waits
    /// until it follows nginx. It would run for ten minutes: see [`Capture::finish`].
    ///
    /// # Errors
    /// If it ends, or never says that it captures.
    pub fn start(master: u32, output: &Path, more: &[&str]) -> Result<Self> {
        Self::start_of(&["--nginx", &master.to_string()], output, more)
    }

    /// Starts `capture --role backend --port PORT --output OUTPUT` likewise.
    ///
    /// # Errors
    /// As [`Capture::start`].
    pub fn of_backend(port: u16, output: &Path) -> Result<Self> {
        Self::of_backends(&["--port", &port.to_string()], output)
    }

    /// As [`Capture::of_backend`], with the command as the caller calls it.
    ///
    /// # Errors
    /// As [`Capture::start`].
    pub fn of_backend_as(command: Command, port: u16, output: &Path) -> Result<Self> {
        let which = ["--role", "backend", "--port", &port.to_string()];
        Self::start_with(command, &which, output, &[])
    }

    /// The same with other arguments that say which connections.
    ///
    /// # Errors
    /// As [`Capture::start`].
    pub fn of_backends(which: &[&str], output: &Path) -> Result<Self> {
        Self::start_of(&["--role", "backend"], output, which)
    }

    /// The same of every nginx whose binary has this name.
    ///
    /// # Errors
    /// As [`Capture::start`].
    pub fn start_named(name: &str, output: &Path, more: &[&str]) -> Result<Self> {
        Self::start_of(&["--process-name", name], output, more)
    }

    /// As [`Capture::start`], with the command as the caller calls it.
    ///
    /// # Errors
    /// As [`Capture::start`].
    pub fn start_as(command: Command, master: u32, output: &Path) -> Result<Self> {
        Self::start_with(command, &["--nginx", &master.to_string()], output, &[])
    }

    /// As [`Capture::start_named`], with the command as the caller calls it.
    ///
    /// # Errors
    /// As [`Capture::start`].
    pub fn start_named_as(
        command: Command,
        name: &str,
        output: &Path,
        more: &[&str],
    ) -> Result<Self> {
        Self::start_with(command, &["--process-name", name], output, more)
    }

    fn start_of(which: &[&str], output: &Path, more: &[&str]) -> Result<Self> {
        let command = processes::bound_to_us(&binary()?);
        Self::start_with(command, which, output, more)
    }

    fn start_with(
        mut command: Command,
        which: &[&str],
        output: &Path,
        more: &[&str],
    ) -> Result<Self> {
        command.args(["capture", "--duration", "600s"]).args(which);
        command.arg("--output").arg(output).args(more);
        let mut running = Running::start(&mut command)?;
        running.await_line(CAPTURING)?;
        Ok(Self {
            running,
            output: output.to_owned(),
        })
    }

    /// The command's pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.child.id()
    }

    /// The trace.
    #[must_use]
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// Ends it as Ctrl-C does and returns what it left.
    ///
    /// # Errors
    /// If it does not end.
    pub fn finish(self) -> Result<Finished> {
        self.end_with(Signal::INT)
    }

    /// Ends it with this signal.
    ///
    /// # Errors
    /// If it does not end.
    pub fn end_with(self, signal: Signal) -> Result<Finished> {
        processes::signal(self.pid(), signal)?;
        self.running.wait(PATIENCE)
    }

    /// The same as [`Capture::finish`] of a capture that has much to judge.
    ///
    /// # Errors
    /// If it has not ended after `patience`.
    pub fn finish_within(self, patience: Duration) -> Result<Finished> {
        processes::signal(self.pid(), Signal::INT)?;
        self.running.wait(patience)
    }
}

/// A child whose output is read as it comes; dropping it kills it.
#[derive(Debug)]
struct Running {
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    lines: Receiver<String>,
    stderr: String,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let (sender, lines) = channel();
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        // Owned before anything else can fail.
        let mut running = Self {
            child,
            stdout: None,
            lines,
            stderr: String::new(),
        };
        running.stdout = Some(
            thread::Builder::new()
                .name("stdout".into())
                .spawn(move || {
                    let mut bytes = Vec::new();
                    if let Some(mut stdout) = stdout {
                        // What came before an error is still worth comparing.
                        let _ = stdout.read_to_end(&mut bytes);
                    }
                    bytes
                })?,
        );
        thread::Builder::new()
            .name("stderr".into())
            .spawn(move || {
                let Some(stderr) = stderr else { return };
                let mut stderr = BufReader::new(stderr);
                let mut line = Vec::new();
                while stderr
                    .read_until(b'\n', &mut line)
                    .is_ok_and(|read| read > 0)
                {
                    if sender
                        .send(String::from_utf8_lossy(&line).into_owned())
                        .is_err()
                    {
                        return;
                    }
                    line.clear();
                }
            })?;
        Ok(running)
    }

    fn await_line(&mut self, beginning: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let found = line.starts_with(beginning);
                    self.stderr += &line;
                    if found {
                        return Ok(());
                    }
                }
                Err(_) => bail!(
                    "the command never said {beginning:?} on stderr, but: {}",
                    self.stderr.trim()
                ),
            }
        }
    }

    fn wait(mut self, patience: Duration) -> Result<Finished> {
        let deadline = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() >= deadline {
                bail!("the command has not ended after {patience:?}");
            }
            thread::sleep(Duration::from_millis(2));
        };
        let stdout = match self.stdout.take().map(JoinHandle::join) {
            Some(Ok(stdout)) => stdout,
            _ => bail!("the command's stdout could not be read"),
        };
        let mut stderr = std::mem::take(&mut self.stderr);
        // Ends when the command's end closed the pipe.
        stderr.extend(self.lines.iter());
        Ok(Finished {
            status,
            stdout,
            stderr,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_status_and_both_outputs_are_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 2"]);
        let finished = finish(&mut command).unwrap();
        assert_eq!(finished.status.code(), Some(2));
        assert_eq!(finished.text(), "out\n");
        assert_eq!(finished.stderr, "err\n");
        assert!(
            finished
                .succeeded()
                .unwrap_err()
                .to_string()
                .contains("err")
        );
    }

    #[test]
    fn a_command_that_ends_before_its_line_is_told_with_what_it_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2"]);
        let error = Running::start(&mut command)
            .unwrap()
            .await_line(CAPTURING)
            .unwrap_err();
        assert!(error.to_string().contains("no such thing"));
    }
}
