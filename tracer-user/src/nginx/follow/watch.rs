//! What happens to the names in the logs' directories, told by inotify: one descriptor
//! for all of them, and no event for a write.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::names::Event;

/// Events read at once are no more than this; a directory in which so much happens
/// within one look is no log directory.
const MOST_EVENTS: usize = 10_000;

/// Number of a watched directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Directory(i32);

/// Watches directories.
#[derive(Debug)]
pub(super) struct Watch {
    descriptor: OwnedFd,
}

/// What has happened, by directory.
#[derive(Debug, Default)]
pub(super) struct Happened {
    events: HashMap<Directory, Vec<Event>>,
    /// The kernel dropped events of any directory.
    overflow: bool,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let descriptor = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { descriptor })
    }

    /// Watches an open directory; the same one has the same number.
    pub(super) fn add(&self, directory: &OwnedFd) -> io::Result<Directory> {
        let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let what = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        Ok(Directory(inotify::add_watch(&self.descriptor, path, what)?))
    }

    /// All events since the last call.
    pub(super) fn happened(&self) -> io::Result<Happened> {
        let mut happened = Happened::default();
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = Reader::new(&self.descriptor, &mut buffer);
        for _ in 0..MOST_EVENTS {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let what = event.events();
            happened.overflow |= what.contains(ReadFlags::QUEUE_OVERFLOW);
            let told = match event.file_name() {
                Some(name) => {
                    let name = OsStr::from_bytes(name.to_bytes()).to_owned();
                    if what.contains(ReadFlags::CREATE) {
                        Event::Created(name)
                    } else if what.contains(ReadFlags::MOVED_FROM) {
                        Event::MovedFrom(name, event.cookie())
                    } else if what.contains(ReadFlags::MOVED_TO) {
                        Event::MovedTo(name, event.cookie())
                    } else if what.contains(ReadFlags::DELETE) {
                        Event::Deleted(name)
                    } else {
                        continue;
                    }
                }
                None => continue,
            };
            let directory = Directory(event.wd());
            happened.events.entry(directory).or_default().push(told);
        }
        Ok(happened)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Happened {
    /// What happened in one directory, in its order.
    pub(super) fn within(&self, directory: Directory) -> impl Iterator<Item = &Event> {
        let gap = self.overflow.then_some(&Event::Gap);
        gap.into_iter()
            .chain(self.events.get(&directory).into_iter().flatten())
    }
}
