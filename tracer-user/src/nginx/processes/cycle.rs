//! Which configuration a master has loaded: it makes a new cycle when it loads one
//! (`ngx_init_cycle`), and keeps the old one if that fails. Files may change without
//! that, and workers be started without it, in place of others that died.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use procfs::process::{MMapPath, Process};

use super::{Instance, proc_path};
use crate::nginx::binary::Binary;

/// Where a master keeps the address of its cycle. Addresses come again: of two reloads
/// between two looks nothing is seen, so that it is looked at often.
#[derive(Debug)]
pub struct Cycle {
    memory: File,
    at: u64,
    last: u64,
}

impl Cycle {
    /// `None` if the binary has no symbols, or the master's memory may not be read.
    pub fn open(instance: &Instance, binary: &Binary) -> Option<Self> {
        let offset = binary.cycle_offset?;
        let process = Process::new(i32::try_from(instance.master_pid).ok()?).ok()?;
        let exe = process.exe().ok()?;
        let maps = process.maps().ok()?;
        let start = maps.iter().find_map(|map| {
            let is_binary = map.offset == 0 && map.pathname == MMapPath::Path(exe.clone());
            is_binary.then_some(map.address.0)
        })?;
        let memory = File::open(proc_path(instance.master_pid, "mem")).ok()?;
        let at = start.checked_add(offset)?;
        let last = read(&memory, at)?;
        Some(Self { memory, at, last })
    }

    /// Is it another one than at the last look?
    pub fn has_changed(&mut self) -> bool {
        let now = read(&self.memory, self.at).unwrap_or(self.last);
        std::mem::replace(&mut self.last, now) != now
    }
}

fn read(memory: &File, at: u64) -> Option<u64> {
    let mut pointer = [0; 8];
    memory.read_exact_at(&mut pointer, at).ok()?;
    Some(u64::from_ne_bytes(pointer)).filter(|pointer| *pointer != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_that_changes_is_noticed_once() {
        let pointer = Box::new(std::sync::atomic::AtomicU64::new(4096));
        let mut cycle = Cycle {
            memory: File::open("/proc/self/mem").unwrap(),
            at: std::ptr::from_ref(&*pointer) as u64,
            last: 4096,
        };
        assert!(!cycle.has_changed());
        pointer.store(8192, std::sync::atomic::Ordering::SeqCst);
        assert!(cycle.has_changed());
        assert!(!cycle.has_changed());
        cycle.at = 0;
        assert!(!cycle.has_changed(), "what cannot be read says nothing");
    }
}
