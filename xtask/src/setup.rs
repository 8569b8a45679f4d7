//! `cargo xtask setup`: finds what building and testing need and installs what is
//! missing, saying first what that will be. What is there is left alone.
//!
//! The other verbs call [`build`] or [`test`] for the part that they need.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::compiler::{self, Compiler, OLDEST};
use crate::toolchain::{self, Origin, Toolchain, Way};
use crate::{apt, kernels, linker, nginx, servers, step, workspace};

/// What building needs, found.
#[derive(Debug)]
pub(crate) struct ForBuild {
    /// The compiler of this machine's own programs.
    pub(crate) host: Compiler,
    /// The compiler of the kernel programs.
    pub(crate) toolchain: Toolchain,
    /// The linker of the kernel programs.
    pub(crate) linker: PathBuf,
}

/// What testing needs, found.
#[derive(Debug)]
pub(crate) struct ForTest {
    pub(crate) build: ForBuild,
    pub(crate) nginx: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Also what only the lab needs: nginx 1.28, built from source in two ways, and real servers
    #[arg(long)]
    lab: bool,
}

/// Runs the verb.
pub(crate) fn verb(options: &Options) -> Result<()> {
    let found = test()?;
    let newer = options.lab.then(nginx::version_1_28).transpose()?;
    let linked_whole = options.lab.then(nginx::static_1_28).transpose()?;
    let servers = options.lab.then(servers::install).transpose()?;
    let guests = kernels::install();
    let toolchain = &found.build.toolchain;
    let origin = match toolchain.origin {
        Origin::Rustup => "rustup's nightly",
        Origin::System => "the system's packages",
    };
    println!(
        "rust          {} ({})",
        found.build.host.release, found.build.host.host
    );
    println!(
        "rust for BPF  {} with LLVM {}, from {origin}",
        toolchain.compiler.release, toolchain.compiler.llvm
    );
    println!("bpf-linker    {}", found.build.linker.display());
    println!("nginx         {}", found.nginx.display());
    if let Some(newer) = newer {
        println!("nginx 1.28    {}", newer.display());
    }
    if let Some(linked_whole) = linked_whole {
        println!("nginx static  {}", linked_whole.display());
    }
    if let Some(servers) = servers {
        println!("real servers  {}", servers.display());
    }
    match guests {
        Ok([emulator, busybox]) => {
            println!("emulator      {}", emulator.display());
            println!("busybox       {}", busybox.display());
        }
        Err(error) => println!("emulator      none, so other kernels are not tested on: {error:#}"),
    }
    for (program, _) in TOOLS {
        let path = workspace::find_program(program).unwrap_or_default();
        println!("{program:<13} {}", path.display());
    }
    println!("Everything that building and testing need is here.");
    Ok(())
}

/// Programs that the tests call, and the packages that hold them by distribution.
const TOOLS: [(&str, &[&str]); 5] = [
    ("bpftool", &["bpftool", "linux-tools-generic"]),
    ("ip", &["iproute2"]),
    ("nft", &["nftables"]),
    ("ss", &["iproute2"]),
    ("openssl", &["openssl"]),
];

/// Sees to it that the programs and the agent can be built.
pub(crate) fn build() -> Result<ForBuild> {
    let host = compiler::host()?;
    install_base(&[])?;
    let (toolchain, linker) = toolchain_and_linker()?;
    Ok(ForBuild {
        host,
        toolchain,
        linker,
    })
}

/// Sees to it that the programs and the agent can be built and tested.
pub(crate) fn test() -> Result<ForTest> {
    let host = compiler::host()?;
    let unpacked = nginx::unpacked()?;
    let mut tools: Vec<(&str, &[&str])> = TOOLS.to_vec();
    if unpacked.is_none() && !apt::is_here() {
        tools.push(("nginx", &["nginx"]));
    }
    tools.retain(|(program, _)| workspace::find_program(program).is_none());
    if unpacked.is_none() {
        println!("setup: nginx for the tests is missing");
    }
    install_base(&tools)?;
    let nginx = match unpacked {
        Some(program) => program,
        None => nginx::install()?,
    };
    nginx::stream_module()?;
    let (toolchain, linker) = toolchain_and_linker()?;
    Ok(ForTest {
        build: ForBuild {
            host,
            toolchain,
            linker,
        },
        nginx,
    })
}

/// Installs, in one go, what comes as packages: the C compiler, the missing tools, and
/// the compiler of the kernel programs unless that is rustup's.
fn install_base(tools: &[(&str, &[&str])]) -> Result<()> {
    let no_c = !compiles_c();
    let way = if toolchain::find()?.is_empty() {
        Some(toolchain::way()?)
    } else {
        None
    };
    if no_c {
        println!("setup: a C compiler with its headers is missing");
    }
    for (program, _) in tools {
        println!("setup: {program} is missing");
    }
    if let Some(way) = &way {
        let what = match way {
            Some(Way::Packages(_)) => "comes as packages; bpf-linker is built next",
            Some(Way::Rustup) => "comes from rustup; bpf-linker is built next",
            None => "has to be installed by hand",
        };
        println!("setup: a compiler for the kernel programs is missing; it {what}");
    }
    let by_hand = matches!(way, Some(None));
    if by_hand || (!apt::is_here() && (no_c || !tools.is_empty())) {
        bail!(by_hand_message());
    }
    let mut packages: Vec<&str> = Vec::new();
    let named: Vec<String> = tools
        .iter()
        .map(|(program, names)| {
            apt::first_available(names)?.with_context(|| format!("no package holds {program}"))
        })
        .collect::<Result<_>>()?;
    packages.extend(named.iter().map(String::as_str));
    packages.dedup();
    if no_c {
        packages.extend(["gcc", "libc6-dev"]);
    }
    if let Some(Some(Way::Packages(rust))) = way {
        packages.extend(rust);
        // That cargo fetches bpf-linker and trusts the system's certificates only.
        packages.push("ca-certificates");
    }
    if !packages.is_empty() {
        // Also fetches the package lists where there are none.
        apt::candidates(&packages)?;
        apt::install("building and testing", &apt::missing(&packages))?;
    }
    if matches!(way, Some(Some(Way::Rustup))) {
        toolchain::install_with_rustup()?;
    }
    Ok(())
}

fn toolchain_and_linker() -> Result<(Toolchain, PathBuf)> {
    let toolchain = toolchain::find()?
        .into_iter()
        .next()
        .context("the compiler just installed cannot build the kernel programs")?;
    let llvm = toolchain.compiler.llvm;
    let linker = match linker::find(llvm)? {
        Some(linker) => linker,
        None => {
            println!("setup: a bpf-linker with LLVM {llvm} or newer is missing");
            linker::install(llvm, &|| toolchain.cargo())?
        }
    };
    Ok((toolchain, linker))
}

/// Whether there is a C compiler, with headers; zstd's own sources are compiled by it.
fn compiles_c() -> bool {
    let mut command = Command::new("cc");
    command.args([
        "-include",
        "stdlib.h",
        "-E",
        "-x",
        "c",
        "/dev/null",
        "-o",
        "/dev/null",
    ]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    step::ask(&mut command).is_some()
}

fn by_hand_message() -> String {
    let reason = if apt::is_here() {
        "apt knows no Rust compiler that is new enough (`apt-get update` may be due)"
    } else {
        "this system's packages are not ours to install"
    };
    format!(
        "{reason}; run what fits, then this command again\n  \
         Fedora, RHEL:  sudo dnf install gcc gcc-c++ llvm-devel libzstd-devel zlib-devel nginx \
         bpftool iproute nftables openssl\n  \
         Arch:          sudo pacman -S --needed gcc llvm zstd zlib nginx bpf iproute2 nftables openssl\n  \
         Debian, Ubuntu: rustc-web rust-web-src cargo-web, or rustc rust-src cargo, of version \
         {OLDEST} or newer\n  \
         and, unless the system's rustc is {OLDEST} or newer and comes with its source:\n    \
         rustup toolchain install nightly --profile minimal --component rust-src\n    \
         cargo install bpf-linker"
    )
}
