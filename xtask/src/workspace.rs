//! Where things lie: the workspace, its build output, and the cache of tools that
//! outlives a `cargo clean`.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The workspace's root folder.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// The folder that cargo builds into. It is passed to every cargo call, so that what
/// was built is found whatever the environment or a configuration file says.
pub(crate) fn target() -> Result<PathBuf> {
    match env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty()) {
        Some(folder) => std::path::absolute(folder).context("cannot resolve CARGO_TARGET_DIR"),
        None => Ok(root().join("target")),
    }
}

/// The folder of tools that setup builds or unpacks for itself.
pub(crate) fn tools() -> Result<PathBuf> {
    Ok(cache()?.join("tools"))
}

/// The folder of other kernels than the host's.
pub(crate) fn kernels() -> Result<PathBuf> {
    Ok(cache()?.join("kernels"))
}

fn cache() -> Result<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME").map(PathBuf::from) {
        Some(folder) if folder.is_absolute() => folder,
        _ => home()?.join(".cache"),
    };
    Ok(cache.join("whoclosed"))
}

/// The user's home folder.
pub(crate) fn home() -> Result<PathBuf> {
    env::var_os("HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .context("HOME is not set, so there is no place for the cache")
}

/// The folder where cargo keeps downloaded sources.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    match env::var_os("CARGO_HOME").filter(|value| !value.is_empty()) {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => Ok(home()?.join(".cargo")),
    }
}

/// A program in PATH or in the system's sbin folders, which a user's PATH often lacks.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
