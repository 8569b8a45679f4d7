//! A path resolved inside a root step by step, as the kernel does for `openat2(2)` with
//! `RESOLVE_IN_ROOT`: for where a filter of system calls answers that there is no such
//! call. systemd's does for every service with `DynamicUser=` or `RestrictSUIDSGID=`.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::Errno;

/// As many links as the kernel follows (`MAXSYMLINKS` of include/linux/namei.h).
const MOST_LINKS: u32 = 40;

/// Opens what the path leads to. Links and `..` do not lead out of the root.
///
/// # Errors
/// The kernel's; `ELOOP` after too many links.
pub(super) fn open(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    // Below the root, each opened in the one before: nothing that is moved meanwhile
    // makes `..` another.
    let mut entered: Vec<OwnedFd> = Vec::new();
    let mut left = Vec::new();
    push(&mut left, path.as_os_str());
    let mut links = 0;
    while let Some(step) = left.pop() {
        let at = entered.last().map_or(root, |directory| directory.as_fd());
        let name = match step {
            Step::Root => {
                entered.clear();
                continue;
            }
            Step::Here => continue,
            Step::Up => {
                // Only a directory has a parent.
                openat(at, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                entered.pop();
                continue;
            }
            Step::Into(name) => name,
        };
        let looked_at = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = openat(at, &name, looked_at, Mode::empty())?;
        let is_link = FileType::from_raw_mode(fstat(&found)?.st_mode) == FileType::Symlink;
        let is_last = left.is_empty();
        if is_link && !(is_last && flags.contains(OFlags::NOFOLLOW)) {
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::LOOP);
            }
            let target = readlinkat(&found, "", Vec::new())?;
            push(&mut left, OsStr::from_bytes(target.as_bytes()));
        } else if is_last {
            // One that became a link meanwhile is refused.
            return openat(at, &name, flags | OFlags::NOFOLLOW, Mode::empty());
        } else {
            entered.push(found);
        }
    }
    let at = entered.last().map_or(root, |directory| directory.as_fd());
    openat(at, ".", flags, Mode::empty())
}

enum Step {
    Root,
    Up,
    /// `.`, or nothing behind a slash: what came before is a directory, if it is the last.
    Here,
    Into(OsString),
}

/// Puts a path's steps before those that are left, the last of which comes next.
fn push(left: &mut Vec<Step>, path: &OsStr) {
    let bytes = path.as_bytes();
    let steps = bytes.split(|byte| *byte == b'/').map(|name| match name {
        b"" | b"." => Step::Here,
        b".." => Step::Up,
        name => Step::Into(OsStr::from_bytes(name).to_owned()),
    });
    left.extend(steps.rev());
    if bytes.first() == Some(&b'/') {
        left.push(Step::Root);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, ResolveFlags, openat2};

    use super::*;

    /// Links of all kinds: out of the root, upwards, to links, in circles, to nothing.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        std::fs::create_dir_all(path("etc/nginx/sites-enabled")).unwrap();
        std::fs::create_dir_all(path("etc/nginx/sites-available")).unwrap();
        std::fs::write(path("etc/nginx/sites-available/app"), "app").unwrap();
        std::fs::write(path("etc/passwd"), "inside").unwrap();
        for (link, target) in [
            (
                "etc/nginx/sites-enabled/app",
                "/etc/nginx/sites-available/app",
            ),
            ("etc/nginx/sites-enabled/relative", "../sites-available/app"),
            ("etc/nginx/sites-enabled/twice", "relative"),
            ("etc/nginx/sites-enabled/out", "../../../../../etc/passwd"),
            ("etc/nginx/sites-enabled/none", "/etc/nginx/none"),
            ("etc/nginx/sites-enabled/file-as-folder", "app/x"),
            ("etc/nginx/up", "sites-enabled/.."),
            ("etc/circle", "circle"),
            ("etc/one", "two"),
            ("etc/two", "./one"),
            ("etc/root", "/"),
            ("conf", "etc/nginx"),
        ] {
            symlink(target, path(link)).unwrap();
        }
        for n in 0..45 {
            symlink(format!("long-{}", n + 1), path(&format!("long-{n}"))).unwrap();
        }
        std::fs::write(path("long-45"), "").unwrap();
        root
    }

    #[test]
    fn each_path_leads_where_the_kernel_says() {
        let folder = tree();
        let look = OFlags::PATH | OFlags::CLOEXEC;
        let root = openat(CWD, folder.path(), look, Mode::empty()).unwrap();
        let names = [
            ".",
            "..",
            "etc",
            "nginx",
            "sites-enabled",
            "app",
            "relative",
            "twice",
            "out",
            "none",
            "file-as-folder",
            "up",
            "circle",
            "one",
            "root",
            "conf",
            "passwd",
            "long-1",
            "long-5",
            "long-6",
        ];
        let mut paths: Vec<String> = vec![String::new()];
        let mut compared = 0;
        for _ in 0..4 {
            let longer = paths.iter().flat_map(|path| {
                names.map(|name| {
                    if path.is_empty() {
                        name.to_owned()
                    } else {
                        format!("{path}/{name}")
                    }
                })
            });
            let longer: Vec<String> = longer.collect();
            let mut exist = Vec::new();
            for path in longer {
                for more in [OFlags::empty(), OFlags::NOFOLLOW, OFlags::DIRECTORY] {
                    let by_kernel = openat2(
                        &root,
                        &path,
                        look | more,
                        Mode::empty(),
                        ResolveFlags::IN_ROOT,
                    );
                    let here = open(root.as_fd(), Path::new(&path), look | more);
                    let identity = |fd: OwnedFd| fstat(&fd).map(|stat| (stat.st_dev, stat.st_ino));
                    let wanted = by_kernel.and_then(identity);
                    assert_eq!(here.and_then(identity), wanted, "{path} {more:?}");
                    compared += 1;
                    if more.is_empty() && wanted.is_ok() && !path.contains("long") {
                        exist.push(path.clone());
                    }
                }
            }
            // Those that lead on.
            exist.truncate(60);
            paths = exist;
        }
        assert!(compared > 3000, "{compared}");
    }
}
