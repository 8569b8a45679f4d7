//! A cpio archive as the kernel unpacks it into its first file system ("newc",
//! Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// File types and permissions, as in `st_mode`.
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
/// The name of the entry that ends an archive.
const END: &str = "TRAILER!!!";

/// A tree of files in the making, by absolute path.
#[derive(Debug, Default)]
pub(super) struct Archive(BTreeMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    mode: u32,
    content: Vec<u8>,
}

impl Archive {
    /// Adds an empty folder, and those that it lies in.
    pub(super) fn folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.0.contains_key(path) {
            return;
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above);
        }
        self.put(path, FOLDER, Vec::new());
    }

    /// Adds a file with these permissions; it replaces what was there.
    pub(super) fn file(&mut self, path: &str, permissions: u32, content: impl Into<Vec<u8>>) {
        self.put_below(path, FILE | permissions, content.into());
    }

    /// Adds a symbolic link unless something is there.
    pub(super) fn link(&mut self, path: &str, to: &str) {
        if !self.0.contains_key(path.trim_matches('/')) {
            self.put_below(path, LINK, to.into());
        }
    }

    /// Whether something is there.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path.trim_matches('/'))
    }

    /// Adds a copy of a file of this machine, links followed.
    pub(super) fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let read = || format!("cannot read {}", from.display());
        let content = fs::read(from).with_context(read)?;
        let permissions = fs::metadata(from).with_context(read)?.permissions().mode();
        self.file(path, permissions & 0o777, content);
        Ok(())
    }

    fn put_below(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        let path = path.trim_matches('/');
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above);
        }
        self.put(path, mode, content);
    }

    fn put(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        self.0.insert(path.to_owned(), Entry { mode, content });
    }

    /// The archive's bytes. Folders come before what lies in them.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for (number, (path, entry)) in (1_u32..).zip(&self.0) {
            append(&mut bytes, number, path, entry)?;
        }
        let end = Entry {
            mode: 0,
            content: Vec::new(),
        };
        append(&mut bytes, 0, END, &end)?;
        Ok(bytes)
    }
}

fn append(bytes: &mut Vec<u8>, number: u32, path: &str, entry: &Entry) -> Result<()> {
    let Ok(size) = u32::try_from(entry.content.len()) else {
        bail!("{path} is too large for an archive");
    };
    let name = u32::try_from(path.len() + 1).context("a path is too long")?;
    // Inode, mode, user, group, links, time, size, device, device of a node, name, sum.
    let fields = [number, entry.mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
    bytes.extend(b"070701");
    for field in fields {
        bytes.extend(format!("{field:08x}").bytes());
    }
    bytes.extend(path.bytes());
    bytes.push(0);
    align(bytes);
    bytes.extend(&entry.content);
    align(bytes);
    Ok(())
}

fn align(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths, modes and contents, read as the kernel's unpacker does.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |at: usize| {
                let text = std::str::from_utf8(&bytes[6 + at * 8..14 + at * 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name) = (field(1), field(6), field(11));
            let path = std::str::from_utf8(&bytes[110..110 + name - 1]).unwrap();
            let begin = (110 + name).next_multiple_of(4);
            if path == END {
                return found;
            }
            let content = bytes[begin..begin + size].to_vec();
            found.push((path.to_owned(), u32::try_from(mode).unwrap(), content));
            bytes = &bytes[(begin + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn what_was_put_in_is_read_as_the_kernel_reads_it_folders_first() {
        let mut archive = Archive::default();
        archive.file("/usr/bin/one", 0o755, "content");
        archive.link("/bin/other", "one");
        archive.link("/usr/bin/one", "loses to what is there");
        let read = read(&archive.bytes().unwrap());
        let file = |path: &str, mode, content: &str| (path.to_owned(), mode, content.into());
        let expected = [
            file("bin", 0o040_755, ""),
            file("bin/other", 0o120_777, "one"),
            file("usr", 0o040_755, ""),
            file("usr/bin", 0o040_755, ""),
            file("usr/bin/one", 0o100_755, "content"),
        ];
        assert_eq!(read, expected);
    }
}
