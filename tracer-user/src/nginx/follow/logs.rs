//! All logs that a capture follows, each file once, with one watch on their directories.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use anyhow::Result;

use super::watch::{Happened, Watch};
use super::{Counts, Follower};
use crate::nginx::processes::Root;
use crate::trace::record::Line;

/// Logs being followed.
#[derive(Debug, Default)]
pub struct Logs {
    followers: Vec<Follower>,
    /// For each that did not exist at first: its root and path, to know it again.
    expected: Vec<((u64, u64), String)>,
    /// `None` if the host has no more inotify instances: then the paths alone are
    /// looked at, and a file that stands there between two looks is not seen.
    watch: Option<Watch>,
}

impl Logs {
    /// No logs yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            followers: Vec::new(),
            expected: Vec::new(),
            watch: Watch::new().ok(),
        }
    }

    /// Follows one more log from its present end, or from its start once it is created.
    /// `path` is as nginx sees it, absolute; `root` is nginx's root directory,
    /// `/proc/PID/root`. A file that is followed already, by whatever name, is not
    /// followed twice. Returns whether it exists.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is not a regular file (a link to `/dev/stderr` in a
    /// container is not).
    pub fn follow(&mut self, path: &str, root: &Path, master_pid: u32) -> Result<bool> {
        let follower = Follower::open(path, root, master_pid, self.watch.as_ref())?;
        let Some(identity) = follower.identity() else {
            let expected = (Root::open(root)?.identity(Path::new("/"))?, path.to_owned());
            if !self.expected.contains(&expected) {
                self.expected.push(expected);
                self.followers.push(follower);
            }
            return Ok(false);
        };
        if !self
            .followers
            .iter()
            .any(|known| known.identity() == Some(identity))
        {
            self.followers.push(follower);
        }
        Ok(true)
    }

    /// Appends the records that have become complete since the last call; returns what
    /// went wrong.
    pub fn poll(&mut self, now_ns: u64, out: &mut Vec<Line>) -> Vec<anyhow::Error> {
        self.each(|follower, told| follower.poll(now_ns, told, out))
    }

    /// Gives out all that was held back, a line without its end too. Nothing is read
    /// afterwards.
    pub fn finish(&mut self, now_ns: u64, out: &mut Vec<Line>) -> Vec<anyhow::Error> {
        self.each(|follower, told| follower.finish(now_ns, told, out))
    }

    /// Is there more to read at once? One poll reads a bounded part of a burst.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.followers.iter().any(|follower| follower.behind)
    }

    /// Readable when something has happened in a log's directory: a rotation begins.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(|watch| watch.as_fd())
    }

    /// Is no log followed?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.followers.is_empty()
    }

    /// What the followers went through, in all.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for counts in self.followers.iter().map(|follower| follower.counts) {
            sum.bytes += counts.bytes;
            sum.records += counts.records;
            sum.rotations += counts.rotations;
            sum.truncations += counts.truncations;
            sum.recovered += counts.recovered;
            sum.missed += counts.missed;
            sum.cut += counts.cut;
            sum.abandoned += counts.abandoned;
        }
        sum
    }

    fn each(
        &mut self,
        mut poll: impl FnMut(&mut Follower, Option<(&Watch, &Happened)>) -> Result<()>,
    ) -> Vec<anyhow::Error> {
        let mut errors = Vec::new();
        let happened = match self.watch.as_ref().map(Watch::happened).transpose() {
            Ok(happened) => happened.unwrap_or_default(),
            Err(error) => {
                errors
                    .push(anyhow::Error::new(error).context("cannot watch the logs' directories"));
                self.watch = None;
                Happened::default()
            }
        };
        let told = self.watch.as_ref().map(|watch| (watch, &happened));
        for follower in &mut self.followers {
            errors.extend(poll(follower, told).err());
        }
        errors
    }
}
