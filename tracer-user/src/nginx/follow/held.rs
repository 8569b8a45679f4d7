//! Which files nginx itself holds open: a log that was renamed goes on being written to
//! until nginx is told to open its logs anew, which may be never.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::nginx::processes::children;

/// A descriptor of nginx.
#[derive(Debug)]
pub(super) struct Held {
    /// Opens the very file, whatever its name is by now.
    pub(super) entry: PathBuf,
    pub(super) identity: (u64, u64),
    /// As nginx sees it; one that was removed has a mark behind its name.
    pub(super) path: PathBuf,
}

/// The regular files that a process holds open for appending.
pub(super) fn by(pid: u32) -> io::Result<Vec<Held>> {
    let process = Path::new("/proc").join(pid.to_string());
    let mut held = Vec::new();
    for descriptor in fs::read_dir(process.join("fd"))? {
        // One that was closed since it was listed is none.
        let Ok(descriptor) = descriptor else { continue };
        let entry = descriptor.path();
        let Ok(metadata) = fs::metadata(&entry) else {
            continue;
        };
        let information = process.join("fdinfo").join(descriptor.file_name());
        if !metadata.is_file() || !appends(&fs::read_to_string(information).unwrap_or_default()) {
            continue;
        }
        let Ok(path) = fs::read_link(&entry) else {
            continue;
        };
        held.push(Held {
            identity: (metadata.dev(), metadata.ino()),
            path,
            entry,
        });
    }
    Ok(held)
}

/// Does the master or one of its children have this file open for appending?
pub(super) fn is_held(master_pid: u32, identity: (u64, u64)) -> bool {
    let holds = |pid| by(pid).is_ok_and(|held| held.iter().any(|held| held.identity == identity));
    holds(master_pid)
        || children(master_pid)
            .unwrap_or_default()
            .into_iter()
            .any(holds)
}

/// `flags:` of a `/proc/PID/fdinfo/N`, octal.
fn appends(information: &str) -> bool {
    let flags = information
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & rustix::fs::OFlags::APPEND.bits() != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_open_for_appending_is_held() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("error.log");
        let open = || {
            fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)
                .unwrap()
        };
        let appending = open();
        let identity = {
            let metadata = appending.metadata().unwrap();
            (metadata.dev(), metadata.ino())
        };
        let renamed = directory.path().join("error.log.1");
        fs::rename(&path, &renamed).unwrap();
        let held = by(std::process::id()).unwrap();
        let found = held.iter().find(|held| held.identity == identity).unwrap();
        assert_eq!(found.path, renamed);
        assert!(is_held(std::process::id(), identity));
        drop(appending);
        let _reading = fs::File::open(&renamed).unwrap();
        assert!(!is_held(std::process::id(), identity));
    }
}
