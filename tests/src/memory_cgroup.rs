//! A cgroup with a limit on memory, for processes that are to run out of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::clock::{PATIENCE, now_ns, wait_for};

/// Where systemd, and everybody else by now, mounts the controllers.
const ROOT: &str = "/sys/fs/cgroup";

/// A cgroup of our own; dropping it removes it, once its processes have ended.
#[derive(Debug)]
pub struct MemoryCgroup {
    folder: PathBuf,
}

/// The folder that holds the memory controller, and the files that limit memory and
/// what is beside it: swap alone (version 2), or memory and swap together (version 1).
fn controller() -> Result<(PathBuf, [&'static str; 2])> {
    let old = Path::new(ROOT).join("memory");
    if old.join("memory.limit_in_bytes").is_file() {
        return Ok((
            old,
            ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"],
        ));
    }
    let controllers = fs::read_to_string(Path::new(ROOT).join("cgroup.subtree_control"));
    if controllers.is_ok_and(|names| names.split_whitespace().any(|name| name == "memory")) {
        return Ok((ROOT.into(), ["memory.max", "memory.swap.max"]));
    }
    bail!("{ROOT} has no memory controller, or passes it to no cgroup below");
}

impl MemoryCgroup {
    /// One whose processes may have so many bytes together.
    ///
    /// # Errors
    /// If this host has no memory controller, or without root.
    pub fn create(bytes: u64) -> Result<Self> {
        let (parent, [limit, swap]) = controller()?;
        let name = format!("whoclosed-lab-{}-{}", std::process::id(), now_ns());
        let folder = parent.join(name);
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let this = Self { folder };
        this.set(limit, &bytes.to_string())?;
        // A kernel without swap has no such file.
        if this.folder.join(swap).is_file() {
            let together = swap.contains("memsw");
            this.set(swap, &if together { bytes } else { 0 }.to_string())?;
        }
        Ok(this)
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Moves a process there. What it has already is not counted.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn take(&self, pid: u32) -> Result<()> {
        self.set("cgroup.procs", &pid.to_string())
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // The kernel keeps it busy for a moment after its last process has gone.
        let _ = wait_for("the cgroup to be empty", PATIENCE, || {
            Ok(fs::remove_dir(&self.folder).ok())
        });
    }
}
