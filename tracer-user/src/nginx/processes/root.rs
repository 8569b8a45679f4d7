//! The file system as another process sees it, reached through `/proc/PID/root`.
//!
//! Joining `/proc/PID/root` and a path is not enough: an absolute symbolic link
//! (`sites-enabled/app -> /etc/nginx/sites-available/app`) met on the way would
//! continue at the reader's own root. `openat2(2)` with `RESOLVE_IN_ROOT` (Linux
//! 5.6) resolves it inside; `walk.rs` does the same where that call is filtered.

mod walk;

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};
use rustix::io::Errno;

/// A root directory, held open: it stays usable after the process has gone.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
}

impl Root {
    /// Opens a root directory, e.g. `/proc/PID/root`.
    ///
    /// # Errors
    ///
    /// The process is gone, or its root may not be looked at.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            directory: openat(CWD, path, flags, Mode::empty())?,
        })
    }

    /// Opens a file for reading. It never blocks, not even on a pipe.
    ///
    /// # Errors
    ///
    /// As `open(2)`; a path that leads through `/proc/self/fd` is refused (ELOOP),
    /// because it would name a descriptor of the reader.
    pub fn file(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(File::from(self.descriptor(path, flags)?))
    }

    /// A directory, to be named by its descriptor.
    ///
    /// # Errors
    ///
    /// As `open(2)`.
    pub fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.descriptor(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// What `stat(2)` says of what a path leads to.
    ///
    /// # Errors
    ///
    /// As `stat(2)`.
    pub fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        File::from(self.descriptor(path, OFlags::PATH)?).metadata()
    }

    /// Device and inode number of what a path leads to.
    ///
    /// # Errors
    ///
    /// As `stat(2)`.
    pub fn identity(&self, path: &Path) -> io::Result<(u64, u64)> {
        let metadata = self.metadata(path)?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// Contents of a regular file of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// As [`Root::file`]; not a regular file; longer than `limit`.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let file = self.file(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut contents = Vec::new();
        let length = file
            .take(limit.saturating_add(1))
            .read_to_end(&mut contents)?;
        if u64::try_from(length).is_ok_and(|length| length <= limit) {
            Ok(contents)
        } else {
            Err(io::Error::other(format!("longer than {limit} bytes")))
        }
    }

    /// Names in a directory, sorted by byte, without `.` and `..`.
    ///
    /// # Errors
    ///
    /// As `open(2)` and `getdents(2)`.
    pub fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let descriptor = self.descriptor(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::new(descriptor)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// What a symbolic link says; `None` if there is none at that path.
    pub fn link(&self, path: &Path) -> Option<PathBuf> {
        let link = self
            .descriptor(path, OFlags::PATH | OFlags::NOFOLLOW)
            .ok()?;
        let target = readlinkat(link, "", Vec::new()).ok()?;
        Some(OsString::from_vec(target.into_bytes()).into())
    }

    fn descriptor(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let inside: PathBuf = path.strip_prefix("/").unwrap_or(path).into();
        let inside = if inside.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            inside
        };
        let flags = flags | OFlags::CLOEXEC;
        match openat2(
            &self.directory,
            &inside,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        ) {
            // A seccomp filter: it does not know the call, or cannot look into its flags.
            Err(Errno::NOSYS) => Ok(walk::open(self.directory.as_fd(), &inside, flags)?),
            other => Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn an_absolute_link_stays_inside_the_root() {
        let outer = tempfile::tempdir().unwrap();
        std::fs::create_dir(outer.path().join("etc")).unwrap();
        std::fs::write(outer.path().join("etc/whoclosed-test"), "inside").unwrap();
        symlink("/etc/whoclosed-test", outer.path().join("link")).unwrap();
        let root = Root::open(outer.path()).unwrap();
        assert_eq!(root.read(Path::new("/link"), 100).unwrap(), b"inside");
        assert_eq!(root.names(Path::new("/")).unwrap(), ["etc", "link"]);
        assert_eq!(
            root.identity(Path::new("/link")).unwrap(),
            root.identity(Path::new("/../etc/whoclosed-test")).unwrap()
        );
        assert_eq!(
            root.link(Path::new("/link")),
            Some("/etc/whoclosed-test".into())
        );
        assert_eq!(root.link(Path::new("/etc")), None);
        assert!(root.read(Path::new("/link"), 3).is_err());
        assert!(root.read(Path::new("/etc"), 100).is_err());
    }
}
