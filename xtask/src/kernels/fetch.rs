//! Kernels from Debian's archive, by the package manager: nothing is installed, the
//! system's list of sources stays as it is, and of each package only the kernel is kept,
//! unpacked, in the cache. Exact versions vanish from the archive, so what is asked for is
//! a line such as 6.12, and the newest kernel of it is taken.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::payload;
use super::suite::{self, SUITES, Suite};
use crate::machine::Machine;
use crate::{apt, step, workspace};

/// The lines that are booted where nothing is said, beside each from 7.0 on. The first is
/// too old for a capture. Newer kernels' packages without modules are small; of 6.16 and
/// 6.18 only the cloud's are.
pub(super) const LINES: [&str; 7] = [
    "5.10",
    "6.1",
    "6.1-cloud",
    "6.12",
    "6.12-cloud",
    "6.16-cloud",
    "6.18-cloud",
];
/// The first of the lines that are taken as they appear.
const NEW: u64 = 7;
/// Lists of packages younger than this are not fetched again.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// The file in the cache.
const KERNEL: &str = "vmlinux";
/// What kernels are compressed with, and the packages of that.
const UNPACKERS: [(&str, &str); 3] = [("xz", "xz-utils"), ("lz4", "lz4"), ("zstd", "zstd")];

/// A kernel in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// Its line, and the flavour unless that is the generic one: `6.12`, `6.12-cloud`.
    pub(crate) name: String,
    /// Its release as `uname -r` says it.
    pub(crate) release: String,
    /// The kernel itself: an ELF file on x86-64, an Image on aarch64.
    pub(crate) vmlinux: PathBuf,
    /// The machine that it is for; none for this one's.
    pub(crate) machine: Option<Machine>,
}

/// A package with a kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    /// The numbers of its release, for comparing.
    version: Vec<u64>,
    /// Whether it carries the kernel alone; from 6.19 on there is such a one.
    is_bare: bool,
    package: String,
    release: String,
}

/// The newest kernels of the wanted lines for this machine's architecture, or of the usual
/// ones if none is named. One that cannot be had is told with its reason and left out.
///
/// # Errors
/// If none can be had.
pub(crate) fn kernels(wanted: &[String]) -> Result<Vec<Kernel>> {
    let architecture = step::ask(Command::new("dpkg").arg("--print-architecture"))
        .context("other kernels come from Debian's packages, and there is no dpkg here")?;
    kernels_for(architecture.trim(), wanted)
}

/// As [`kernels`], for an architecture as Debian names it.
///
/// # Errors
/// If none can be had.
pub(crate) fn kernels_for(architecture: &str, wanted: &[String]) -> Result<Vec<Kernel>> {
    let folder = workspace::kernels()?;
    let mut offer = Offer::look(&folder, architecture, FRESH);
    let mut names: Vec<String> = wanted.to_vec();
    if names.is_empty() {
        names.extend(LINES.map(str::to_owned));
        names.extend(offer.new_lines());
    }
    let mut found = Vec::new();
    let mut left_out = Vec::new();
    for name in names {
        let mut outcome = offer.take(&folder, &name);
        if outcome.is_err() && !offer.is_fetched {
            // The archive may have replaced what the list names.
            offer = Offer::look(&folder, architecture, Duration::ZERO);
            outcome = offer.take(&folder, &name);
        }
        match outcome {
            Ok(kernel) => found.push(kernel),
            Err(error) => match cached(&folder, &name, architecture) {
                Some(kernel) => {
                    eprintln!(
                        "kernels: {} as it was fetched before: {error:#}",
                        kernel.release
                    );
                    found.push(kernel);
                }
                None => left_out.push((name, format!("{error:#}"))),
            },
        }
    }
    if found.is_empty() {
        let mut reasons: Vec<String> = left_out.into_iter().map(|(_, why)| why).collect();
        reasons.dedup();
        bail!(
            "none of the kernels that were asked for can be had: {}",
            reasons.join("; ")
        );
    }
    for (name, why) in left_out {
        eprintln!("kernels: {name} ({architecture}) is left out: {why}");
    }
    Ok(found)
}

/// What the suites have.
struct Offer {
    /// The newest kernel of each name.
    known: BTreeMap<String, (Suite, Package)>,
    /// Why a suite is not among them.
    reasons: Vec<String>,
    /// Whether all lists of packages were fetched just now.
    is_fetched: bool,
}

impl Offer {
    fn look(folder: &Path, architecture: &str, fresh: Duration) -> Self {
        let mut this = Self {
            known: BTreeMap::new(),
            reasons: Vec::new(),
            is_fetched: fresh.is_zero(),
        };
        for (suite, is_security) in SUITES {
            if let Err(error) = this.add(folder, suite, is_security, architecture, fresh) {
                this.reasons.push(format!("{error:#}"));
            }
        }
        // Of an archive that is out of reach nothing is gained by asking again.
        this.is_fetched |= this.known.is_empty();
        this
    }

    fn add(
        &mut self,
        folder: &Path,
        suite: &'static str,
        is_security: bool,
        architecture: &str,
        fresh: Duration,
    ) -> Result<()> {
        let suite = Suite::open(folder, suite, is_security, architecture, fresh)?;
        for (name, package) in newest(&suite.names()?, architecture) {
            let known = self.known.get(&name);
            if known.is_none_or(|(_, other)| *other < package) {
                self.known.insert(name, (suite.clone(), package));
            }
        }
        Ok(())
    }

    /// Generic kernels of the newest lines, oldest first.
    fn new_lines(&self) -> Vec<String> {
        let mut lines: Vec<_> = self
            .known
            .iter()
            .filter(|(name, (_, package))| !name.contains('-') && package.version[0] >= NEW)
            .map(|(name, (_, package))| (&package.version, name.clone()))
            .collect();
        lines.sort();
        lines.into_iter().map(|(_, name)| name).collect()
    }

    fn take(&self, folder: &Path, name: &str) -> Result<Kernel> {
        match self.known.get(name) {
            Some((suite, package)) => have(folder, name, suite, package),
            None if self.reasons.is_empty() => bail!("no suite has it"),
            None => bail!("{}", self.reasons.join("; ")),
        }
    }
}

/// The newest package of each name among package names.
fn newest(names: &str, architecture: &str) -> BTreeMap<String, Package> {
    let mut newest: BTreeMap<String, Package> = BTreeMap::new();
    for package in names.lines() {
        let Some((release, is_bare)) = package
            .strip_prefix("linux-binary-")
            .map(|release| (release, true))
            .or_else(|| Some((package.strip_prefix("linux-image-")?, false)))
        else {
            continue;
        };
        let Some((name, version)) = parse_release(release, architecture) else {
            continue;
        };
        let package = Package {
            version,
            is_bare,
            package: package.to_owned(),
            release: release.to_owned(),
        };
        let entry = newest.entry(name).or_insert_with(|| package.clone());
        if *entry < package {
            *entry = package;
        }
    }
    newest
}

/// The name of a release such as `6.12.90+deb12.1-cloud-amd64` and its numbers. Other
/// flavours than the generic and the cloud's have none, nor have packages that only point
/// to the newest kernel of a line.
fn parse_release(release: &str, architecture: &str) -> Option<(String, Vec<u64>)> {
    let rest = release.strip_suffix(architecture)?.strip_suffix('-')?;
    let (version, flavour) = match rest.strip_suffix("-cloud") {
        Some(version) => (version, "-cloud"),
        None => (rest, ""),
    };
    let words = version
        .split(|c: char| !c.is_ascii_alphabetic())
        .filter(|word| !word.is_empty());
    if words.into_iter().any(|word| word != "deb") {
        return None;
    }
    let numbers = line_of(version);
    (numbers.len() > 2 && version.starts_with(|c: char| c.is_ascii_digit()))
        .then(|| (format!("{}.{}{flavour}", numbers[0], numbers[1]), numbers))
}

/// The numbers in a version or a name; 0 where there is none.
fn line_of(version: &str) -> Vec<u64> {
    let numbers: Vec<u64> = version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    if numbers.is_empty() { vec![0] } else { numbers }
}

/// A suite's kernel in the cache; downloaded and unpacked first if it is not there.
fn have(folder: &Path, name: &str, suite: &Suite, package: &Package) -> Result<Kernel> {
    let place = folder.join(&package.release);
    let vmlinux = place.join(KERNEL);
    if !vmlinux.is_file() {
        need_unpackers()?;
        let temporary = folder.join(format!("download.{}", std::process::id()));
        let outcome = download(suite, package, &temporary).and_then(|unpacked| {
            match fs::rename(&unpacked, &place) {
                // Another run was quicker.
                Err(_) if vmlinux.is_file() => Ok(()),
                moved => moved.with_context(|| format!("cannot make {}", place.display())),
            }
        });
        let _ = fs::remove_dir_all(&temporary);
        outcome.with_context(|| format!("package {} of {}", package.package, suite.name))?;
        forget_older(folder, name, package, &suite.architecture);
    }
    Ok(Kernel {
        name: name.to_owned(),
        release: package.release.clone(),
        vmlinux,
        machine: None,
    })
}

/// Installs the programs that unpack kernels, where one is missing.
fn need_unpackers() -> Result<()> {
    let packages: Vec<String> = UNPACKERS
        .iter()
        .filter(|(program, _)| workspace::find_program(program).is_none())
        .map(|(_, package)| (*package).to_owned())
        .collect();
    apt::install("unpacking kernels", &packages)
}

/// Downloads a package and leaves nothing of it but the kernel. The folder with that.
fn download(suite: &Suite, package: &Package, temporary: &Path) -> Result<PathBuf> {
    let unpacked = temporary.join("unpacked");
    fs::create_dir_all(&unpacked)
        .with_context(|| format!("cannot create {}", unpacked.display()))?;
    let mut command = suite.apt_get();
    // The sandbox user may not enter a home folder, and apt would say so each time.
    command
        .args([
            "-o",
            "APT::Sandbox::User=root",
            "download",
            &package.package,
        ])
        .current_dir(temporary);
    suite::quietly(
        &format!("kernels: download {}", package.release),
        &mut command,
    )?;
    let archive = fs::read_dir(temporary)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get left no package")?;
    let image = image_of(&archive)?;
    let vmlinux = unpacked.join(KERNEL);
    fs::write(&vmlinux, payload::unpack(&image)?)
        .with_context(|| format!("cannot write {}", vmlinux.display()))?;
    Ok(unpacked)
}

/// The file `vmlinuz` of a package: in /boot, or beside the modules.
fn image_of(archive: &Path) -> Result<Vec<u8>> {
    let mut files = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let pipe = files.stdout.take().context("the pipe is gone")?;
    let output = Command::new("tar")
        .args(["-x", "-O", "--wildcards"])
        .args([
            "./boot/vmlinuz-*",
            "./usr/lib/modules/*/vmlinuz",
            "./lib/modules/*/vmlinuz",
        ])
        .stdin(pipe)
        // It complains of each pattern that matches nothing.
        .stderr(Stdio::null())
        .output()
        .context("cannot start tar")?;
    let status = files.wait().context("cannot wait for dpkg-deb")?;
    if output.stdout.is_empty() || !status.success() {
        bail!("the package has no kernel in it ({status})");
    }
    Ok(output.stdout)
}

/// The newest kernel of a name that an earlier run left in the cache.
fn cached(folder: &Path, name: &str, architecture: &str) -> Option<Kernel> {
    let (_, release) = in_cache(folder, name, architecture).into_iter().max()?;
    let vmlinux = folder.join(&release).join(KERNEL);
    vmlinux.is_file().then(|| Kernel {
        name: name.to_owned(),
        release,
        vmlinux,
        machine: None,
    })
}

fn in_cache(folder: &Path, name: &str, architecture: &str) -> Vec<(Vec<u64>, String)> {
    let releases = fs::read_dir(folder).into_iter().flatten().flatten();
    releases
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|release| {
            let (of, version) = parse_release(&release, architecture)?;
            (of == name).then_some((version, release))
        })
        .collect()
}

/// Removes the kernels that one just fetched takes the place of: each is some 60 MB.
fn forget_older(folder: &Path, name: &str, package: &Package, architecture: &str) {
    for (version, release) in in_cache(folder, name, architecture) {
        if version < package.version {
            let _ = fs::remove_dir_all(folder.join(release));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &str = "linux-image-6.1.0-9-amd64\nlinux-image-6.1.0-56-amd64\n\
        linux-image-6.1.0-0.deb11.48-amd64\nlinux-image-6.1.0-56-amd64-dbg\n\
        linux-image-6.1.0-57-rt-amd64\nlinux-image-6.1.0-57-amd64-unsigned\n\
        linux-image-6.12.90+deb12-cloud-amd64\nlinux-image-6.12.90+deb12.1-cloud-amd64\n\
        linux-image-6.12.9+deb12-cloud-amd64\nlinux-image-7.3.4+deb13-amd64\n\
        linux-binary-7.3.4+deb13-amd64\nlinux-image-7.3-amd64\nlinux-image-amd64\n\
        linux-binary-unsigned-7.3.5+deb13-amd64\nlinux-image-6.12.95+deb12-cloud-arm64\n\
        linux-headers-6.1.0-99-amd64\n";

    #[test]
    fn the_newest_kernel_of_each_line_and_flavour_is_found_by_its_numbers() {
        let found: Vec<(String, String)> = newest(NAMES, "amd64")
            .into_iter()
            .map(|(name, package)| (name, package.package))
            .collect();
        let expected = [
            ("6.1", "linux-image-6.1.0-56-amd64"),
            ("6.12-cloud", "linux-image-6.12.90+deb12.1-cloud-amd64"),
            ("7.3", "linux-binary-7.3.4+deb13-amd64"),
        ];
        assert_eq!(
            found,
            expected.map(|(name, package)| (name.into(), package.into()))
        );
        assert_eq!(newest(NAMES, "arm64").len(), 1);
    }
}
