//! The compiler of the kernel programs: one that builds `core` from source.
//!
//! Two kinds serve: rustup's nightly with its component rust-src, and a
//! distribution's own rustc with its source package, told by RUSTC_BOOTSTRAP to accept
//! `-Z build-std`. Linking is `linker`'s business.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::compiler::{Compiler, OLDEST};
use crate::{apt, linker, step, workspace};

const SYSTEM_RUSTC: &str = "/usr/bin/rustc";
const SYSTEM_CARGO: &str = "/usr/bin/cargo";

/// Debian's and Ubuntu's names for compiler, source and cargo. The `-web` packages are
/// Debian's newer compilers for its browsers; they and the plain ones exclude each other.
const PACKAGES: [[&str; 3]; 2] = [
    ["rustc-web", "rust-web-src", "cargo-web"],
    ["rustc", "rust-src", "cargo"],
];

/// Where a compiler comes from, which is how it is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// rustup's nightly.
    Rustup,
    /// The distribution's packages.
    System,
}

/// A compiler that can build the kernel programs.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    pub(crate) origin: Origin,
    pub(crate) compiler: Compiler,
    /// The folder that holds the library's source, among other things.
    pub(crate) sysroot: PathBuf,
}

impl Toolchain {
    /// This compiler's cargo, for building what runs on this machine.
    pub(crate) fn cargo(&self) -> Command {
        match self.origin {
            Origin::Rustup => {
                let mut command = step::outside_cargo("rustup");
                command.args(["run", "nightly", "cargo"]);
                command
            }
            Origin::System => {
                let mut command = step::outside_cargo(SYSTEM_CARGO);
                command.env("RUSTC", SYSTEM_RUSTC);
                command
            }
        }
    }

    /// This compiler's cargo, allowed to build `core`.
    pub(crate) fn cargo_build_std(&self) -> Command {
        let mut command = self.cargo();
        if self.origin == Origin::System {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }
}

/// The compilers on this machine that can build the programs, the preferred one first.
pub(crate) fn find() -> Result<Vec<Toolchain>> {
    let mut found: Vec<Toolchain> = rustup().into_iter().chain(system()).collect();
    // Stable: among those with a linker, and among those without, rustup's comes first.
    let mut linkers = Vec::new();
    for toolchain in &found {
        linkers.push((
            toolchain.origin,
            linker::find(toolchain.compiler.llvm)?.is_some(),
        ));
    }
    found.sort_by_key(|toolchain| !linkers.contains(&(toolchain.origin, true)));
    Ok(found)
}

fn rustup() -> Option<Toolchain> {
    workspace::find_program("rustup")?;
    let rustc = || {
        let mut command = step::outside_cargo("rustup");
        // Asking whether there is a nightly must not fetch one.
        command
            .env("RUSTUP_AUTO_INSTALL", "0")
            .args(["run", "nightly", "rustc"]);
        command
    };
    from_rustc(Origin::Rustup, rustc)
}

fn system() -> Option<Toolchain> {
    let is_rustup = |program: &str| {
        fs::canonicalize(program).is_ok_and(|file| file.file_name().is_some_and(|n| n == "rustup"))
    };
    let absent = |program: &str| !Path::new(program).exists() || is_rustup(program);
    if absent(SYSTEM_RUSTC) || absent(SYSTEM_CARGO) {
        return None;
    }
    from_rustc(Origin::System, || step::outside_cargo(SYSTEM_RUSTC))
}

fn from_rustc(origin: Origin, rustc: impl Fn() -> Command) -> Option<Toolchain> {
    let sysroot = PathBuf::from(step::ask(rustc().args(["--print", "sysroot"]))?.trim_end());
    if !sysroot
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .is_file()
    {
        return None;
    }
    let compiler = Compiler::ask(&mut rustc()).filter(Compiler::is_enough)?;
    Some(Toolchain {
        origin,
        compiler,
        sysroot,
    })
}

/// What would have to be done to get a compiler.
#[derive(Debug)]
pub(crate) enum Way {
    /// Install these packages.
    Packages([&'static str; 3]),
    /// Have rustup install a nightly with its source.
    Rustup,
}

/// The way to a compiler on this machine. Packages come first, because they leave the
/// user's rustup as it is, unless we may not install any and there is a rustup.
pub(crate) fn way() -> Result<Option<Way>> {
    let has_rustup = workspace::find_program("rustup").is_some();
    if apt::is_here() && (step::is_root() || !has_rustup) {
        // Old package lists know old compilers only.
        if let Some(packages) = packages()? {
            return Ok(Some(Way::Packages(packages)));
        }
        if apt::update_once()?
            && let Some(packages) = packages()?
        {
            return Ok(Some(Way::Packages(packages)));
        }
    }
    Ok(has_rustup.then_some(Way::Rustup))
}

/// The packages of the newest compiler that apt knows, if that is new enough.
fn packages() -> Result<Option<[&'static str; 3]>> {
    let candidates = apt::candidates(&PACKAGES.map(|[rustc, ..]| rustc))?;
    let chosen = apt::newest_rust(&candidates);
    Ok(PACKAGES
        .into_iter()
        .find(|[rustc, ..]| Some(*rustc) == chosen))
}

/// Has rustup install a nightly with its source, or adds the source to the one there is.
pub(crate) fn install_with_rustup() -> Result<()> {
    let mut command = step::outside_cargo("rustup");
    let has_nightly = step::ask(step::outside_cargo("rustup").args(["toolchain", "list"]))
        .is_some_and(|list| list.lines().any(|line| line.starts_with("nightly")));
    if has_nightly {
        command.args(["component", "add", "rust-src", "--toolchain", "nightly"]);
    } else {
        command.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
        command.args(["--component", "rust-src"]);
    }
    step::run("setup: rustup nightly with rust-src", &mut command).with_context(|| {
        let [[web_rustc, web_source, web_cargo], [rustc, source, cargo]] = PACKAGES;
        format!(
            "rustup could not install it (its message is above); packages serve as well, if their \
             rustc is {OLDEST} or newer: Debian's {web_rustc} {web_source} {web_cargo}, or \
             {rustc} {source} {cargo}"
        )
    })
}
