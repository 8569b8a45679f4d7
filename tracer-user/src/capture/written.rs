//! Error logs that are no files: a container's stderr, a syslog server. Which of them a
//! capture takes from nginx's own write calls, and the lines made of what the kernel saw
//! being written.
//!
//! Such a log is known by the inode number of what the descriptor leads to (workers have
//! it from their master), and syslog by the form of its datagrams.

use std::collections::HashMap;
use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use tracer_ebpf::written::{SYSLOG, Written};

use crate::nginx::configuration::{LogKind, NotFollowed};
use crate::nginx::follow::starts_record;
use crate::nginx::processes::{Instance, Root};
use crate::trace::record::Line;

/// Threads whose last line is remembered; nginx has a worker for each processor.
const THREADS: usize = 4096;

/// How the lines of a log can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// From a file, at this path in the file system of this root.
    File(String, PathBuf),
    /// From the calls that write to it; the log's name in the trace.
    Calls(String),
}

/// The logs that are taken from calls.
#[derive(Debug, Default)]
pub(super) struct WrittenLogs {
    /// What they are called, by master and inode number.
    names: HashMap<(u32, u64), String>,
    /// Bytes seen so far, by the same.
    offsets: HashMap<(u32, u64), u64>,
    last: HashMap<u32, Last>,
    /// Lines longer than the kernel's record of them.
    pub(super) cut: u64,
}

/// The last line that a thread wrote.
#[derive(Debug)]
struct Last {
    hash: u64,
    /// Where it has written it.
    descriptors: Vec<u32>,
}

impl WrittenLogs {
    /// How the lines of one of an instance's logs can be had.
    ///
    /// # Errors
    /// If they cannot: why.
    pub(super) fn source(
        &mut self,
        instance: &Instance,
        log: &NotFollowed,
    ) -> Result<Source, String> {
        let descriptor = match log.kind {
            LogKind::StandardError => 2,
            LogKind::StandardOutput => 1,
            LogKind::Syslog => return Ok(self.want(instance.master_pid, SYSLOG, "syslog")),
            LogKind::Null => return self.device(instance, "/dev/null"),
            LogKind::Memory | LogKind::Program | LogKind::Formatted => {
                return Err(log.kind.reason().to_owned());
            }
        };
        let link = PathBuf::from(format!("/proc/{}/fd/{descriptor}", instance.master_pid));
        let metadata = std::fs::metadata(&link)
            .map_err(|error| format!("{} cannot be looked at: {error}", link.display()))?;
        if metadata.is_file()
            && let Some(file) = file_behind(&link, &metadata, &instance.root)
        {
            return Ok(file);
        }
        let name = ["stdout", "stderr"][usize::from(descriptor == 2)];
        Ok(self.want(instance.master_pid, metadata.ino(), name))
    }

    /// The same for a path that leads to no file.
    ///
    /// # Errors
    /// If there is nothing of the kind.
    pub(super) fn device(&mut self, instance: &Instance, path: &str) -> Result<Source, String> {
        let metadata = Root::open(&instance.root)
            .and_then(|root| root.metadata(Path::new(path)))
            .map_err(|error| error.to_string())?;
        let kind = metadata.file_type();
        if kind.is_fifo() || kind.is_char_device() {
            return Ok(self.want(instance.master_pid, metadata.ino(), path));
        }
        Err("it is neither a file nor a pipe nor a device".to_owned())
    }

    fn want(&mut self, master: u32, inode: u64, name: &str) -> Source {
        let name = format!("{name} of nginx {master}");
        Source::Calls(self.names.entry((master, inode)).or_insert(name).clone())
    }

    /// What the programs have to look for; empty if no log is taken from calls.
    pub(super) fn inodes(&self) -> Vec<u64> {
        let mut inodes: Vec<u64> = self.names.keys().map(|(_, inode)| *inode).collect();
        inodes.sort_unstable();
        inodes.dedup();
        inodes
    }

    /// Names of the logs that are taken from calls, sorted.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.names.values().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// The line that a call wrote; none if it wrote another copy of the line before, or
    /// no line of an instance that is watched.
    pub(super) fn line(&mut self, written: &Written, text: &[u8]) -> Option<Line> {
        let text = if written.inode == SYSLOG {
            without_header(text)?
        } else {
            text.strip_suffix(b"\n").unwrap_or(text)
        };
        if self.is_copy(written, text) {
            return None;
        }
        let key = self.log_of(written)?;
        let file = self.names.get(&key)?.clone();
        self.cut += u64::from(written.is_cut());
        let offset = self.offsets.entry(key).or_default();
        let begin = *offset;
        *offset += u64::from(written.bytes);
        let (text, latin1) = crate::nginx::follow::decoded(text.to_vec());
        Some(Line {
            file,
            offset: begin,
            master_pid: key.0,
            read_ns: written.ns,
            text,
            latin1,
            pid: Some(written.pid),
        })
    }

    /// The instance is that of the worker's parent, or of the process itself; one whose
    /// master has come since inherited the log.
    fn log_of(&self, written: &Written) -> Option<(u32, u64)> {
        let own = [written.parent_pid, written.pid].map(|master| (master, written.inode));
        let inherited = || {
            let keys = self
                .names
                .keys()
                .filter(|(_, inode)| *inode == written.inode);
            keys.min().copied()
        };
        own.into_iter()
            .find(|key| self.names.contains_key(key))
            .or_else(inherited)
    }

    /// nginx writes a line to every log of its context before it does anything else.
    fn is_copy(&mut self, written: &Written, text: &[u8]) -> bool {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(last) = self.last.get_mut(&written.tid)
            && last.hash == hash
            && !last.descriptors.contains(&written.descriptor)
        {
            last.descriptors.push(written.descriptor);
            return true;
        }
        if self.last.len() >= THREADS {
            self.last.clear();
        }
        let descriptors = vec![written.descriptor];
        self.last.insert(written.tid, Last { hash, descriptors });
        false
    }
}

/// The file that a descriptor leads to, by its path in nginx's file system or in ours.
fn file_behind(link: &Path, file: &Metadata, root: &Path) -> Option<Source> {
    let path = std::fs::read_link(link).ok()?;
    for root in [root, Path::new("/")] {
        let found = Root::open(root).and_then(|root| root.identity(&path));
        if found.is_ok_and(|found| found == (file.dev(), file.ino())) {
            return Some(Source::File(path.to_str()?.to_owned(), root.to_owned()));
        }
    }
    None
}

/// The line after `<PRI>Mon dd hh:mm:ss host tag: ` (`ngx_syslog_add_header`).
fn without_header(text: &[u8]) -> Option<&[u8]> {
    let end = text.windows(2).position(|pair| pair == b": ")?;
    text.get(end + 2..).filter(|line| starts_record(line))
}

#[cfg(test)]
mod tests;
