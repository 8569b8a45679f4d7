//! A memory cgroup of the lab's own: a process in it that wants more than its limit is
//! killed by the kernel. Either version's memory controller will do
//! (Documentation/admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::clock::{PATIENCE, wait_for};

/// Whose files these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A cgroup with a limit; dropping it removes it once its processes have gone.
#[derive(Debug)]
pub struct MemoryGroup {
    folder: PathBuf,
    version: Version,
}

impl MemoryGroup {
    /// Makes one whose processes may hold so many bytes together.
    ///
    /// # Errors
    /// If the host offers no memory controller, or does not let us make the group.
    pub fn create(limit: u64) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
        let (root, version) = controller(&mounts, |root| {
            let offered = fs::read_to_string(root.join("cgroup.subtree_control"));
            offered.unwrap_or_default()
        })
        .context(
            "this host offers no memory controller of cgroups (neither a v1 hierarchy with \
             `memory` nor `memory` in the v2 root's cgroup.subtree_control): a backend cannot be \
             made to run out of memory here",
        )?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("whoclosed-lab-{}-{number}", std::process::id());
        let folder = root.join(name);
        fs::create_dir(&folder)
            .with_context(|| format!("cannot make the memory cgroup {}", folder.display()))?;
        let group = Self { folder, version };
        let (file, swap) = match version {
            Version::One => ("memory.limit_in_bytes", ("memory.swappiness", "0")),
            Version::Two => ("memory.max", ("memory.swap.max", "0")),
        };
        group.set(file, &limit.to_string())?;
        // Without swap there is no such file.
        if group.folder.join(swap.0).exists() {
            group.set(swap.0, swap.1)?;
        }
        Ok(group)
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, value).with_context(|| format!("cannot set {}", path.display()))
    }

    /// The file that a process writes its pid to.
    #[must_use]
    pub fn processes(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// How many processes the kernel has killed in it.
    ///
    /// # Errors
    /// If the count cannot be read.
    pub fn kills(&self) -> Result<u64> {
        let file = self.folder.join(match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        });
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        kills(&text).with_context(|| format!("no count of kills in {}", file.display()))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A process that has just been reaped may still be on its way out of the group.
        let removed = wait_for("the memory cgroup to empty", PATIENCE, || {
            Ok(match fs::remove_dir(&self.folder) {
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => None,
                removed => Some(removed?),
            })
        });
        if let Err(error) = removed {
            eprintln!("lab: {} stays: {error:#}", self.folder.display());
        }
    }
}

/// The root of the hierarchy with the memory controller. `offered` reads what a v2 root
/// hands to its children.
fn controller(mounts: &str, offered: impl Fn(&Path) -> String) -> Option<(PathBuf, Version)> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let root = PathBuf::from(fields.next()?);
        match (fields.next()?, fields.next()?) {
            ("cgroup", options) => {
                let found = options.split(',').any(|option| option == "memory");
                found.then_some((root, Version::One))
            }
            ("cgroup2", _) => {
                let found = offered(&root)
                    .split_whitespace()
                    .any(|name| name == "memory");
                found.then_some((root, Version::Two))
            }
            _ => None,
        }
    })
}

/// `oom_kill 1` on a line of its own, in both versions' files.
fn kills(text: &str) -> Result<u64> {
    for line in text.lines() {
        if let Some(("oom_kill", count)) = line.split_once(' ') {
            return Ok(count.trim().parse()?);
        }
    }
    bail!("no line `oom_kill`")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n\
                       cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
                       cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
    const TWO: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate 0 0\n";

    #[test]
    fn the_memory_controller_is_found_in_either_version_or_not_at_all() {
        let found = controller(ONE, |_| String::new());
        let root = PathBuf::from("/sys/fs/cgroup/memory");
        assert_eq!(found, Some((root, Version::One)));
        let found = controller(TWO, |_| "cpu memory pids\n".to_owned());
        assert_eq!(found, Some((PathBuf::from("/sys/fs/cgroup"), Version::Two)));
        assert_eq!(controller(TWO, |_| "cpu pids\n".to_owned()), None);
        assert_eq!(
            controller("tmpfs / tmpfs rw 0 0\n", |_| String::new()),
            None
        );
    }

    #[test]
    fn kills_are_counted_in_either_versions_file() {
        let one = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
        let two = "low 0\nhigh 0\nmax 41\noom 2\noom_kill 1\noom_group_kill 0\n";
        assert_eq!(kills(one).unwrap(), 2);
        assert_eq!(kills(two).unwrap(), 1);
        assert!(kills("oom 3\n").is_err());
    }
}
