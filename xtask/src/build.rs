//! `cargo xtask build`: the kernel programs, then the agent with them inside.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::cross::{self, Cross};
use crate::machine::Machine;
use crate::setup::{self, ForBuild};
use crate::{step, workspace};

#[derive(Args, Debug, Default)]
pub(crate) struct Options {
    /// Build the agent without optimisation (the programs are always optimised)
    #[arg(long)]
    debug: bool,
    /// Link the agent statically, so that one file runs on any host
    #[arg(long = "static")]
    statically: bool,
    /// Build for another machine than this: aarch64-unknown-linux-gnu
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
}

/// Runs the verb.
pub(crate) fn verb(options: &Options) -> Result<()> {
    let found = setup::build()?;
    let agent = build(&found, options)?;
    let size = fs::metadata(&agent)
        .with_context(|| format!("the agent was not built: {}", agent.display()))?
        .len();
    println!("{} ({size} bytes)", agent.display());
    Ok(())
}

/// Builds both halves; returns the agent's path.
pub(crate) fn build(found: &ForBuild, options: &Options) -> Result<PathBuf> {
    let target = options.target.as_deref();
    let machine = target.map(|triple| Machine::other(triple, &found.host.host));
    if let Some(machine) = machine.transpose()?.flatten() {
        let cross = cross::set_up(machine, &found.toolchain)?;
        return for_another(found, options, &cross);
    }
    let programs = programs(found, None)?;
    agent(found, options, &programs)
}

/// Builds both halves for another machine; returns the agent's path there.
pub(crate) fn for_another(
    found: &ForBuild,
    options: &Options,
    cross: &Cross<'_>,
) -> Result<PathBuf> {
    let programs = programs(found, Some(cross.machine))?;
    let flags: &[&str] = match options.statically {
        true => &["-Ctarget-feature=+crt-static"],
        false => &[],
    };
    let mut command = cross.cargo(flags);
    command
        .env("WHOCLOSED_PROGRAMS", programs)
        .args(["build", "--package", "tracer-user", "--bin", "whoclosed"])
        .args(cross.target()?);
    let profile = if options.debug { "debug" } else { "release" };
    if !options.debug {
        command.arg("--release");
    }
    let name = cross.machine.name;
    step::run(&format!("build the agent for {name}"), &mut command)?;
    let folder = workspace::target()?.join(cross.machine.triple);
    Ok(folder.join(profile).join("whoclosed"))
}

const BPF_TARGET: &str = "bpfel-unknown-none";

/// Builds the kernel programs, for another machine if one is given; returns the object's
/// path.
fn programs(found: &ForBuild, machine: Option<Machine>) -> Result<PathBuf> {
    let mut flags = rustflags(found)?;
    let mut folder = "bpf".to_owned();
    if let Some(machine) = machine {
        // Where a uprobe finds the arguments of a call. aya's default is the host.
        flags.push(format!("--cfg=bpf_target_arch=\"{}\"", machine.name));
        folder += &format!("-{}", machine.name);
    }
    let target = workspace::target()?.join(folder);
    let mut command = found.toolchain.cargo_build_std();
    let linker_folder = found.linker.parent().map(Path::to_path_buf);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(
        linker_folder
            .into_iter()
            .chain(std::env::split_paths(&path)),
    )
    .context("the linker's folder cannot stand in PATH")?;
    command
        .env("PATH", path)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .args([
            "build",
            "--package",
            "tracer-ebpf",
            "--bin",
            "whoclosed-programs",
        ])
        .args([
            "--features",
            "kernel",
            "--profile",
            "bpf",
            "-Z",
            "build-std=core",
        ])
        .args(["--target", BPF_TARGET, "--target-dir"])
        .arg(&target);
    step::run("build the kernel programs", &mut command)?;
    Ok(target
        .join(BPF_TARGET)
        .join("bpf")
        .join("whoclosed-programs"))
}

/// Debug information is what BTF is made from; the paths in it are made to say nothing
/// about the machine that built it.
fn rustflags(found: &ForBuild) -> Result<Vec<String>> {
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    // Of several prefixes that fit, rustc takes the last: the workspace may lie in the
    // home folder.
    Ok(vec![
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        remap(&workspace::home()?, "/home"),
        remap(&workspace::cargo_home()?, "/cargo"),
        remap(
            &found.toolchain.sysroot.join("lib/rustlib/src/rust"),
            "/rust",
        ),
        remap(workspace::root(), "/whoclosed"),
    ])
}

/// Builds the agent with the programs inside; returns its path.
fn agent(found: &ForBuild, options: &Options, programs: &Path) -> Result<PathBuf> {
    let target = workspace::target()?;
    let mut command = step::cargo();
    command
        .env("WHOCLOSED_PROGRAMS", programs)
        .args([
            "build",
            "--package",
            "tracer-user",
            "--bin",
            "whoclosed",
            "--target-dir",
        ])
        .arg(&target);
    let mut folder = target;
    if options.statically {
        // An explicit target keeps the flag off build scripts and procedural macros,
        // which cannot be linked statically.
        let given = std::env::var("RUSTFLAGS").unwrap_or_default();
        command.env(
            "RUSTFLAGS",
            format!("{given} -C target-feature=+crt-static"),
        );
        command.args(["--target", &found.host.host]);
        folder.push(&found.host.host);
    }
    if options.debug {
        folder.push("debug");
    } else {
        command.arg("--release");
        folder.push("release");
    }
    step::run("build the agent", &mut command)?;
    Ok(folder.join("whoclosed"))
}
