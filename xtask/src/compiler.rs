//! What a Rust compiler says about itself: its version, its host and its LLVM.
//!
//! The linker of the kernel programs must read the compiler's bitcode, so its LLVM
//! may not be older than the compiler's.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step;

/// The oldest compiler that the workspace builds with.
pub(crate) const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// A version's first two numbers, which is as far as `rust-version` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// Reads `1.96.0`, `1.88` and Debian's `1.96.0+dfsg1-1~deb12u2`. An epoch is skipped.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.split_once(':').map_or(text, |(_, version)| version);
        let mut numbers = text.split('.').map(leading_number);
        Some(Self {
            major: numbers.next()??,
            minor: numbers.next()??,
        })
    }

    /// Whether a compiler of this version builds the workspace.
    pub(crate) fn is_enough(self) -> bool {
        Self::parse(OLDEST).is_none_or(|oldest| self >= oldest)
    }
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

/// What `rustc -vV` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// The line `release`, such as `1.96.0` or `1.98.0-nightly`.
    pub(crate) release: String,
    /// The host's target triple.
    pub(crate) host: String,
    /// The major version of the LLVM that the compiler is linked to.
    pub(crate) llvm: u32,
}

impl Compiler {
    /// Asks the compiler that `rustc` starts, with `-vV` added.
    pub(crate) fn ask(rustc: &mut Command) -> Option<Self> {
        Self::parse(&step::ask(rustc.arg("-vV"))?)
    }

    /// Reads the output of `rustc -vV`.
    pub(crate) fn parse(output: &str) -> Option<Self> {
        let value = |name: &str| {
            output
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        Some(Self {
            release: value("release")?.to_owned(),
            host: value("host")?.to_owned(),
            llvm: leading_number(value("LLVM version")?)?,
        })
    }

    /// Whether this compiler builds the workspace.
    pub(crate) fn is_enough(&self) -> bool {
        Version::parse(&self.release).is_some_and(Version::is_enough)
    }
}

/// The compiler that cargo uses for this machine's own programs.
pub(crate) fn host() -> Result<Compiler> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let compiler = Compiler::ask(Command::new(&rustc).current_dir(crate::workspace::root()))
        .with_context(|| format!("cannot ask {} for its version", rustc.display()))?;
    if !compiler.is_enough() {
        bail!(
            "rustc {} is older than {OLDEST}, the oldest that builds whoclosed; with rustup: \
             rustup update stable",
            compiler.release
        );
    }
    Ok(compiler)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
        binary: rustc\ncommit-hash: ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96\n\
        commit-date: 2026-05-25\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\n\
        LLVM version: 22.1.8\n";

    #[test]
    fn the_llvm_version_is_read_from_the_verbose_output() {
        let compiler = Compiler::parse(DEBIAN).unwrap();
        assert_eq!(compiler.llvm, 22);
        assert_eq!(compiler.host, "x86_64-unknown-linux-gnu");
        assert_eq!(compiler.release, "1.96.0");
    }

    #[test]
    fn output_without_an_llvm_line_is_not_a_compiler() {
        assert_eq!(
            Compiler::parse("rustc 1.96.0\nrelease: 1.96.0\nhost: x\n"),
            None
        );
        assert_eq!(Compiler::parse(""), None);
    }

    #[test]
    fn versions_compare_by_number_and_bear_suffixes() {
        let version = |text| Version::parse(text).unwrap();
        assert!(version("1.100.0") > version("1.96.0-nightly"));
        assert_eq!(version("1:1.96.0+dfsg1-1~deb12u2"), version("1.96"));
        assert_eq!(Version::parse("(none)"), None);
        assert!(version(OLDEST).is_enough());
        assert!(!version("1.75.0").is_enough());
    }
}
