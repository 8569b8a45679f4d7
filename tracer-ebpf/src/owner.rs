//! Whose events count: those of nginx's own processes, by name or by their master.

use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid};
use tracer_ebpf::settings::{self, NAMES as NAME_COUNT, Names};

use crate::SETTINGS;
use crate::kernel::{self, Process};

/// Names of the processes whose connections count; ignored if a master is given.
#[unsafe(no_mangle)]
static NAMES: Names = [[0; 2]; NAME_COUNT];

/// The current thread, if it is nginx's.
pub(crate) struct Owner {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) comm: [u8; 16],
}

/// The current thread, if it belongs to an nginx that is watched.
#[inline(always)]
pub(crate) fn current() -> Option<Owner> {
    let comm = bpf_get_current_comm().ok()?;
    let ids = bpf_get_current_pid_tgid();
    let pid = (ids >> 32) as u32;
    is_ours(&comm, pid, kernel::parent_pid).then_some(Owner {
        pid,
        tid: ids as u32,
        comm,
    })
}

/// The main thread of a process that holds a file, if it belongs to an nginx that is
/// watched.
#[inline(always)]
pub(crate) fn of(process: Process) -> Option<Owner> {
    let (pid, comm) = (process.pid(), process.name());
    is_ours(&comm, pid, || process.parent_pid()).then_some(Owner {
        pid,
        tid: pid,
        comm,
    })
}

#[inline(always)]
fn is_ours(comm: &[u8; 16], pid: u32, parent_pid: impl FnOnce() -> u32) -> bool {
    let master = crate::setting(&SETTINGS, settings::MASTER_PID);
    if master != 0 {
        return pid == master || parent_pid() == master;
    }
    let name = u128::from_le_bytes(*comm);
    let comm = [name as u64, (name >> 64) as u64];
    let mut index = 0;
    while index < NAME_COUNT {
        let name = &raw const NAMES[index];
        // SAFETY: a read-only global; volatile because the loader replaces it.
        let name = unsafe { core::ptr::read_volatile(name) };
        if name[0] != 0 && name == comm {
            return true;
        }
        index += 1;
    }
    false
}
