//! Debian's packages of another machine, unpacked into the cache. Nothing of them is
//! installed, and the system's own apt never hears of that machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::kernels::suite::{self, Suite};
use crate::machine::Machine;
use crate::unpacked::parse_libraries;
use crate::{step, workspace};

/// Which packages a folder was asked to hold, kept in it.
const ASKED: &str = "packages";
/// Lists of packages younger than this are not fetched again.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// Packages that are unpacked together.
#[derive(Clone, Debug)]
pub(crate) struct Packages<'a> {
    /// What people call them.
    pub(crate) name: &'a str,
    /// Their folder in the cache.
    pub(crate) folder: String,
    /// Each a name, or `name=version`.
    pub(crate) packages: Vec<String>,
    /// Whether the libraries that they depend on come along; the C library, which every
    /// system has, has to be named.
    pub(crate) with_libraries: bool,
}

/// The folder with these packages; downloaded and unpacked first if it is not there.
///
/// # Errors
/// If they cannot be had.
pub(crate) fn have(machine: Machine, wanted: &Packages<'_>) -> Result<PathBuf> {
    let folder = workspace::tools()?.join(&wanted.folder);
    let asked = wanted.packages.join("\n");
    if fs::read_to_string(folder.join(ASKED)).is_ok_and(|there| there == asked) {
        return Ok(folder);
    }
    let temporary = format!("{}.download.{}", wanted.folder, std::process::id());
    let temporary = folder.with_file_name(temporary);
    let outcome = retrying(machine, wanted, &temporary).and_then(|unpacked| {
        fs::write(unpacked.join(ASKED), &asked).context("cannot note what was unpacked")?;
        if let Some(above) = folder.parent() {
            fs::create_dir_all(above)
                .with_context(|| format!("cannot create {}", above.display()))?;
        }
        // What was there was for another list.
        let _ = fs::remove_dir_all(&folder);
        fs::rename(&unpacked, &folder)
            .with_context(|| format!("cannot move {} to {}", wanted.name, folder.display()))
    });
    let _ = fs::remove_dir_all(&temporary);
    outcome.with_context(|| format!("{} for {} cannot be had", wanted.name, machine.name))?;
    Ok(folder)
}

/// Downloads; if that fails, once more with a fresh list of packages: one of some hours ago
/// may name versions that the archive has since replaced.
fn retrying(machine: Machine, wanted: &Packages<'_>, temporary: &Path) -> Result<PathBuf> {
    let open = |fresh| Suite::of_system(&workspace::kernels()?, machine.debian, fresh);
    let first = open(FRESH).and_then(|suite| download(&suite, wanted, temporary));
    if first.is_ok() {
        return first;
    }
    // What the first attempt left must not be taken for the second's.
    let _ = fs::remove_dir_all(temporary);
    download(&open(Duration::ZERO)?, wanted, temporary)
}

fn download(suite: &Suite, wanted: &Packages<'_>, temporary: &Path) -> Result<PathBuf> {
    let unpacked = temporary.join("unpacked");
    fs::create_dir_all(&unpacked)
        .with_context(|| format!("cannot create {}", unpacked.display()))?;
    let mut known: BTreeSet<String> = wanted.packages.iter().cloned().collect();
    let mut next = wanted.packages.clone();
    while !next.is_empty() {
        let mut command = suite.apt_get();
        // The sandbox user may not enter a home folder, and apt would say so each time.
        command
            .args(["-o", "APT::Sandbox::User=root", "download"])
            .args(&next)
            .current_dir(temporary);
        let list = next.join(" ");
        let step = format!("setup: download {list} ({})", suite.architecture);
        suite::quietly(&step, &mut command)?;
        next.clear();
        for archive in archives(temporary)? {
            let mut command = Command::new("dpkg");
            command.arg("-x").arg(&archive).arg(&unpacked);
            let name = archive.file_name().unwrap_or_default().display();
            suite::quietly(&format!("setup: unpack {name}"), &mut command)?;
            let fields = ["Depends", "Pre-Depends"].map(|field| {
                step::ask(Command::new("dpkg-deb").arg("-f").arg(&archive).arg(field))
            });
            for field in fields.iter().flatten() {
                for library in parse_libraries(field) {
                    if wanted.with_libraries && known.insert(library.to_owned()) {
                        next.push(library.to_owned());
                    }
                }
            }
            fs::remove_file(&archive)
                .with_context(|| format!("cannot remove {}", archive.display()))?;
        }
    }
    Ok(unpacked)
}

fn archives(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .flatten()
        .map(|entry| entry.path());
    Ok(files
        .filter(|file| file.extension().is_some_and(|extension| extension == "deb"))
        .collect())
}
