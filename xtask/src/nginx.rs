//! The nginx that the tests and the demo run: the distribution's own build, unpacked
//! into the cache. It is not installed, so no service of it ever starts. The lab runs
//! a newer one too, built from source.

mod built;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{apt, step, workspace};

/// Where the program lies, by distribution and release.
const PACKAGES: [&str; 3] = ["nginx", "nginx-core", "nginx-light"];
const PROGRAM: &str = "usr/sbin/nginx";
/// The libraries that the package asks for, kept beside it, one a line.
const LIBRARIES: &str = "libraries";

fn folder() -> Result<PathBuf> {
    Ok(workspace::tools()?.join("nginx"))
}

/// The unpacked nginx, if it is there and runs.
pub(crate) fn unpacked() -> Result<Option<PathBuf>> {
    let program = folder()?.join(PROGRAM);
    Ok(runs(&program).then_some(program))
}

fn runs(program: &Path) -> bool {
    step::ask(Command::new(program).arg("-v")).is_some()
}

/// nginx 1.28; built into the cache first if it is not there.
pub(crate) fn version_1_28() -> Result<PathBuf> {
    built::install()
}

/// Unpacks an nginx; where no package can be had, takes the one in PATH.
pub(crate) fn install() -> Result<PathBuf> {
    let outcome = if apt::is_here() {
        unpack()
    } else {
        Err(anyhow::anyhow!("no apt here"))
    };
    let in_path = || workspace::find_program("nginx").filter(|program| runs(program));
    match (outcome, in_path()) {
        (Ok(program), _) => Ok(program),
        (Err(error), Some(program)) => {
            println!(
                "setup: uses {}, because none was unpacked: {error:#}",
                program.display()
            );
            Ok(program)
        }
        (Err(error), None) => Err(error.context("no nginx for the tests, in PATH neither")),
    }
}

fn unpack() -> Result<PathBuf> {
    let folder = folder()?;
    let program = folder.join(PROGRAM);
    if !program.is_file() {
        download(&folder)?;
    }
    if !runs(&program) {
        let libraries = fs::read_to_string(folder.join(LIBRARIES)).unwrap_or_default();
        let libraries: Vec<&str> = libraries.lines().collect();
        apt::install("nginx", &apt::missing(&libraries))?;
    }
    if !runs(&program) {
        bail!(
            "{} does not run; `ldd` names what it lacks",
            program.display()
        );
    }
    Ok(program)
}

/// Downloads packages until one holds the program, and puts it into place whole.
fn download(folder: &Path) -> Result<()> {
    let temporary = folder.with_extension(format!("download.{}", std::process::id()));
    let outcome = download_retrying(&temporary).and_then(|unpacked| {
        match fs::rename(&unpacked, folder) {
            // Another run was quicker.
            Err(_) if folder.join(PROGRAM).is_file() => Ok(()),
            moved => moved.with_context(|| format!("cannot move nginx to {}", folder.display())),
        }
    });
    let _ = fs::remove_dir_all(&temporary);
    outcome
}

/// Downloads; if that fails, once more with fresh package lists: those of some weeks
/// ago name versions that the archive has since replaced.
fn download_retrying(temporary: &Path) -> Result<PathBuf> {
    match download_into(temporary) {
        Err(failed) if !apt::update_once()? => Err(failed),
        Err(_) => {
            // What the first attempt left must not be taken for the second's.
            let _ = fs::remove_dir_all(temporary);
            download_into(temporary)
        }
        unpacked => unpacked,
    }
}

fn download_into(temporary: &Path) -> Result<PathBuf> {
    let known = apt::candidates(&PACKAGES)?;
    for package in PACKAGES {
        if !known.iter().any(|(name, _)| name == package) {
            continue;
        }
        let folder = temporary.join(package);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        println!("setup: downloads {package}, to be unpacked into the cache, not installed");
        let mut command = apt::apt_get();
        // The sandbox user may not enter a home folder, and apt would say so each time.
        command
            .args(["-o", "APT::Sandbox::User=root", "download", package])
            .current_dir(&folder);
        apt::run(&format!("setup: download {package}"), &mut command)?;
        let archive = only_archive(&folder)?;
        let unpacked = folder.join("unpacked");
        let mut command = Command::new("dpkg");
        command.arg("-x").arg(&archive).arg(&unpacked);
        step::run(&format!("setup: unpack {package}"), &mut command)?;
        if unpacked.join(PROGRAM).is_file() {
            let depends = step::ask(Command::new("dpkg").arg("-f").arg(&archive).arg("Depends"));
            let libraries = parse_libraries(&depends.unwrap_or_default()).join("\n");
            fs::write(unpacked.join(LIBRARIES), libraries)
                .context("cannot note which libraries nginx needs")?;
            return Ok(unpacked);
        }
    }
    bail!("apt knows no package with an nginx; on a new machine, `apt-get update` may be due")
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
fn parse_libraries(depends: &str) -> Vec<&str> {
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
