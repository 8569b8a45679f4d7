//! Programs of the distribution's packages, unpacked into the cache. They are not
//! installed, so no service of theirs ever starts; only the libraries that they lack
//! are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{apt, step, workspace};

/// The libraries that the package asks for, kept beside it, one a line.
const LIBRARIES: &str = "libraries";

/// A program and where it comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unpacked {
    /// What people call it.
    pub(crate) name: &'static str,
    /// Its folder in the cache.
    pub(crate) folder: &'static str,
    /// The packages that may hold it, by distribution and release.
    pub(crate) packages: &'static [&'static str],
    /// Packages of files that it reads, unpacked into the same folder.
    pub(crate) beside: &'static [&'static str],
    /// The folder that it lies in.
    pub(crate) within: &'static str,
    /// Its name there; a version may follow.
    pub(crate) program: &'static str,
    /// Prints its version and nothing else; empty for what is no program.
    pub(crate) version: &'static str,
}

impl Unpacked {
    /// The program, if it is there and runs.
    pub(crate) fn find(&self) -> Result<Option<PathBuf>> {
        Ok(self
            .locate(&self.folder()?)
            .filter(|program| self.runs(program)))
    }

    /// The program; downloaded and unpacked first if it is not there.
    pub(crate) fn install(&self) -> Result<PathBuf> {
        let folder = self.folder()?;
        if self.locate(&folder).is_none() {
            self.download(&folder)?;
        }
        if self.find()?.is_none() {
            let libraries = fs::read_to_string(folder.join(LIBRARIES)).unwrap_or_default();
            let libraries: Vec<&str> = libraries.lines().collect();
            apt::install(self.name, &apt::missing(&libraries))?;
        }
        self.find()?.with_context(|| {
            let folder = folder.join(self.within);
            format!(
                "{} in {} does not run; `ldd` names what it lacks",
                self.program,
                folder.display()
            )
        })
    }

    /// Whether a file is a program that runs.
    pub(crate) fn runs(&self, program: &Path) -> bool {
        self.version.is_empty() || step::ask(Command::new(program).arg(self.version)).is_some()
    }

    fn folder(&self) -> Result<PathBuf> {
        Ok(workspace::tools()?.join(self.folder))
    }

    fn locate(&self, folder: &Path) -> Option<PathBuf> {
        let is_it = |name: &str| {
            name.strip_prefix(self.program)
                .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
        };
        fs::read_dir(folder.join(self.within))
            .ok()?
            .flatten()
            .find(|entry| entry.file_name().to_str().is_some_and(is_it))
            .map(|entry| entry.path())
    }

    /// Downloads packages until one holds the program, and puts it into place whole.
    fn download(&self, folder: &Path) -> Result<()> {
        let temporary = folder.with_extension(format!("download.{}", std::process::id()));
        let outcome = self.download_retrying(&temporary).and_then(|unpacked| {
            if let Some(parent) = folder.parent() {
                fs::create_dir_all(parent)
                    .with_context(|| format!("cannot create {}", parent.display()))?;
            }
            match fs::rename(&unpacked, folder) {
                // Another run was quicker.
                Err(_) if self.locate(folder).is_some() => Ok(()),
                moved => moved
                    .with_context(|| format!("cannot move {} to {}", self.name, folder.display())),
            }
        });
        let _ = fs::remove_dir_all(&temporary);
        outcome
    }

    /// Downloads; if that fails, once more with fresh package lists: those of some weeks
    /// ago name versions that the archive has since replaced.
    fn download_retrying(&self, temporary: &Path) -> Result<PathBuf> {
        match self.download_into(temporary) {
            Err(failed) if !apt::update_once()? => Err(failed),
            Err(_) => {
                // What the first attempt left must not be taken for the second's.
                let _ = fs::remove_dir_all(temporary);
                self.download_into(temporary)
            }
            unpacked => unpacked,
        }
    }

    fn download_into(&self, temporary: &Path) -> Result<PathBuf> {
        let known = apt::candidates(self.packages)?;
        for package in self.packages {
            if !known.iter().any(|(name, _)| name == package) {
                continue;
            }
            let folder = temporary.join(package);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
            let unpacked = folder.join("unpacked");
            let archive = download(package, &folder, &unpacked)?;
            if self.locate(&unpacked).is_some() {
                let depends =
                    step::ask(Command::new("dpkg").arg("-f").arg(&archive).arg("Depends"));
                for (package, folder) in self.beside.iter().map(|name| (name, temporary.join(name)))
                {
                    fs::create_dir_all(&folder)
                        .with_context(|| format!("cannot create {}", folder.display()))?;
                    download(package, &folder, &unpacked)?;
                }
                let libraries = parse_libraries(&depends.unwrap_or_default()).join("\n");
                fs::write(unpacked.join(LIBRARIES), libraries)
                    .with_context(|| format!("cannot note which libraries {} needs", self.name))?;
                return Ok(unpacked);
            }
        }
        bail!(
            "apt knows no package with {}; on a new machine, `apt-get update` may be due",
            self.name
        )
    }
}

/// Downloads a package into a folder that has no other, and unpacks it. The archive.
fn download(package: &str, folder: &Path, unpacked: &Path) -> Result<PathBuf> {
    println!("setup: downloads {package}, to be unpacked into the cache, not installed");
    let mut command = apt::apt_get();
    // The sandbox user may not enter a home folder, and apt would say so each time.
    command
        .args(["-o", "APT::Sandbox::User=root", "download", package])
        .current_dir(folder);
    apt::run(&format!("setup: download {package}"), &mut command)?;
    let archive = only_archive(folder)?;
    let mut command = Command::new("dpkg");
    command.arg("-x").arg(&archive).arg(unpacked);
    step::run(&format!("setup: unpack {package}"), &mut command)?;
    Ok(archive)
}

fn only_archive(folder: &Path) -> Result<PathBuf> {
    fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get left no package in {}", folder.display()))
}

/// The libraries in a package's field `Depends`: of alternatives the first, without
/// versions, and without the C library, which every system has.
pub(crate) fn parse_libraries(depends: &str) -> Vec<&str> {
    depends
        .split(',')
        .filter_map(|dependency| dependency.split('|').next()?.split_whitespace().next())
        .filter(|name| (name.starts_with("lib") || *name == "zlib1g") && *name != "libc6")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_libraries_are_taken_from_what_a_package_depends_on() {
        let depends = "libc6 (>= 2.34), libcrypt1 (>= 1:4.1.0), libpcre2-8-0 (>= 10.22), \
            libssl3 (>= 3.0.0), zlib1g (>= 1:1.1.4), iproute2, nginx-common (= 1.22.1-9), \
            libgd3 | libgd4\n";
        let libraries = ["libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g", "libgd3"];
        assert_eq!(parse_libraries(depends), libraries);
        assert_eq!(parse_libraries(""), Vec::<&str>::new());
    }
}
