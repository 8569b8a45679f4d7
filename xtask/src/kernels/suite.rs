//! Suites of Debian's archive, each through a configuration of apt's that is ours alone:
//! what the system's own apt knows stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{apt, step};

/// A suite with kernels, and whether it is one of the security archive.
pub(crate) const SUITES: [(&str, bool); 3] = [
    ("bullseye-security", true),
    ("bookworm-security", true),
    ("trixie-backports", false),
];

/// The archive's keys, where Debian's package of them puts them.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The name of the system's own release and its security updates.
const SYSTEM: &str = "system";

/// A suite of the archive, known to a configuration of apt's that is ours alone.
#[derive(Clone, Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) architecture: String,
    configuration: PathBuf,
}

impl Suite {
    /// Fetches the suite's list of packages unless that is a fresh one.
    pub(crate) fn open(
        cache: &Path,
        name: &'static str,
        is_security: bool,
        architecture: &str,
        fresh: Duration,
    ) -> Result<Self> {
        Self::fetch(cache, name, architecture, fresh, || {
            let archives = archives()?;
            let address = if is_security {
                archives.security
            } else {
                archives.main
            };
            Ok(vec![(address, name.to_owned())])
        })
    }

    /// As [`Self::open`], of the release that this system is, security updates included.
    pub(crate) fn of_system(cache: &Path, architecture: &str, fresh: Duration) -> Result<Self> {
        Self::fetch(cache, SYSTEM, architecture, fresh, || {
            let Archives {
                main,
                security,
                release,
            } = archives()?;
            let updates = format!("{release}-security");
            Ok(vec![(main, release), (security, updates)])
        })
    }

    /// `sources` are addresses of archives with the suites there.
    fn fetch(
        cache: &Path,
        name: &'static str,
        architecture: &str,
        fresh: Duration,
        sources: impl FnOnce() -> Result<Vec<(String, String)>>,
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
        let sources = sources()?;
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
        let lines = sources
            .iter()
            .map(|(address, suite)| format!("deb {keys}{address} {suite} main\n"));
        write("sources.list", &lines.collect::<String>())?;
        write("apt.conf", &configuration(&folder, architecture))?;
        quietly(
            &format!("kernels: fetch the package list of {name} ({architecture})"),
            suite.apt_get().arg("update"),
        )?;
        write("fetched", "")?;
        Ok(suite)
    }

    pub(crate) fn apt_get(&self) -> Command {
        let mut command = apt::apt_get();
        command.arg("-c").arg(&self.configuration);
        command
    }

    /// The names of the packages that may have kernels, one a line.
    pub(crate) fn names(&self) -> Result<String> {
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

/// Where Debian's archive is.
#[derive(Debug, PartialEq, Eq)]
struct Archives {
    main: String,
    /// Of its security updates.
    security: String,
    /// The release that this system is.
    release: String,
}

/// Where the system's own sources have it.
fn archives() -> Result<Archives> {
    let targets = || {
        step::ask(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ]))
        .unwrap_or_default()
    };
    let mut found = parse_archives(&targets());
    if found.is_none() && apt::update_once()? {
        found = parse_archives(&targets());
    }
    found.context("the system's package sources do not name Debian's archive and security archive")
}

fn parse_archives(targets: &str) -> Option<Archives> {
    let sources = || {
        targets.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (address, release, component) = (words.next()?, words.next()?, words.next()?);
            (component == "main").then_some((address, release))
        })
    };
    let (security, release) = sources()
        .find_map(|(address, release)| Some((address, release.strip_suffix("-security")?)))?;
    let (main, _) = sources().find(|(_, other)| *other == release)?;
    Some(Archives {
        main: main.to_owned(),
        security: security.to_owned(),
        release: release.to_owned(),
    })
}

/// Runs a step whose output matters only if it fails.
pub(crate) fn quietly(name: &str, command: &mut Command) -> Result<()> {
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
        let expected = Archives {
            main: "http://mirror.example/debian/".to_owned(),
            security: "http://security.example/".to_owned(),
            release: "bookworm".to_owned(),
        };
        assert_eq!(parse_archives(targets), Some(expected));
        assert_eq!(parse_archives(""), None);
    }
}
