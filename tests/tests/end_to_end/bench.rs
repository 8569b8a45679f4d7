//! What the tests share: one at a time, an nginx with a capture, and a second opinion
//! for everything that has to hold.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lab::clock::{PATIENCE, wait_for};
use lab::nginx::{Configuration, Nginx};
use lab::sockets::{self, State};
use lab::tool::{self, Capture, Finished};
use lab::verdicts::Report;
use rustix::process::Signal;
use tempfile::TempDir;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Waits for the other tests to end.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    // A test that failed says nothing about this one.
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An nginx that is being captured.
pub(crate) struct Bench {
    // Dropped in this order: the capture before what it watches.
    capture: Option<Capture>,
    pub(crate) nginx: Nginx,
    folder: TempDir,
}

impl Bench {
    #[track_caller]
    pub(crate) fn start(configuration: &Configuration, more: &[&str]) -> Self {
        Self::before(Nginx::start(configuration).unwrap(), more)
    }

    /// A capture of this nginx.
    #[track_caller]
    pub(crate) fn before(nginx: Nginx, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("trace");
        let capture = Capture::start(nginx.master_pid(), &output, more).unwrap();
        Self {
            capture: Some(capture),
            nginx,
            folder,
        }
    }

    /// A capture of this nginx by a command that the caller makes, which may write in its
    /// folder.
    #[track_caller]
    pub(crate) fn by(nginx: Nginx, make: impl FnOnce(&TempDir) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let output = folder.path().join("trace");
        let command = make(&folder);
        let capture = Capture::start_as(command, nginx.master_pid(), &output).unwrap();
        Self {
            capture: Some(capture),
            nginx,
            folder,
        }
    }

    pub(crate) fn trace(&self) -> PathBuf {
        self.folder.path().join("trace")
    }

    pub(crate) fn folder(&self) -> &TempDir {
        &self.folder
    }

    #[track_caller]
    pub(crate) fn capture(&self) -> &Capture {
        self.capture.as_ref().unwrap()
    }

    /// Waits until nginx has no open connection to this backend.
    #[track_caller]
    pub(crate) fn wait_until_closed(&self, backend: SocketAddr) {
        wait_for("nginx to close its connections", PATIENCE, || {
            let open = sockets::towards(backend)?;
            let open = open
                .iter()
                .any(|socket| [State::ESTABLISHED, State::CLOSE_WAIT].contains(&socket.state));
            Ok((!open).then_some(()))
        })
        .unwrap();
    }

    /// Ends the capture as Ctrl-C does; what it printed.
    #[track_caller]
    pub(crate) fn finish(&mut self) -> Finished {
        self.capture
            .take()
            .unwrap()
            .finish()
            .unwrap()
            .succeeded()
            .unwrap()
    }

    /// The same of a capture that has much to judge.
    #[track_caller]
    pub(crate) fn finish_within(&mut self, patience: Duration) -> Finished {
        let capture = self.capture.take().unwrap();
        let finished = capture.finish_within(patience);
        finished.unwrap().succeeded().unwrap()
    }

    /// Kills the capture.
    #[track_caller]
    pub(crate) fn kill(&mut self) -> Finished {
        self.end_with(Signal::KILL)
    }

    /// Ends the capture with this signal.
    #[track_caller]
    pub(crate) fn end_with(&mut self, signal: Signal) -> Finished {
        self.capture.take().unwrap().end_with(signal).unwrap()
    }

    /// Ends the capture and reads its report; nothing may have been lost. A program's
    /// run that the kernel skipped is no loss of the capture's alone: it may have been
    /// for any socket of this host, and a busy host skips some.
    #[track_caller]
    pub(crate) fn report(&mut self) -> Report {
        self.finish();
        let report = report(&self.trace());
        let (skipped, lost): (BTreeMap<_, _>, BTreeMap<_, _>) = report
            .capture
            .lost
            .iter()
            .partition(|(what, _)| what.starts_with("missed_runs:"));
        assert!(lost.is_empty(), "lost: {lost:?}");
        if !skipped.is_empty() {
            // Seen if the test fails.
            println!("skipped by the kernel: {skipped:?}");
        }
        assert!(report.capture.complete, "the trace has no end");
        report
    }
}

/// The report of a trace.
#[track_caller]
pub(crate) fn report(trace: &std::path::Path) -> Report {
    let trace = trace.to_str().unwrap();
    let finished = tool::run(["report", trace, "--format", "json"])
        .unwrap()
        .succeeded()
        .unwrap();
    let report = Report::parse(&finished.stdout).unwrap();
    assert_eq!(report.schema, "whoclosed.report/1");
    report
}

/// The records of one kind in a trace, in its order.
#[track_caller]
pub(crate) fn records(trace: &std::path::Path, kind: &str) -> Vec<serde_json::Value> {
    let file = std::fs::File::open(trace).unwrap();
    let text = std::io::read_to_string(zstd::Decoder::new(file).unwrap()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|record| record["kind"] == kind)
        .collect()
}
