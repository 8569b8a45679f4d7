//! What a backend does besides that is one of several processes on one listening
//! socket: it accepts only while it works on nothing, so that the others get their
//! share, and drains after its number of answers.

use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::lock;

/// One of several.
pub(super) struct Worker {
    recycle_after: Option<usize>,
    answers: AtomicUsize,
    working: AtomicUsize,
    /// Dropping it makes the other end readable: idle connections and who accepts poll
    /// that.
    drain: Mutex<Option<UnixStream>>,
    draining: UnixStream,
}

impl Worker {
    pub(super) fn new(recycle_after: Option<usize>) -> Result<Self> {
        let (drain, draining) = UnixStream::pair().context("socketpair() for draining")?;
        Ok(Self {
            recycle_after,
            answers: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
            drain: Mutex::new(Some(drain)),
            draining,
        })
    }

    /// Readable once it drains.
    pub(super) const fn draining(&self) -> &UnixStream {
        &self.draining
    }

    pub(super) fn is_draining(&self) -> bool {
        lock(&self.drain).is_none()
    }

    /// It has accepted a connection, whose first request is work too, even before it
    /// comes: the thread that serves it asks for [`Worker::taken`].
    pub(super) fn take(&self) {
        self.working.fetch_add(1, Ordering::AcqRel);
    }

    /// That work lasts until the guard is dropped.
    pub(super) const fn taken(&self) -> Working<'_> {
        Working(self)
    }

    /// It works on a request until the guard is dropped.
    pub(super) fn work(&self) -> Working<'_> {
        self.take();
        Working(self)
    }

    /// One more answer has been given.
    pub(super) fn answered(&self) {
        let answers = self.answers.fetch_add(1, Ordering::AcqRel) + 1;
        if self.recycle_after.is_some_and(|limit| answers >= limit) {
            drop(lock(&self.drain).take());
        }
    }

    /// Waits until it works on nothing, or drains. Every request ends at the latest
    /// with the backend.
    pub(super) fn await_leisure(&self) {
        while self.working.load(Ordering::Acquire) > 0 && !self.is_draining() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// See [`Worker::work`].
pub(super) struct Working<'a>(&'a Worker);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Ordering::AcqRel);
    }
}
