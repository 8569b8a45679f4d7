//! Follows a log file from its end, through rotation by rename and by truncation,
//! and cuts it into records: physical lines with their continuation lines.
//!
//! It polls: the caller says how often. What happened to the log's name between two
//! polls is told by its directory ([`Logs`]). What a record means is [`super::line`]'s.

mod held;
mod logs;
mod names;
mod record;
mod source;
mod truncated;
mod watch;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use self::names::Names;
use self::source::{Read, Source};
use self::watch::{Directory, Happened, Watch};
use super::processes::Root;
use crate::trace::record::Line;

pub use logs::Logs;

/// A renamed file is let go when it brought nothing for so long, its successor has
/// content and nginx holds it open no longer. nginx writes to it until each worker has
/// handled USR1.
const OLD_FILE_QUIET_NS: u64 = 10_000_000_000;
/// More renamed files than this are not kept open.
const MOST_OLD_FILES: usize = 32;
/// Links from a log's path to its file.
const MOST_LINKS: usize = 8;

/// What a follower went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes read.
    pub bytes: u64,
    /// Records given out.
    pub records: u64,
    /// Times that the path led to another file.
    pub rotations: u64,
    /// Times that the file was found truncated: what was written to it after the copy,
    /// if there is one, or the last poll and before the truncation is lost, and nobody
    /// knows how much that was.
    pub truncations: u64,
    /// Bytes that were read from the copy that was made before a truncation.
    pub recovered: u64,
    /// Files that stood at the path and were gone before they could be opened.
    pub missed: u64,
    /// Records cut in pieces because they were longer than 64 KiB.
    pub cut: u64,
    /// Renamed files let go while nginx may still have written to them.
    pub abandoned: u64,
}

/// Follows one log file.
#[derive(Debug)]
struct Follower {
    path: String,
    /// Where the path leads, through links: the directory in which the file is rotated,
    /// with a slash at its end, and the file's name there.
    directory: String,
    name: OsString,
    root: Root,
    master_pid: u32,
    current: Option<Source>,
    old: Vec<Source>,
    watched: Option<Watched>,
    /// Files that may be copies of the log, created since the poll before.
    copies: Vec<OsString>,
    /// Copies that were read by this poll and the one before: that they were created may
    /// be told after that.
    used: [Vec<(u64, u64)>; 2],
    counts: Counts,
    /// More can be read at once.
    behind: bool,
    finished: bool,
}

/// The log's directory, as it is watched.
#[derive(Debug)]
struct Watched {
    number: Directory,
    identity: (u64, u64),
    names: Names,
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
    /// Follows a file from its present end; one that does not exist yet, from its start
    /// once it does. `path` is as nginx sees it, absolute; `root` is nginx's root
    /// directory, `/proc/PID/root`.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is not a regular file (a link to `/dev/stderr` in a
    /// container is not); `root` cannot be opened; `path` is not absolute.
    fn open(path: &str, root: &Path, master_pid: u32, watch: Option<&Watch>) -> Result<Self> {
        if !path.starts_with('/') {
            bail!("the error log's path {path:?} is not absolute");
        }
        let root = Root::open(root)
            .with_context(|| format!("cannot open nginx's root directory {}", root.display()))?;
        let (directory, name) = resolved(&root, path);
        let mut follower = Self {
            path: path.to_owned(),
            directory,
            name: name.into(),
            root,
            master_pid,
            current: None,
            old: Vec::new(),
            watched: None,
            copies: Vec::new(),
            used: Default::default(),
            counts: Counts::default(),
            behind: false,
            finished: false,
        };
        // Watched before it is opened, so that no rotation falls between.
        if let Some(watch) = watch {
            follower.notice(watch, &Happened::default());
        }
        match Source::open(&follower.root, Path::new(path)).and_then(Source::at_end) {
            Ok(source) => follower.current = Some(source),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot follow the error log {path}"));
            }
        }
        follower.take_up_renamed();
        Ok(follower)
    }

    /// nginx may not have been told of a rename from before: it goes on writing to a
    /// file whose name merely begins with the log's.
    fn take_up_renamed(&mut self) {
        let name = self.name.to_string_lossy().into_owned();
        let Ok(directory) = self.root.identity(Path::new(&self.directory)) else {
            return;
        };
        for held in held::by(self.master_pid).unwrap_or_default() {
            let is_here = || {
                let parent = held.path.parent().map(|parent| self.root.identity(parent));
                matches!(parent, Some(Ok(identity)) if identity == directory)
            };
            let held_name = held.path.file_name().unwrap_or_default();
            if !held_name.to_string_lossy().starts_with(&name)
                || self.knows(held.identity)
                || !is_here()
            {
                continue;
            }
            let source = File::open(&held.entry)
                .and_then(Source::of)
                .and_then(Source::at_end);
            self.old.extend(source);
        }
    }

    /// Device and inode number of the file being followed, to follow it once if two
    /// paths lead to it. `None` until it exists.
    fn identity(&self) -> Option<(u64, u64)> {
        self.current.as_ref().map(|source| source.identity)
    }

    fn knows(&self, identity: (u64, u64)) -> bool {
        let mut known = self.old.iter().chain(&self.current);
        known.any(|source| source.identity == identity)
    }

    /// Appends the records that have become complete since the last call. The newest
    /// record waits until the next one begins or a poll brings nothing. `happened` was
    /// told by `watch`.
    ///
    /// # Errors
    ///
    /// A file cannot be looked at or read. What was read before is in `out`, and
    /// calling again goes on from there.
    fn poll(
        &mut self,
        now_ns: u64,
        told: Option<(&Watch, &Happened)>,
        out: &mut Vec<Line>,
    ) -> Result<()> {
        if self.finished {
            return Ok(());
        }
        if let Some((watch, happened)) = told {
            self.notice(watch, happened);
        }
        let followed = self.follow_path(now_ns);
        let read = self.read_all(now_ns, out);
        self.let_go(now_ns, out);
        followed
            .and(read)
            .with_context(|| format!("cannot follow the error log {}", self.path))
    }

    /// Gives out all that was held back, a line without its end too. Nothing is read
    /// afterwards.
    ///
    /// # Errors
    ///
    /// As [`Follower::poll`]; `out` is complete as far as could be read.
    fn finish(
        &mut self,
        now_ns: u64,
        told: Option<(&Watch, &Happened)>,
        out: &mut Vec<Line>,
    ) -> Result<()> {
        let polled = self.poll(now_ns, told, out);
        self.finished = true;
        for source in self.old.drain(..).chain(self.current.take()) {
            let mut sink = Sink::new(&self.path, self.master_pid, &mut self.counts, out);
            source.finish(now_ns, &mut sink);
        }
        polled
    }

    /// Takes what happened in the log's directory; watches it if it is new. Without a
    /// watch (no such directory yet, no more watches) the path alone is looked at.
    fn notice(&mut self, watch: &Watch, happened: &Happened) {
        let directory = match self.root.directory(Path::new(&self.directory)) {
            Ok(directory) => directory,
            Err(_) => return,
        };
        let Ok(identity) = identity_of(&directory) else {
            return;
        };
        match &mut self.watched {
            Some(watched) if watched.identity == identity => {
                for event in happened.within(watched.number) {
                    watched.names.push(event);
                }
            }
            watched => {
                let exists = self.root.identity(Path::new(&self.path)).is_ok();
                *watched = watch.add(&directory).ok().map(|number| Watched {
                    number,
                    identity,
                    names: Names::new(self.name.clone(), exists),
                });
            }
        }
    }

    /// Looks where the path leads now, and for files that stood there in between.
    fn follow_path(&mut self, now_ns: u64) -> io::Result<()> {
        let path = Path::new(&self.path);
        let found = match self.root.identity(path) {
            Ok(identity) => Some(identity),
            // Renamed, and no successor yet: nginx still writes to the old file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(identity) = found
            && self.identity() != Some(identity)
        {
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
        }
        self.take_former(now_ns, found.is_some());
        Ok(())
    }

    /// Opens files that stood at the path for less than the time between two polls.
    fn take_former(&mut self, now_ns: u64, found: bool) {
        let Some(mut watched) = self.watched.take() else {
            return;
        };
        for name in watched.names.fresh() {
            let path = Path::new(&self.directory).join(&name);
            // Renamed again since: the next poll knows its name.
            let Ok(mut source) = Source::open(&self.root, &path) else {
                continue;
            };
            watched.names.opened(&name);
            if !self.knows(source.identity) {
                // It came after the file that is followed, unless that is newer still.
                if !found {
                    self.old.extend(self.current.take());
                }
                source.last_bytes_ns = now_ns;
                self.old.push(source);
                self.counts.rotations += 1;
            }
        }
        self.copies = watched.names.copies();
        watched.names.looked(found);
        self.counts.missed += watched.names.take_missed();
        self.watched = Some(watched);
    }

    fn read_all(&mut self, now_ns: u64, out: &mut Vec<Line>) -> io::Result<()> {
        let mut result = Ok(());
        self.behind = false;
        let copies = std::mem::take(&mut self.copies);
        let used = &mut self.used;
        used.swap(0, 1);
        used[0].clear();
        for source in self.old.iter_mut().chain(self.current.as_mut()) {
            let mut sink = Sink::new(&self.path, self.master_pid, &mut self.counts, out);
            let mut read = if source.offset == 0 && !copies.is_empty() {
                // An empty file shows no truncation; its copy does.
                Ok(Read::Truncated)
            } else {
                source.read(now_ns, &mut sink)
            };
            if matches!(read, Ok(Read::Truncated)) {
                let place = (&self.root, self.directory.as_str(), self.name.as_os_str());
                read = truncated::begin_anew(source, place, &copies, used, now_ns, &mut sink);
            }
            match read {
                // What was truncated again meanwhile is seen by the next poll.
                Ok(read) => self.behind |= read != Read::All,
                Err(error) => result = result.and(Err(error)),
            }
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
            let source = &mut self.old[at];
            let quiet_ns = now_ns.saturating_sub(source.last_bytes_ns);
            let identity = source.identity;
            let mut over = succeeded && quiet_ns >= OLD_FILE_QUIET_NS;
            if over && held::is_held(self.master_pid, source.identity) {
                // Asked again after as long a time.
                source.last_bytes_ns = now_ns;
                over = false;
            }
            let too_many = self.old.len() > MOST_OLD_FILES;
            if too_many || over {
                let written_to = too_many && held::is_held(self.master_pid, identity);
                self.counts.abandoned += u64::from(written_to);
                let mut sink = Sink::new(&self.path, self.master_pid, &mut self.counts, out);
                self.old.remove(at).finish(now_ns, &mut sink);
            } else {
                at += 1;
            }
        }
    }
}

/// Directory and name of the file that a path leads to: a rotation renames the file, not
/// a link to it.
fn resolved(root: &Root, path: &str) -> (String, String) {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Some(target) = root.link(Path::new(&path)) else {
            break;
        };
        let target = target.to_string_lossy();
        path = match path.rsplit_once('/') {
            Some((directory, _)) if !target.starts_with('/') => format!("{directory}/{target}"),
            _ => target.into_owned(),
        };
    }
    match path.rsplit_once('/') {
        Some((directory, name)) => (format!("{directory}/"), name.to_owned()),
        None => ("/".to_owned(), path),
    }
}

fn identity_of(file: &impl std::os::fd::AsFd) -> rustix::io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
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
