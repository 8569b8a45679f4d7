//! Guests of another machine than this: its kernels, the agent and the lab built for it,
//! and nginx, busybox and their libraries from its own packages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::emulator::Emulator;
use super::fetch::{self, Kernel};
use super::{given, rows};
use crate::foreign::{self, Packages};
use crate::machine::{AARCH64, Machine};
use crate::{build, cross, setup, step, workspace};

/// What the names of its kernels end in.
const ENDING: (&str, Machine) = ("-arm64", AARCH64);

/// The packages; libraries that they depend on come along. The last two are what the
/// programs built here are linked to.
const PACKAGES: [&str; 5] = [
    "nginx",
    "busybox-static",
    "util-linux",
    "libc6",
    "libgcc-s1",
];
/// Where packages have programs.
const PROGRAMS: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];
/// Where they have libraries: there, and below in a folder of the machine's.
const LIBRARIES: [&str; 2] = ["lib", "usr/lib"];

/// Whether some rows are named, and all of another machine.
pub(super) fn are_all(names: &[String]) -> bool {
    let is_one = |name: &String| !given::is_file(name) && rows::line(name).0.ends_with(ENDING.0);
    !names.is_empty() && names.iter().all(is_one)
}

/// The kernels of these names, those of another machine by their ending; or all of this
/// machine: another one's take a compiler for it and much longer. One that cannot be had is
/// told with its reason and left out.
///
/// # Errors
/// If none can be had.
pub(super) fn kernels(names: &[String]) -> Result<Vec<Kernel>> {
    let (ending, machine) = ENDING;
    let mut native = Vec::new();
    let mut foreign = Vec::new();
    for name in names {
        match name.strip_suffix(ending) {
            Some(line) => foreign.push(line.to_owned()),
            None => native.push(name.clone()),
        }
    }
    let mut found = Ok(Vec::new());
    if names.is_empty() || !native.is_empty() {
        found = fetch::kernels(&native);
    }
    if foreign.is_empty() {
        return found;
    }
    let others = fetch::kernels_for(machine.debian, &foreign);
    let mut found = match (found, &others) {
        (Err(error), Err(_)) => return Err(error),
        (found, _) => found.unwrap_or_else(|error| {
            eprintln!("kernels: {error:#}");
            Vec::new()
        }),
    };
    let named = |kernel: Kernel| Kernel {
        name: kernel.name + ending,
        machine: Some(machine),
        ..kernel
    };
    match others {
        Ok(others) => found.extend(others.into_iter().map(named)),
        Err(error) if found.is_empty() => return Err(error),
        Err(error) => eprintln!("kernels: {error:#}"),
    }
    Ok(found)
}

/// What such a guest carries.
pub(super) struct Carried {
    pub(super) root: Root,
    pub(super) agent: PathBuf,
    /// The folder of the lab's programs.
    pub(super) lab: PathBuf,
}

impl Carried {
    /// Builds and fetches it for this machine, and installs what that and its emulator need.
    pub(super) fn have(machine: Machine) -> Result<Self> {
        Emulator::of(Some(machine)).need()?;
        let root = Root::have(machine)?;
        let found = setup::build()?;
        let cross = cross::set_up(machine, &found.toolchain)?;
        let agent = build::for_another(&found, &build::Options::default(), &cross)?;
        let mut lab = cross.cargo(&[]);
        lab.args(["build", "--quiet", "--package", "whoclosed-tests", "--bins"])
            .args(cross.target()?);
        step::run(&format!("build the lab for {}", machine.name), &mut lab)?;
        let lab = workspace::target()?.join(machine.triple).join("debug");
        Ok(Self { root, agent, lab })
    }
}

/// The packages' files.
#[derive(Clone, Debug)]
pub(super) struct Root {
    pub(super) machine: Machine,
    folder: PathBuf,
}

impl Root {
    /// Those of this machine; fetched first if they are not there.
    pub(super) fn have(machine: Machine) -> Result<Self> {
        let wanted = Packages {
            name: "what guests carry",
            folder: format!("guest-{}", machine.debian),
            packages: PACKAGES.map(str::to_owned).to_vec(),
            with_libraries: true,
        };
        let folder = foreign::have(machine, &wanted)?;
        Ok(Self { machine, folder })
    }

    /// A program.
    pub(super) fn program(&self, name: &str) -> Result<PathBuf> {
        let mut places = PROGRAMS.iter().map(|place| self.folder.join(place));
        places
            .find_map(|place| Some(place.join(name)).filter(|file| file.is_file()))
            .with_context(|| format!("no package for {} has {name}", self.machine.name))
    }

    /// Every library: its path in the guest, and the file here.
    pub(super) fn libraries(&self) -> Result<Vec<(String, PathBuf)>> {
        let mut found = Vec::new();
        for place in LIBRARIES {
            for place in [place.to_owned(), format!("{place}/{}", self.machine.prefix)] {
                for file in fs::read_dir(self.folder.join(&place)).into_iter().flatten() {
                    let name = file?.file_name().to_string_lossy().into_owned();
                    let path = format!("/{place}/{name}");
                    let here = self.here(&path);
                    if is_library(&name) && here.is_file() {
                        found.push((path, here));
                    }
                }
            }
        }
        Ok(found)
    }

    /// A file of the guest's, here. A link to `/lib/x` is one into that machine's `/lib`.
    fn here(&self, path: &str) -> PathBuf {
        let within = |path: &Path| self.folder.join(path.strip_prefix("/").unwrap_or(path));
        let file = within(Path::new(path));
        match fs::read_link(&file) {
            Ok(target) if target.is_absolute() => within(&target),
            _ => file,
        }
    }
}

/// A library, or the loader.
fn is_library(name: &str) -> bool {
    (name.starts_with("lib") || name.starts_with("ld-")) && name.contains(".so")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_another_machine_are_known_by_their_names() {
        let are_all = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            are_all(&names)
        };
        assert!(are_all(&["6.12-cloud-arm64", "7.3-arm64-integrity"]));
        assert!(!are_all(&["7.3-arm64", "6.12"]));
        assert!(!are_all(&["./vmlinux-arm64"]));
        assert!(!are_all(&[]));
    }

    #[test]
    fn libraries_and_the_loader_are_told_from_what_lies_beside_them() {
        for name in ["libc.so.6", "ld-linux-aarch64.so.1", "libz.so.1.2.13"] {
            assert!(is_library(name), "{name}");
        }
        for name in ["gconv", "systemd", "Mcrt1.o", "libc.a"] {
            assert!(!is_library(name), "{name}");
        }
    }
}
