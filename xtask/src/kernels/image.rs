//! The guest's file system: busybox, the real agent, a real nginx and the lab, with the
//! libraries that they ask for, in one archive that the kernel unpacks into memory. All of
//! it is this machine's own, and of the guest's is the kernel alone; but where the guest is
//! another machine, what is not built here is from packages of that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::another::Root;
use super::archive::Archive;
use crate::{step, workspace};

/// What the guest runs first: makes a usable system, runs the command, tells how it ended
/// on the second serial port, where no message of the kernel's gets in between, and
/// switches off.
const INIT: &str = include_str!("init.sh");
/// The command's place in the guest.
const COMMAND: &str = "/command.sh";
/// Users and groups that nginx asks for.
const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/:/bin/false\n\
    nobody:x:65534:65534::/:/bin/false\n";
const GROUPS: &str = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\nnobody:x:65534:\n";
/// Empty folders.
const FOLDERS: [&str; 9] = [
    "/proc",
    "/sys",
    "/dev",
    "/tmp",
    "/run",
    "/root",
    "/var/log/nginx",
    "/var/lib/nginx",
    "/sbin",
];

/// A program of the guest's: its name in `/bin` there, and the file here.
pub(super) type Program<'a> = (&'a str, &'a Path);

/// Builds the archive of these programs, and of the command that the guest is to run. What
/// the guest has from packages of its own machine comes with `root`.
pub(super) fn build(
    programs: &[Program<'_>],
    command: &str,
    root: Option<&Root>,
) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.folder(folder);
    }
    archive.file("/etc/passwd", 0o644, USERS);
    archive.file("/etc/group", 0o644, GROUPS);
    archive.file("/etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n");
    archive.file("/init", 0o755, INIT);
    archive.file(COMMAND, 0o755, command);
    for (name, file) in programs {
        program(&mut archive, &format!("/bin/{name}"), file, root)?;
    }
    let busybox = busybox()?;
    match root {
        None => program(&mut archive, "/bin/busybox", &busybox, root)?,
        Some(root) => {
            archive.copy("/bin/busybox", &root.program("busybox")?)?;
            for (path, library) in root.libraries()? {
                archive.copy(&path, &library)?;
            }
        }
    }
    // Which commands another machine's has, this machine's tells: they are of one release.
    let applets = step::ask(Command::new(&busybox).arg("--list"));
    for applet in applets
        .context("busybox does not list its commands")?
        .lines()
    {
        archive.link(&format!("/bin/{applet}"), "busybox");
    }
    archive.bytes()
}

/// Adds a program without its symbols, and the libraries that the loader finds for it here.
fn program(archive: &mut Archive, path: &str, file: &Path, root: Option<&Root>) -> Result<()> {
    archive.copy(path, &stripped(file, root))?;
    if root.is_some() {
        return Ok(());
    }
    // Of one that is linked statically it says so, and fails.
    let libraries = step::ask(Command::new("ldd").arg(file)).unwrap_or_default();
    for library in parse_libraries(&libraries) {
        if !archive.has(library) {
            archive.copy(library, Path::new(library))?;
        }
    }
    Ok(())
}

/// Absolute paths in what ldd prints.
fn parse_libraries(output: &str) -> impl Iterator<Item = &str> {
    output
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

/// A copy without symbols where one can be made: a debug build of the lab is 70 MB of
/// them. nginx, whose symbols a capture needs, and the agent come as they are.
fn stripped(file: &Path, root: Option<&Root>) -> PathBuf {
    let is_ours = file
        .parent()
        .is_some_and(|folder| folder.ends_with("debug"));
    let program = match root {
        None => "strip".to_owned(),
        Some(root) => format!("{}-strip", root.machine.prefix),
    };
    let (Some(strip), Some(name), true) =
        (workspace::find_program(&program), file.file_name(), is_ours)
    else {
        return file.to_owned();
    };
    let Ok(folder) = super::files::folder() else {
        return file.to_owned();
    };
    let mut name = name.to_owned();
    if let Some(root) = root {
        name.push(format!("-{}", root.machine.debian));
    }
    let copy = folder.join(name);
    let newer = |one: &Path, other: &Path| {
        let time = |file: &Path| fs::metadata(file).and_then(|file| file.modified()).ok();
        time(one) >= time(other) && time(one).is_some()
    };
    if newer(&copy, file) {
        return copy;
    }
    let made = step::ask(Command::new(strip).arg("-o").arg(&copy).arg(file)).is_some();
    if made { copy } else { file.to_owned() }
}

/// Busybox; the statically linked one is installed if there is none.
pub(super) fn busybox() -> Result<PathBuf> {
    super::need("busybox", "busybox-static")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_itself_are_found_in_what_ldd_prints() {
        let output = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibcrypt.so.1 => /lib/x/libcrypt.so.1 \
            (0x00007f84)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f84)\n";
        let found: Vec<&str> = parse_libraries(output).collect();
        assert_eq!(
            found,
            ["/lib/x/libcrypt.so.1", "/lib64/ld-linux-x86-64.so.2"]
        );
        assert_eq!(parse_libraries("\tstatically linked\n").count(), 0);
    }
}
