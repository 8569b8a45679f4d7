//! Where the real servers lie.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{processes, tool};

/// Folder of the servers that are not installed but unpacked: `WHOCLOSED_SERVERS`, else
/// setup's.
#[derive(Clone, Debug)]
pub struct Places {
    folder: PathBuf,
}

impl Places {
    /// From the environment.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn find() -> Result<Self> {
        let cache = || {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
            Some(cache.or_else(home)?.join("whoclosed/tools/servers"))
        };
        let folder = std::env::var_os("WHOCLOSED_SERVERS")
            .map(PathBuf::from)
            .or_else(cache)
            .context("neither WHOCLOSED_SERVERS nor HOME is set")?;
        if !folder.is_dir() {
            bail!(
                "no servers in {}: run `cargo xtask setup --lab`",
                folder.display()
            );
        }
        Ok(Self { folder })
    }

    /// A program of the Python environment.
    ///
    /// # Errors
    /// If it is not there.
    pub fn python(&self, program: &str) -> Result<PathBuf> {
        self.file(&format!("python/bin/{program}"))
    }

    /// A folder or file of an unpacked server.
    ///
    /// # Errors
    /// If it is not there.
    pub fn file(&self, path: &str) -> Result<PathBuf> {
        let file = self.folder.join(path);
        if !file.exists() {
            bail!("no {}: run `cargo xtask setup --lab`", file.display());
        }
        Ok(file)
    }

    /// The first file of an unpacked folder whose name begins so: some names end with
    /// their version.
    ///
    /// # Errors
    /// If there is none.
    pub fn beginning(&self, folder: &str, name: &str) -> Result<PathBuf> {
        let folder = self.file(folder)?;
        let found = std::fs::read_dir(&folder)
            .with_context(|| format!("cannot list {}", folder.display()))?
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with(name));
        let found = found.with_context(|| format!("no {name} in {}", folder.display()))?;
        Ok(found.path())
    }

    /// A program of the system's.
    ///
    /// # Errors
    /// If it is not installed.
    pub fn system(name: &str) -> Result<PathBuf> {
        processes::which(name).with_context(|| format!("no {name}: run `cargo xtask setup --lab`"))
    }
}

/// What a program says of its version: the first word with a dot and digits.
///
/// # Errors
/// If it does not run, or says none.
pub(super) fn version(program: &Path, argument: &str) -> Result<String> {
    let finished = tool::finish(Command::new(program).arg(argument))?.succeeded()?;
    let said = finished.text() + &finished.stderr;
    let word = version_in(&said);
    word.with_context(|| format!("{} {argument} says {said:?}", program.display()))
}

fn version_in(said: &str) -> Option<String> {
    let word = said
        .split(|c: char| c.is_whitespace() || "/(),\"".contains(c))
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()))?;
    Some(word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_servers_say() {
        for (said, version) in [
            ("v20.20.2\n", "20.20.2"),
            ("gunicorn (version 23.0.0)\n", "23.0.0"),
            ("Server version: Apache/2.4.71 (Debian)\n", "2.4.71"),
            ("PHP 8.2.36 (fpm-fcgi) (built: x)\n", "8.2.36"),
            ("openjdk version \"17.0.15\" 2025-04-15\n", "17.0.15"),
            ("nginx version: nginx/1.28.3\n", "1.28.3"),
        ] {
            assert_eq!(version_in(said).as_deref(), Some(version));
        }
        assert_eq!(version_in("none"), None);
    }
}
