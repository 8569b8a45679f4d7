//! Processes that fill the processors with sends and receives which have nothing to do with
//! nginx, as on a busy host.
//!
//! What for: from Linux 7.0 on a program of the tool's may be preempted while it runs, and
//! until it goes on the kernel skips its runs for every other task on that processor.
//! Where many send and receive all the time, some of these are nginx's.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::clock::PATIENCE;
use crate::{process_backend, processes};

/// More than these there never are.
pub const MOST_SENDERS: u32 = 64;
/// It ends by itself after so many seconds at the latest.
pub const MOST_SECONDS: u32 = 600;
/// Its program.
const PROGRAM: &str = "whoclosed-crowd";

/// A running crowd; dropping it ends it.
#[derive(Debug)]
pub struct Crowd {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Crowd {
    /// Starts so many senders and waits until they send.
    ///
    /// # Errors
    /// If the program is missing or says nothing.
    pub fn start(senders: u32) -> Result<Self> {
        let program = process_backend::program()?.with_file_name(PROGRAM);
        let mut command = processes::bound_to_us(&program);
        command
            .args([senders, MOST_SECONDS].map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = processes::spawn(&mut command)
            .with_context(|| format!("cannot run {}", program.display()))?;
        let said = child.stdout.take().context("it has no stdout")?;
        let mut crowd = Self {
            child,
            said: BufReader::new(said),
        };
        let mut line = String::new();
        crowd
            .said
            .read_line(&mut line)
            .context("cannot read what the crowd says")?;
        anyhow::ensure!(line == "crowded\n", "the crowd said {line:?} first");
        Ok(crowd)
    }

    /// Ends it; how many sends there were, and as many receives.
    ///
    /// # Errors
    /// If it failed.
    pub fn finish(mut self) -> Result<u64> {
        drop(self.child.stdin.take());
        let mut said = String::new();
        self.said
            .read_to_string(&mut said)
            .context("cannot read what the crowd says")?;
        let sent = said.trim().parse();
        sent.with_context(|| format!("the crowd said {said:?} last"))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        processes::end(&mut self.child, Signal::TERM, PATIENCE);
    }
}
