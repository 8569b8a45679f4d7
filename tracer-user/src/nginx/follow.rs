//! Follows a log file from its end, through rotation by rename and by truncation,
//! and cuts it into records: physical lines with their continuation lines.
//!
//! It polls: the caller says how often. What a record means is
//! [`super::line`]'s.

mod record;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use self::record::Assembler;
use super::processes::Root;
use crate::trace::record::Line;

/// A renamed file is let go when it brought nothing for so long and its successor
/// has content. nginx writes to it until each worker has handled USR1.
const OLD_FILE_QUIET_NS: u64 = 10_000_000_000;
/// More renamed files than this are not kept open.
const MOST_OLD_FILES: usize = 4;
/// One poll reads at most so much of one file, to stay responsive.
const MOST_BYTES_A_POLL: usize = 16 << 20;
const CHUNK: usize = 64 << 10;
/// Bytes before the read offset that are compared to notice a truncated file that
/// has grown past that offset again.
const FINGERPRINT: usize = 64;

/// What a follower went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes read.
    pub bytes: u64,
    /// Records given out.
    pub records: u64,
    /// Times that the path led to another file.
    pub rotations: u64,
    /// Times that the file was found truncated: what was written to it between the
    /// last poll and the truncation is lost, and nobody knows how much that was.
    pub truncations: u64,
    /// Records cut in pieces because they were longer than 64 KiB.
    pub cut: u64,
    /// Renamed files let go while nginx may still have written to them.
    pub abandoned: u64,
}

/// Follows one log file.
#[derive(Debug)]
pub struct Follower {
    path: String,
    root: Root,
    master_pid: u32,
    current: Option<Source>,
    old: Vec<Source>,
    counts: Counts,
    finished: bool,
}

/// One open file.
#[derive(Debug)]
struct Source {
    file: File,
    identity: (u64, u64),
    offset: u64,
    /// The bytes before `offset`, as they were read.
    fingerprint: Vec<u8>,
    assembler: Assembler,
    last_bytes_ns: u64,
}

/// Does a physical line start a record: `YYYY/MM/DD HH:MM:SS [`, or `{"time":"` of
/// Angie's JSON?
pub fn starts_record(line: &[u8]) -> bool {
    const SHAPE: &[u8] = b"dddd/dd/dd dd:dd:dd [";
    if line.starts_with(b"{\"time\":\"") {
        return true;
    }
    line.len() >= SHAPE.len()
        && SHAPE.iter().zip(line).all(|(&shape, &byte)| match shape {
            b'd' => byte.is_ascii_digit(),
            _ => byte == shape,
        })
}

impl Follower {
    /// Follows a file from its present end. `path` is as nginx sees it, absolute;
    /// `root` is nginx's root directory, `/proc/PID/root`.
    ///
    /// # Errors
    ///
    /// The file does not exist, cannot be read or is not a regular file (a link to
    /// `/dev/stderr` in a container is not).
    pub fn open_at_end(path: &str, root: &Path, master_pid: u32) -> Result<Self> {
        let mut follower = Self::open_when_created(path, root, master_pid)?;
        let source = Source::open(&follower.root, Path::new(path))
            .with_context(|| format!("cannot follow the error log {path}"))?;
        follower.current = Some(source.at_end()?);
        Ok(follower)
    }

    /// Follows a file that does not exist yet, from its start once it does.
    ///
    /// # Errors
    ///
    /// `root` cannot be opened, or `path` is not absolute.
    pub fn open_when_created(path: &str, root: &Path, master_pid: u32) -> Result<Self> {
        if !path.starts_with('/') {
            bail!("the error log's path {path:?} is not absolute");
        }
        let root = Root::open(root)
            .with_context(|| format!("cannot open nginx's root directory {}", root.display()))?;
        Ok(Self {
            path: path.to_owned(),
            root,
            master_pid,
            current: None,
            old: Vec::new(),
            counts: Counts::default(),
            finished: false,
        })
    }

    /// The path as nginx sees it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Device and inode number of the file being followed, to follow it once if two
    /// paths lead to it. `None` until it exists.
    pub fn identity(&self) -> Option<(u64, u64)> {
        self.current.as_ref().map(|source| source.identity)
    }

    /// What it went through so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Appends the records that have become complete since the last call. The newest
    /// record waits until the next one begins or a poll brings nothing.
    ///
    /// # Errors
    ///
    /// A file cannot be looked at or read. What was read before is in `out`, and
    /// calling again goes on from there.
    pub fn poll(&mut self, now_ns: u64, out: &mut Vec<Line>) -> Result<()> {
        if self.finished {
            return Ok(());
        }
        let followed = self.follow_path(now_ns);
        let read = self.read_all(now_ns, out);
        self.let_go(now_ns, out);
        followed
            .and(read)
            .with_context(|| format!("cannot follow the error log {}", self.path))
    }

    /// Reads to the end and gives out all that was held back, a line without its end
    /// too. Nothing is read afterwards.
    ///
    /// # Errors
    ///
    /// As [`Follower::poll`]; `out` is complete as far as could be read.
    pub fn finish(&mut self, now_ns: u64, out: &mut Vec<Line>) -> Result<()> {
        let polled = self.poll(now_ns, out);
        self.finished = true;
        for source in self.old.drain(..).chain(self.current.take()) {
            let mut sink = Sink::new(&self.path, self.master_pid, &mut self.counts, out);
            source.finish(now_ns, &mut sink);
        }
        polled
    }

    /// Looks where the path leads now.
    fn follow_path(&mut self, now_ns: u64) -> io::Result<()> {
        let path = Path::new(&self.path);
        let identity = match self.root.identity(path) {
            Ok(identity) => identity,
            // Renamed, and no successor yet: nginx still writes to the old file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.identity() == Some(identity) {
            return Ok(());
        }
        // An old file may have been renamed back.
        let known = self
            .old
            .iter()
            .position(|source| source.identity == identity);
        let mut next = match known {
            Some(at) => self.old.remove(at),
            None => Source::open(&self.root, path)?,
        };
        next.last_bytes_ns = now_ns;
        if let Some(mut previous) = self.current.replace(next) {
            previous.last_bytes_ns = now_ns;
            self.old.push(previous);
            self.counts.rotations += 1;
        }
        Ok(())
    }

    fn read_all(&mut self, now_ns: u64, out: &mut Vec<Line>) -> io::Result<()> {
        let mut result = Ok(());
        for source in self.old.iter_mut().chain(self.current.as_mut()) {
            let mut sink = Sink::new(&self.path, self.master_pid, &mut self.counts, out);
            result = result.and(source.poll(now_ns, &mut sink));
        }
        result
    }

    /// Closes renamed files that nothing more is expected from.
    fn let_go(&mut self, now_ns: u64, out: &mut Vec<Line>) {
        let succeeded = self
            .current
            .as_ref()
            .is_some_and(|source| source.offset > 0);
        let mut at = 0;
        while at < self.old.len() {
            let quiet_ns = now_ns.saturating_sub(self.old[at].last_bytes_ns);
            let too_many = self.old.len() > MOST_OLD_FILES;
            if too_many || (succeeded && quiet_ns >= OLD_FILE_QUIET_NS) {
                self.counts.abandoned += u64::from(too_many);
                let mut sink = Sink::new(&self.path, self.master_pid, &mut self.counts, out);
                self.old.remove(at).finish(now_ns, &mut sink);
            } else {
                at += 1;
            }
        }
    }
}

impl Source {
    fn open(root: &Root, path: &Path) -> io::Result<Self> {
        let file = root.file(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(Self {
            file,
            identity: (metadata.dev(), metadata.ino()),
            offset: 0,
            fingerprint: Vec::new(),
            assembler: Assembler::default(),
            last_bytes_ns: 0,
        })
    }

    fn at_end(mut self) -> io::Result<Self> {
        let size = self.file.metadata()?.size();
        let known = size.min(FINGERPRINT as u64);
        let mut tail = [0; FINGERPRINT];
        let length = self.file.read_at(&mut tail, size - known)?;
        self.fingerprint.extend_from_slice(&tail[..length]);
        self.offset = size - known + length as u64;
        Ok(self)
    }

    fn poll(&mut self, now_ns: u64, sink: &mut Sink<'_>) -> io::Result<()> {
        let size = self.file.metadata()?.size();
        if size < self.offset || (size > self.offset && !self.fingerprint_matches()?) {
            sink.counts.truncations += 1;
            self.assembler.finish(self.offset, now_ns, sink);
            self.offset = 0;
            self.fingerprint.clear();
        }
        let mut chunk = vec![0; CHUNK];
        let mut total = 0;
        while total < MOST_BYTES_A_POLL {
            let length = match self.file.read_at(&mut chunk, self.offset) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let bytes = &chunk[..length];
            self.assembler.push(self.offset, bytes, now_ns, sink);
            self.offset += length as u64;
            self.remember(bytes);
            total += length;
        }
        if total == 0 {
            self.assembler.quiet(sink);
        } else {
            self.last_bytes_ns = now_ns;
            sink.counts.bytes += total as u64;
        }
        Ok(())
    }

    fn remember(&mut self, bytes: &[u8]) {
        self.fingerprint
            .extend_from_slice(&bytes[bytes.len().saturating_sub(FINGERPRINT)..]);
        let excess = self.fingerprint.len().saturating_sub(FINGERPRINT);
        self.fingerprint.drain(..excess);
    }

    fn fingerprint_matches(&self) -> io::Result<bool> {
        let mut now = [0; FINGERPRINT];
        let now = &mut now[..self.fingerprint.len()];
        let length = self
            .file
            .read_at(now, self.offset - self.fingerprint.len() as u64)?;
        Ok(now[..length] == self.fingerprint[..])
    }

    fn finish(mut self, now_ns: u64, sink: &mut Sink<'_>) {
        self.assembler.finish(self.offset, now_ns, sink);
    }
}

/// Where records go.
struct Sink<'a> {
    path: &'a str,
    master_pid: u32,
    counts: &'a mut Counts,
    out: &'a mut Vec<Line>,
}

impl<'a> Sink<'a> {
    fn new(path: &'a str, master_pid: u32, counts: &'a mut Counts, out: &'a mut Vec<Line>) -> Self {
        Self {
            path,
            master_pid,
            counts,
            out,
        }
    }

    fn line(&mut self, offset: u64, read_ns: u64, bytes: Vec<u8>) {
        let (text, latin1) = decoded(bytes);
        self.counts.records += 1;
        let (file, master_pid) = (self.path.to_owned(), self.master_pid);
        self.out.push(Line {
            file,
            offset,
            master_pid,
            read_ns,
            text,
            latin1,
            pid: None,
        });
    }
}

/// A line's text, and whether its bytes are no UTF-8 and stand as code points.
pub fn decoded(bytes: Vec<u8>) -> (String, bool) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, false),
        Err(error) => {
            let bytes = error.as_bytes().iter();
            (bytes.map(|&byte| char::from(byte)).collect(), true)
        }
    }
}

#[cfg(test)]
mod tests;
