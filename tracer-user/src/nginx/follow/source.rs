//! One open file of a log: where it was read to, and whether it was truncated since.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use super::record::Assembler;
use super::{Sink, starts_record};
use crate::nginx::processes::Root;

/// One poll reads at most so much of one file: a burst must not keep the capture from
/// its ring buffer, and what is read is held in memory until it is judged.
pub(super) const MOST_BYTES_A_POLL: usize = 4 << 20;
const CHUNK: usize = 64 << 10;
/// Bytes before the read offset that are compared to notice a truncated file that has
/// grown past that offset again. A line has at most 2 KiB, so that they hold a whole
/// one: with its client connection's number no two are the same.
const FINGERPRINT: usize = 4096;

/// First bytes that tell one file from another: a whole line.
const HEAD: usize = 2048;

/// The first bytes of a file, of those before `end`.
fn head_of(file: &File, end: u64) -> io::Result<Vec<u8>> {
    let mut head = vec![0; usize::try_from(end).unwrap_or(HEAD).min(HEAD)];
    let length = file.read_at(&mut head, 0)?;
    head.truncate(length);
    Ok(head)
}

/// Is one the beginning of the other? Nothing is no beginning.
fn begin_alike(one: &[u8], other: &[u8]) -> bool {
    let shared = one.len().min(other.len());
    shared > 0 && one[..shared] == other[..shared]
}

/// How far a poll has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Everything there is.
    All,
    /// A bounded part of it.
    Part,
    /// The file no longer holds what was read of it.
    Truncated,
}

/// One open file.
#[derive(Debug)]
pub(super) struct Source {
    file: File,
    pub(super) identity: (u64, u64),
    pub(super) offset: u64,
    /// The first bytes of the file, as they were read.
    head: Vec<u8>,
    /// The same from before it was last truncated: a copy may be told of later.
    former_head: Vec<u8>,
    /// The bytes before `offset`, as they were read.
    fingerprint: Vec<u8>,
    pub(super) assembler: Assembler,
    pub(super) last_bytes_ns: u64,
}

impl Source {
    pub(super) fn open(root: &Root, path: &Path) -> io::Result<Self> {
        Self::of(root.file(path)?)
    }

    pub(super) fn of(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(Self {
            file,
            identity: (metadata.dev(), metadata.ino()),
            offset: 0,
            head: Vec::new(),
            former_head: Vec::new(),
            fingerprint: Vec::new(),
            assembler: Assembler::default(),
            last_bytes_ns: 0,
        })
    }

    pub(super) fn at_end(mut self) -> io::Result<Self> {
        let size = self.file.metadata()?.size();
        let known = size.min(FINGERPRINT as u64);
        let mut tail = vec![0; FINGERPRINT];
        let length = self.file.read_at(&mut tail, size - known)?;
        self.fingerprint.extend_from_slice(&tail[..length]);
        self.offset = size - known + length as u64;
        self.head = head_of(&self.file, self.offset)?;
        Ok(self)
    }

    /// Is this a copy of the file, made when more had been written than was read? It
    /// has the same bytes before the place that was read to. Of a file of which nothing
    /// was read no copy can be told.
    pub(super) fn is_copied_in(&self, copy: &File) -> io::Result<bool> {
        Ok(self.offset > 0
            && copy.metadata()?.size() > self.offset
            && self.fingerprint_matches(copy)?)
    }

    /// Does this hold lines that were written after the last read and were truncated away
    /// since: neither a copy of what was read nor of what the file holds now?
    pub(super) fn is_unread_in(&self, copy: &File) -> io::Result<bool> {
        let then = head_of(copy, u64::MAX)?;
        let now = head_of(&self.file, u64::MAX)?;
        let known = [&self.head, &self.former_head, &now];
        Ok(starts_record(&then) && !known.iter().any(|head| begin_alike(&then, head)))
    }

    /// Takes what a copy has beyond what was read, and begins anew: the file was
    /// truncated. Returns how many bytes the copy gave.
    pub(super) fn begin_anew(
        &mut self,
        copy: Option<&File>,
        now_ns: u64,
        sink: &mut Sink<'_>,
    ) -> io::Result<u64> {
        let mut taken = 0;
        let mut result = Ok(());
        if let Some(copy) = copy {
            let mut chunk = vec![0; CHUNK];
            loop {
                match copy.read_at(&mut chunk, self.offset) {
                    Ok(0) => break,
                    Ok(length) => {
                        self.assembler
                            .push(self.offset, &chunk[..length], now_ns, sink);
                        self.offset += length as u64;
                        taken += length as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
            }
        }
        self.assembler.finish(self.offset, now_ns, sink);
        self.offset = 0;
        if !self.head.is_empty() {
            self.former_head = std::mem::take(&mut self.head);
        }
        self.fingerprint.clear();
        sink.counts.bytes += taken;
        result.map(|()| taken)
    }

    /// Reads what was appended, and with the same call what stands before it: these must
    /// be the bytes that were read there.
    pub(super) fn read(&mut self, now_ns: u64, sink: &mut Sink<'_>) -> io::Result<Read> {
        let mut chunk = vec![0; FINGERPRINT + CHUNK];
        let mut total = 0;
        while total < MOST_BYTES_A_POLL {
            let known = self.fingerprint.len();
            let length = match self.file.read_at(&mut chunk, self.offset - known as u64) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let Some(bytes) = chunk[..length].strip_prefix(self.fingerprint.as_slice()) else {
                return Ok(Read::Truncated);
            };
            if bytes.is_empty() {
                break;
            }
            self.assembler.push(self.offset, bytes, now_ns, sink);
            self.offset += bytes.len() as u64;
            let room = (HEAD - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..room]);
            self.fingerprint
                .extend_from_slice(&bytes[bytes.len().saturating_sub(FINGERPRINT)..]);
            let excess = self.fingerprint.len().saturating_sub(FINGERPRINT);
            self.fingerprint.drain(..excess);
            total += bytes.len();
        }
        if total == 0 {
            self.assembler.quiet(sink);
        } else {
            self.last_bytes_ns = now_ns;
            sink.counts.bytes += total as u64;
        }
        Ok(if total < MOST_BYTES_A_POLL {
            Read::All
        } else {
            Read::Part
        })
    }

    fn fingerprint_matches(&self, file: &File) -> io::Result<bool> {
        let mut now = vec![0; self.fingerprint.len()];
        let at = self.offset - self.fingerprint.len() as u64;
        let length = file.read_at(&mut now, at)?;
        Ok(now[..length] == self.fingerprint[..])
    }

    pub(super) fn finish(mut self, now_ns: u64, sink: &mut Sink<'_>) {
        self.assembler.finish(self.offset, now_ns, sink);
    }
}
