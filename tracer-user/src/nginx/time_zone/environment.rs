//! A variable of another process's environment.
//!
//! `/proc/PID/environ` shows the memory where the environment was at exec, and nginx
//! clears that when it sets its title (`ngx_setproctitle` pads to the end with NUL).
//! libc's `environ` still points to the copy that nginx made; it is read through
//! `/proc/PID/mem`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSegment as _, ObjectSymbol as _, ReadCache};
use procfs::process::{MMapPath, MemoryMap, Process};

use crate::nginx::processes::Root;

/// Variables looked at, at most.
const MOST_VARIABLES: u64 = 4096;
/// No TZ is longer.
const LONGEST_VARIABLE: usize = 512;

/// Value of a variable in a running process; `None` if it is not set or the process
/// does not let it be seen.
pub(super) fn variable(root: &Root, pid: u32, name: &str) -> Option<String> {
    let start = format!("{name}=");
    if let Some(found) = in_memory(root, pid, &start) {
        return found;
    }
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environ
        .split(|&byte| byte == 0)
        .find_map(|variable| value(variable, &start))
}

fn value(variable: &[u8], start: &str) -> Option<String> {
    let value = variable.strip_prefix(start.as_bytes())?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// `Some(None)`: the environment was read, and the variable is not in it.
fn in_memory(root: &Root, pid: u32, start: &str) -> Option<Option<String>> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let pointer = |address: u64| {
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, address).ok()?;
        Some(u64::from_ne_bytes(bytes))
    };
    let mut entry = pointer(environ_address(root, pid)?).filter(|&address| address != 0)?;
    for _ in 0..MOST_VARIABLES {
        let variable = pointer(entry)?;
        if variable == 0 {
            return Some(None);
        }
        let mut bytes = [0; LONGEST_VARIABLE];
        // Fewer bytes come where the mapping ends.
        let length = memory.read_at(&mut bytes, variable).ok()?;
        let end = memchr::memchr(0, &bytes[..length]).unwrap_or(length);
        if let Some(value) = value(&bytes[..end], start) {
            return Some(Some(value));
        }
        entry = entry.checked_add(8)?;
    }
    None
}

/// Where the process has `environ`: in the program itself if it was linked with a copy
/// relocation (or statically), in its C library else.
fn environ_address(root: &Root, pid: u32) -> Option<u64> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let maps = process.maps().ok()?.0;
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let in_exe = File::open(format!("/proc/{pid}/exe"))
        .ok()
        .zip(loaded_at(&maps, &exe));
    if let Some(address) = in_exe.and_then(|(file, base)| symbol_address(file, base)) {
        return Some(address);
    }
    let library = maps.iter().find_map(|map| match &map.pathname {
        MMapPath::Path(path) if is_c_library(path) => Some(path.clone()),
        _ => None,
    })?;
    symbol_address(root.file(&library).ok()?, loaded_at(&maps, &library)?)
}

/// glibc's `libc.so.6` (`libc-2.31.so` in older releases), musl's
/// `ld-musl-x86_64.so.1`.
fn is_c_library(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    ["libc.so", "libc-", "ld-musl-", "libc.musl-"]
        .iter()
        .any(|start| name.starts_with(start))
}

fn loaded_at(maps: &[MemoryMap], file: &Path) -> Option<u64> {
    let of_file = |map: &&MemoryMap| matches!(&map.pathname, MMapPath::Path(path) if path == file);
    maps.iter()
        .filter(of_file)
        .find(|map| map.offset == 0)
        .map(|map| map.address.0)
}

/// Address of `environ` in a file of which the first byte is at `base`.
fn symbol_address(file: File, base: u64) -> Option<u64> {
    let cache = ReadCache::new(file);
    let elf = ElfFile64::<Endianness, _>::parse(&cache).ok()?;
    let symbol = elf.dynamic_symbols().chain(elf.symbols()).find(|symbol| {
        symbol.is_definition() && matches!(symbol.name(), Ok("environ" | "__environ"))
    })?;
    // A program of fixed address has its first segment there; else it is at 0.
    let first = elf.segments().map(|segment| segment.address()).min()?;
    base.checked_sub(first)?.checked_add(symbol.address())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_environment_is_read_back() {
        let root = Root::open(Path::new("/")).unwrap();
        let own = std::process::id();
        let (name, expected) = std::env::vars()
            .find(|(name, value)| name.len() + value.len() < LONGEST_VARIABLE - 8)
            .expect("cargo sets short variables");
        assert_eq!(variable(&root, own, &name), Some(expected));
        assert_eq!(variable(&root, own, "WHOCLOSED_NO_SUCH_VARIABLE"), None);
    }
}
