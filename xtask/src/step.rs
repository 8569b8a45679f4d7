//! Runs other programs: names each step, keeps the caller's cargo out of their
//! environment, and carries the first failure's exit status to the end.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};

/// A step whose program ran and reported failure.
#[derive(Debug)]
pub(crate) struct Failed {
    step: String,
    status: ExitStatus,
}

impl Failed {
    /// The exit status to end with: the program's own, or 128 and the signal that
    /// ended it, as shells have it.
    pub(crate) fn code(&self) -> u8 {
        let code = self
            .status
            .code()
            .or_else(|| self.status.signal().map(|signal| 128 + signal));
        code.and_then(|code| u8::try_from(code).ok())
            .filter(|code| *code != 0)
            .unwrap_or(1)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step \"{}\" failed ({})", self.step, self.status)
    }
}

impl std::error::Error for Failed {}

/// Prints the step's name and runs its command, whose output goes where ours goes.
pub(crate) fn run(step: &str, command: &mut Command) -> Result<()> {
    announce(step);
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!(Failed {
            step: step.to_owned(),
            status
        });
    }
    Ok(())
}

/// Tells a step's name on stderr: stdout is for results.
pub(crate) fn announce(step: &str) {
    // What was printed before comes first. A reader that went away is no reason to stop:
    // the next write reports it.
    let _ = std::io::stdout().flush();
    eprintln!("==> {step}");
}

/// The standard output of a command that succeeded, or nothing if it failed or is
/// absent. For questions whose "no" is an answer.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    let output = command.env("LC_ALL", "C").output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The cargo that started this program, without the variables that describe this
/// package to it.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(describes_package) {
            command.env_remove(name);
        }
    }
    command.current_dir(crate::workspace::root());
    command
}

/// A program that must not see which cargo, compiler or flags we were built with.
pub(crate) fn outside_cargo(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(selects_toolchain) {
            command.env_remove(name);
        }
    }
    command.current_dir(crate::workspace::root());
    command
}

fn describes_package(name: &str) -> bool {
    [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
        "CARGO_PRIMARY_",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
}

/// Cargo's variables, except those that say where and how it reaches packages. Cargo
/// puts its own toolchain's libraries in LD_LIBRARY_PATH for the programs it runs.
fn selects_toolchain(name: &str) -> bool {
    let reaches_packages = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    if name.starts_with("CARGO") {
        return !reaches_packages
            .iter()
            .any(|prefix| name.starts_with(prefix));
    }
    name.starts_with("RUSTC")
        || [
            "RUSTFLAGS",
            "RUSTDOC",
            "RUSTDOCFLAGS",
            "RUSTUP_TOOLCHAIN",
            "LD_LIBRARY_PATH",
        ]
        .contains(&name)
}

/// Whether we run as root, by the effective user id.
pub(crate) fn is_root() -> bool {
    ask(Command::new("id").arg("-u")).is_some_and(|user| user.trim() == "0")
}

/// Refuses to go on without root, saying what it is for and how to get it.
pub(crate) fn require_root(purpose: &str, verb: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!(
        "{purpose} root, because only root may load programs into the kernel; run\n    \
         sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask {verb}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_ends_us_as_a_shell_would_report_it() {
        let failed = |status| Failed {
            step: "x".into(),
            status: ExitStatus::from_raw(status),
        };
        assert_eq!(failed(101 << 8).code(), 101);
        assert_eq!(failed(2).code(), 130);
    }

    #[test]
    fn the_way_to_packages_survives_the_cleaning() {
        assert!(selects_toolchain("CARGO_BUILD_TARGET"));
        assert!(selects_toolchain("RUSTC_WRAPPER"));
        assert!(selects_toolchain("RUSTUP_TOOLCHAIN"));
        assert!(!selects_toolchain("CARGO_HOME"));
        assert!(!selects_toolchain("CARGO_REGISTRIES_CRATES_IO_PROTOCOL"));
        assert!(!selects_toolchain("RUST_BACKTRACE"));
    }
}
