//! The files that the guests read and write, in one folder of the build's.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::machine::Machine;
use crate::workspace;

/// What stands between such a name and the process whose it is.
const OWNED: &str = ".of-";

/// The name of the guests' file system.
const IMAGE: &str = "image";

/// The same for guests of this machine.
pub(super) fn image(machine: Option<Machine>) -> String {
    match machine {
        None => IMAGE.to_owned(),
        Some(machine) => format!("{IMAGE}-{}", machine.debian),
    }
}

/// The folder.
pub(super) fn folder() -> Result<PathBuf> {
    let folder = workspace::target()?.join("kernels");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// A file or folder there that is this run's alone.
pub(super) fn own(name: &str) -> Result<PathBuf> {
    Ok(folder()?.join(format!("{name}{OWNED}{}", std::process::id())))
}

/// Removes what runs left that were killed.
pub(super) fn sweep() -> Result<()> {
    for entry in fs::read_dir(folder()?).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(owner);
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner.to_string()).exists()) {
            let _ = fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path()));
        }
    }
    Ok(())
}

/// The process in a name that [`own`] made. In others there is none: what the guests of
/// the matrix wrote stays.
fn owner(name: &str) -> Option<u32> {
    name.rsplit_once(OWNED)?.1.parse().ok()
}

/// A file that goes with this.
pub(super) struct Removed(pub(super) PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::AARCH64;

    #[test]
    fn what_a_killed_run_left_goes_and_what_the_matrix_keeps_stays() {
        let own = |name| owner(own(name).unwrap().file_name()?.to_str()?);
        let this = Some(std::process::id());
        let arm = image(Some(AARCH64));
        for name in [IMAGE, arm.as_str(), "6.12-cloud", "vmlinux-5.15.85"] {
            assert_eq!(own(name), this, "{name}");
        }
        for name in ["6.12", "vmlinux-5.15.85", "whoclosed-lab"] {
            assert_eq!(owner(name), None, "{name}");
        }
    }
}
