//! bpf-linker: finds one whose LLVM reads the compiler's bitcode, or builds it.
//!
//! Ours lie in the cache as `bpf-linker-llvm-N`, so that a newer compiler gets a
//! newer linker beside the old one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{apt, step, workspace};

const OURS: &str = "bpf-linker-llvm-";

/// A linker that runs on this machine and whose LLVM is not older than `llvm`: ours, or
/// the one in PATH.
pub(crate) fn find(llvm: u32) -> Result<Option<PathBuf>> {
    let tools = workspace::tools()?;
    let mut ours: Vec<u32> = fs::read_dir(&tools)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(OURS)?.parse().ok())
        .filter(|version| *version >= llvm)
        .collect();
    ours.sort_unstable();
    let ours = ours
        .into_iter()
        .rev()
        .map(|version| program(&tools, version));
    let in_path = workspace::find_program("bpf-linker")
        .filter(|program| linked_llvm(program).is_none_or(|linked| linked >= llvm));
    Ok(ours.chain(in_path).find(|program| runs(program)))
}

fn program(tools: &Path, llvm: u32) -> PathBuf {
    tools
        .join(format!("{OURS}{llvm}"))
        .join("bin")
        .join("bpf-linker")
}

fn runs(program: &Path) -> bool {
    step::ask(Command::new(program).arg("--version")).is_some()
}

/// The LLVM that a linker loads, or none if it was linked into it.
fn linked_llvm(program: &Path) -> Option<u32> {
    parse_linked_llvm(&step::ask(Command::new("ldd").arg(program))?)
}

/// Reads `libLLVM.so.22.1 => ...`, `libLLVM-19.so.1 => ...` and their like.
fn parse_linked_llvm(ldd: &str) -> Option<u32> {
    let name = ldd
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("libLLVM"))?;
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// Builds a linker for a compiler with this LLVM. `cargo` starts the cargo that builds it.
pub(crate) fn install(llvm: u32, cargo: &dyn Fn() -> Command) -> Result<PathBuf> {
    if !apt::is_here() {
        return install_anywhere(llvm, cargo);
    }
    let versions = apt::llvm_versions(llvm);
    let Some(last) = versions.last().copied() else {
        eprintln!("setup: apt knows no llvm-N-dev with N from {llvm} on");
        return install_anywhere(llvm, cargo);
    };
    for version in versions {
        let mut packages = vec![
            format!("llvm-{version}-dev"),
            format!("libpolly-{version}-dev"),
            "libzstd-dev".to_owned(),
            "zlib1g-dev".to_owned(),
        ];
        if workspace::find_program("c++").is_none() {
            // LLVM is linked together with the C++ library, whose `.so` comes with g++.
            packages.push("g++".to_owned());
        }
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        apt::install("bpf-linker", &apt::missing(&packages))?;
        match install_with(version, cargo) {
            Ok(program) => return Ok(program),
            // A new LLVM is packaged some months before bpf-linker knows it.
            Err(error) if version != last => {
                eprintln!("setup: bpf-linker with LLVM {version}: {error:#}; trying an older LLVM");
            }
            Err(error) => return Err(error),
        }
    }
    bail!("apt knows no llvm-N-dev with N from {llvm} on")
}

fn install_with(version: u32, cargo: &dyn Fn() -> Command) -> Result<PathBuf> {
    let tools = workspace::tools()?;
    let program = program(&tools, version);
    println!(
        "setup: builds bpf-linker (once, about a minute) into {}",
        tools.display()
    );
    let mut command = cargo();
    command
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{version}"))
        .args([
            "install",
            "bpf-linker",
            "--force",
            "--no-default-features",
            "--features",
        ])
        .arg(format!("llvm-{version}"))
        .arg("--root")
        .arg(tools.join(format!("{OURS}{version}")));
    step::run("setup: build bpf-linker", &mut command)?;
    if !runs(&program) {
        bail!(
            "the bpf-linker just built does not run: {}",
            program.display()
        );
    }
    Ok(program)
}

/// Where LLVM's place and version are not ours to know: bpf-linker's own default.
fn install_anywhere(llvm: u32, cargo: &dyn Fn() -> Command) -> Result<PathBuf> {
    println!("setup: builds bpf-linker with cargo install");
    let mut command = cargo();
    command.args(["install", "bpf-linker"]);
    step::run("setup: build bpf-linker", &mut command).with_context(|| {
        format!(
            "bpf-linker could not be built (its message is above); it needs LLVM {llvm} or newer \
             with headers, named by LLVM_PREFIX if it is not in the usual place. A bpf-linker put \
             into PATH by other means does as well"
        )
    })?;
    find(llvm)?
        .or_else(|| {
            let installed = workspace::cargo_home().ok()?.join("bin/bpf-linker");
            runs(&installed).then_some(installed)
        })
        .with_context(|| {
            format!("cargo installed a bpf-linker, but none with LLVM {llvm} or newer is in PATH")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_linker_is_read_from_its_libraries() {
        let debian = "\tlinux-vdso.so.1 (0x1)\n\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/x (0x2)\n";
        assert_eq!(parse_linked_llvm(debian), Some(22));
        assert_eq!(
            parse_linked_llvm("\tlibLLVM-19.so.1 => /x (0x2)\n"),
            Some(19)
        );
        assert_eq!(
            parse_linked_llvm("\tlibc.so.6 => /lib/libc.so.6 (0x2)\n"),
            None
        );
    }
}
