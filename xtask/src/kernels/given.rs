//! A kernel that is given as a file, for one that the archive has not: what a boot loader
//! takes (`/boot/vmlinuz-5.15.0-130-generic`), or the ELF file `vmlinux` of a build.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::fetch::Kernel;
use super::{files, payload};

/// Stands before the release in every kernel (init/version.c `linux_banner`).
const BANNER: &[u8] = b"Linux version ";

/// Whether what is asked for is a file, and no name such as 6.12.
pub(super) fn is_file(name: &str) -> bool {
    name.contains('/')
}

/// The kernel in a file for x86-64; its name is the file's.
///
/// # Errors
/// If the file cannot be read or is no kernel.
pub(super) fn kernel(file: &str) -> Result<Kernel> {
    let file = Path::new(file);
    let read = || format!("cannot use {} as a kernel", file.display());
    let image = fs::read(file).with_context(read)?;
    let name = file.file_name().with_context(read)?.to_string_lossy();
    let (vmlinux, release) = if image.starts_with(b"\x7fELF") {
        (std::path::absolute(file)?, release(&image))
    } else {
        let unpacked = payload::unpack(&image).with_context(read)?;
        (keep(&name, &unpacked)?, release(&unpacked))
    };
    Ok(Kernel {
        release: release.with_context(read)?,
        name: name.into_owned(),
        vmlinux,
        machine: None,
    })
}

/// Beside what its guest writes; the next run with a file of this name replaces it.
fn keep(name: &str, unpacked: &[u8]) -> Result<PathBuf> {
    let folder = files::folder()?.join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let vmlinux = folder.join("vmlinux");
    fs::write(&vmlinux, unpacked).with_context(|| format!("cannot write {}", vmlinux.display()))?;
    Ok(vmlinux)
}

/// What `uname -r` will say.
///
/// # Errors
/// If it is not there.
fn release(kernel: &[u8]) -> Result<String> {
    let mut found = kernel
        .windows(BANNER.len())
        .enumerate()
        .filter(|(_, bytes)| *bytes == BANNER)
        .filter_map(|(at, _)| {
            let rest = kernel.get(at + BANNER.len()..)?;
            let end = rest.iter().position(|byte| *byte == b' ')?;
            std::str::from_utf8(rest.get(..end)?).ok()
        });
    found
        // One is for printing: "Linux version %s".
        .find(|release| release.starts_with(|letter: char| letter.is_ascii_digit()))
        .map(str::to_owned)
        .context("it does not say which Linux it is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_file_and_a_line_is_none() {
        assert!(is_file("./vmlinux") && is_file("/boot/vmlinuz-5.15.0-130-generic"));
        assert!(!is_file("6.12-cloud") && !is_file("host"));
    }

    #[test]
    fn the_release_is_found_behind_the_words_for_printing() {
        let kernel = b"x\0Linux version %s (%s)\0y\0Linux version 5.15.85-test (gcc) #1\0";
        assert_eq!(release(kernel).unwrap(), "5.15.85-test");
        assert!(release(b"\x7fELF and Linux version %s (%s)").is_err());
        assert!(release(b"Linux version 5").is_err());
    }
}
