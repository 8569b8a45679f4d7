//! Suites of Debian's archive, each through a configuration of apt's that is ours alone:
//! what the system's own apt knows stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{apt, step};

/// A suite with kernels, and whether it is one of the security archive.
pub(super) const SUITES: [(&str, bool); 3] = [
    ("bullseye-security", true),
    ("bookworm-security", true),
    ("trixie-backports", false),
];

/// The archive's keys, where Debian's package of them puts them.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite of the archive, known to a configuration of apt's that is ours alone.
#[derive(Clone, Debug)]
pub(super) struct Suite {
    pub(super) name: &'static str,
    pub(super) architecture: String,
    configuration: PathBuf,
}

impl Suite {
    /// Fetches the suite's list of packages unless that is a fresh one.
    pub(super) fn open(
        cache: &Path,
        name: &'static str,
        is_security: bool,
        architecture: &str,
        fresh: Duration,
    ) -> Result<Self> {
        let folder = cache.join(format!("{name}.{architecture}"));
        let suite = Self {
            name,
            architecture: architecture.to_owned(),
            configuration: folder.join("apt.conf"),
        };
        let marker = folder.join("fetched");
        let age = || marker.metadata().ok()?.modified().ok()?.elapsed().ok();
        if age().is_some_and(|age| age < fresh) {
            return Ok(suite);
        }
        let address = address(is_security)?;
        for inner in ["state/lists/partial", "cache/archives/partial"] {
            let inner = folder.join(inner);
            fs::create_dir_all(&inner)
                .with_context(|| format!("cannot create {}", inner.display()))?;
        }
        let write = |file: &str, text: &str| {
            let file = folder.join(file);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        write("status", "")?;
        // Newer systems trust the archive's keys for the sources alone that name them.
        let keys = if Path::new(KEYS).is_file() {
            format!("[signed-by={KEYS}] ")
        } else {
            String::new()
        };
        write(
            "sources.list",
            &format!("deb {keys}{address} {name} main\n"),
        )?;
        write("apt.conf", &configuration(&folder, architecture))?;
        quietly(
            &format!("kernels: fetch the package list of {name} ({architecture})"),
            suite.apt_get().arg("update"),
        )?;
        write("fetched", "")?;
        Ok(suite)
    }

    pub(super) fn apt_get(&self) -> Command {
        let mut command = apt::apt_get();
        command.arg("-c").arg(&self.configuration);
        command
    }

    /// The names of the packages that may have kernels, one a line.
    pub(super) fn names(&self) -> Result<String> {
        let mut command = Command::new("apt-cache");
        command.arg("-c").arg(&self.configuration);
        step::ask(command.args(["pkgnames", "linux-"]))
            .with_context(|| format!("apt-cache cannot read the package list of {}", self.name))
    }
}

/// Everything that apt keeps goes into a folder of ours, and what the system wants done
/// after an update is not done after ours. How the archive is reached, and which keys are
/// trusted, stays as the system has it.
fn configuration(folder: &Path, architecture: &str) -> String {
    let folder = folder.display();
    format!(
        "Dir::Etc::SourceList \"{folder}/sources.list\";\n\
         Dir::Etc::SourceParts \"-\";\n\
         Dir::State \"{folder}/state\";\n\
         Dir::State::Status \"{folder}/status\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         #clear APT::Architectures;\n\
         APT::Architecture \"{architecture}\";\n\
         APT::Architectures {{ \"{architecture}\"; }};\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         APT::Update::Error-Mode \"any\";\n\
         #clear APT::Update::Pre-Invoke;\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n"
    )
}

/// Where the system's own sources have Debian's archive, or the one of its security
/// updates.
fn address(is_security: bool) -> Result<String> {
    let targets = || {
        step::ask(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ]))
        .unwrap_or_default()
    };
    let mut found = parse_address(&targets(), is_security);
    if found.is_none() && apt::update_once()? {
        found = parse_address(&targets(), is_security);
    }
    let archive = if is_security {
        "security archive"
    } else {
        "archive"
    };
    found.with_context(|| format!("the system's package sources do not name Debian's {archive}"))
}

fn parse_address(targets: &str, is_security: bool) -> Option<String> {
    let sources = || {
        targets.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (address, release, component) = (words.next()?, words.next()?, words.next()?);
            (component == "main").then_some((address, release))
        })
    };
    let (security, release) = sources()
        .find_map(|(address, release)| Some((address, release.strip_suffix("-security")?)))?;
    if is_security {
        return Some(security.to_owned());
    }
    sources()
        .find(|(_, other)| *other == release)
        .map(|(address, _)| address.to_owned())
}

/// Runs a step whose output matters only if it fails.
pub(super) fn quietly(name: &str, command: &mut Command) -> Result<()> {
    step::announce(name);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let told = said.lines().find(|line| line.starts_with("E: "));
    bail!(
        "{name}: {}",
        told.or(said.lines().last())
            .unwrap_or("it failed and said nothing")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archives_address_is_the_systems_own() {
        let targets = "https://example.net/tool/ bookworm stable\n\
            http://mirror.example/debian/ bookworm main\n\
            http://mirror.example/debian/ bookworm-updates main\n\
            http://security.example/ bookworm-security main\n";
        let (archive, security) = (parse_address(targets, false), parse_address(targets, true));
        assert_eq!(archive.as_deref(), Some("http://mirror.example/debian/"));
        assert_eq!(security.as_deref(), Some("http://security.example/"));
        assert_eq!(parse_address("", false), None);
    }
}
