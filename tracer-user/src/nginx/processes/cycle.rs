//! Which configuration a master has loaded: it makes a new cycle when it loads one
//! (`ngx_init_cycle`), and keeps the old one if that fails. Files may change without
//! that, and workers be started without it, in place of others that died.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use procfs::process::{MMapPath, Process};

use super::{Instance, proc_path};
use crate::nginx::binary::Binary;

/// The address of the master's cycle, which is another one after each reload. `None` if
/// the binary has no symbols, or its memory may not be read.
pub fn current(instance: &Instance, binary: &Binary) -> Option<u64> {
    let offset = binary.cycle_offset?;
    let process = Process::new(i32::try_from(instance.master_pid).ok()?).ok()?;
    let exe = process.exe().ok()?;
    let maps = process.maps().ok()?;
    let start = maps.iter().find_map(|map| {
        let is_binary = map.offset == 0 && map.pathname == MMapPath::Path(exe.clone());
        is_binary.then_some(map.address.0)
    })?;
    let memory = File::open(proc_path(instance.master_pid, "mem")).ok()?;
    let mut pointer = [0; 8];
    memory
        .read_exact_at(&mut pointer, start.checked_add(offset)?)
        .ok()?;
    Some(u64::from_ne_bytes(pointer)).filter(|pointer| *pointer != 0)
}
