//! Building for another machine: its standard library of Rust, its C library and linker,
//! installed on demand, and a cargo that uses them.
//!
//! The compiler is that of the kernel programs, because setup knows where it comes from:
//! to rustup's nightly rustup adds the target, and to a distribution's the package of the
//! same version for that machine is unpacked into the cache. The linker and the C library
//! are packages of this machine's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::foreign::{self, Packages};
use crate::machine::Machine;
use crate::toolchain::{Origin, Toolchain};
use crate::{apt, step, workspace};

/// Where a folder of compilers has a target's libraries.
const LIBRARIES: &str = "lib/rustlib";
/// A distribution's compiler, by which its package is found.
const RUSTC: &str = "/usr/bin/rustc";

/// What builds for another machine, found.
#[derive(Debug)]
pub(crate) struct Cross<'a> {
    pub(crate) machine: Machine,
    toolchain: &'a Toolchain,
    linker: PathBuf,
    /// The folder with the libraries, if the compiler's own has none for that machine.
    sysroot: Option<PathBuf>,
}

/// Sees to it that programs can be built for this machine.
///
/// # Errors
/// If something for it is missing and cannot be had.
pub(crate) fn set_up(machine: Machine, toolchain: &Toolchain) -> Result<Cross<'_>> {
    let linker = linker(machine)?;
    let has_libraries = |sysroot: &Path| {
        let folder = sysroot.join(LIBRARIES).join(machine.triple).join("lib");
        let files = folder.read_dir().into_iter().flatten().flatten();
        let mut names = files.filter_map(|entry| entry.file_name().into_string().ok());
        names.any(|name| name.starts_with("libstd-"))
    };
    let sysroot = match toolchain.origin {
        _ if has_libraries(&toolchain.sysroot) => None,
        Origin::System => Some(unpack_libraries(machine)?.join("usr")),
        Origin::Rustup => {
            let mut command = step::outside_cargo("rustup");
            command.args(["target", "add", "--toolchain", "nightly", machine.triple]);
            step::run("setup: rustup target", &mut command)?;
            None
        }
    };
    let sysroot_used = sysroot.as_deref().unwrap_or(&toolchain.sysroot);
    if !has_libraries(sysroot_used) {
        bail!(
            "{} has no standard library of Rust for {}",
            sysroot_used.display(),
            machine.triple
        );
    }
    Ok(Cross {
        machine,
        toolchain,
        linker,
        sysroot,
    })
}

impl Cross<'_> {
    /// A cargo that builds for that machine, with these flags for the compiler.
    pub(crate) fn cargo(&self, flags: &[&str]) -> Command {
        let mut all: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        if let Some(sysroot) = &self.sysroot {
            all.push(format!("--sysroot={}", sysroot.display()));
        }
        let mut command = self.toolchain.cargo();
        command
            .env(self.machine.cargo_variable("LINKER"), &self.linker)
            // With an explicit target they do not reach what runs on this machine.
            .env("CARGO_ENCODED_RUSTFLAGS", all.join("\u{1f}"));
        command
    }

    /// The arguments that say what is built, and where.
    pub(crate) fn target(&self) -> Result<[PathBuf; 4]> {
        Ok([
            "--target".into(),
            self.machine.triple.into(),
            "--target-dir".into(),
            workspace::target()?,
        ])
    }
}

/// The C compiler that links, with the C library that it links to.
fn linker(machine: Machine) -> Result<PathBuf> {
    let program = format!("{}-gcc", machine.prefix);
    let packages = [
        format!("gcc-{}", machine.prefix),
        format!("libc6-dev-{}-cross", machine.debian),
    ];
    if apt::is_here() {
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        let missing = apt::missing(&packages);
        if !missing.is_empty() {
            // Also fetches the package lists where there are none.
            apt::candidates(&packages)?;
            apt::install(&format!("building for {}", machine.name), &missing)?;
        }
    }
    workspace::find_program(&program).with_context(|| {
        format!(
            "{program} is missing, which links for {}; it has to come with that machine's C \
             library, as Debian's {} do",
            machine.name,
            packages.join(" and ")
        )
    })
}

/// The standard library that belongs to the distribution's compiler.
fn unpack_libraries(machine: Machine) -> Result<PathBuf> {
    let query = |arguments: &[&str]| step::ask(Command::new("dpkg-query").args(arguments));
    let owner = query(&["-S", RUSTC]);
    let package = owner
        .as_deref()
        .and_then(parse_owner)
        .with_context(|| format!("{RUSTC} is of no package, so its libraries are not known"))?;
    let version = query(&["-W", "-f=${Version}", package])
        .with_context(|| format!("{package} has no version"))?;
    let wanted = wanted(machine, package, &version)
        .with_context(|| format!("{package} is no Rust compiler of Debian's"))?;
    foreign::have(machine, &wanted).with_context(|| {
        format!(
            "the archive may have a newer {package} meanwhile: upgrade it, or let rustup be used"
        )
    })
}

/// The package in `rustc-web: /usr/bin/rustc`.
fn parse_owner(output: &str) -> Option<&str> {
    output.lines().next()?.split([':', ',']).next()
}

/// A compiler reads libraries of its own version alone.
fn wanted(machine: Machine, package: &str, version: &str) -> Option<Packages<'static>> {
    let rest = package.strip_prefix("rustc")?;
    Some(Packages {
        name: "the standard library of Rust",
        folder: format!("rust-std{rest}-{version}-{}", machine.debian),
        packages: vec![format!("libstd-rust{rest}-dev={version}")],
        with_libraries: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::AARCH64;

    #[test]
    fn the_libraries_are_those_of_the_compilers_own_version() {
        let package = parse_owner("rustc-web: /usr/bin/rustc\n").unwrap();
        let wanted = wanted(AARCH64, package, "1.96.0+dfsg1-1~deb12u2").unwrap();
        let expected = ["libstd-rust-web-dev=1.96.0+dfsg1-1~deb12u2"];
        assert_eq!(wanted.packages, expected);
        assert!(wanted.folder.ends_with("1.96.0+dfsg1-1~deb12u2-arm64"));
        let plain = super::wanted(AARCH64, "rustc", "1.90.0-1").unwrap();
        assert_eq!(plain.packages, ["libstd-rust-dev=1.90.0-1"]);
        assert!(super::wanted(AARCH64, "mine", "1").is_none());
    }
}
