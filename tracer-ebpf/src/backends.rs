//! The processes of this host that end backends' sides of upstream connections, and how
//! they end themselves. Which process holds a connection shows when it closes: accept()
//! passes no tracepoint, and nothing is added to sends and receives to learn it earlier.

use tracer_ebpf::Kind;
use tracer_ebpf::backend::{BackendExit, BackendKey, BackendProcess};
use tracer_ebpf::closer::Closer;

use crate::threads::now;
use crate::{kernel, maps};

/// The current process has ended its side of a connection with the upstream that has this
/// slot in the counters.
#[inline(always)]
pub(crate) fn ended_one(closer: &Closer, upstream: u32, ns: u64) {
    // Nobody's: the kernel put away the last reference in a thread of its own.
    if kernel::is_kernel_thread() {
        return;
    }
    // A process that is ending has been told, or is nobody's loss: each of the
    // connections that go with it says how it ended.
    if closer.exiting == 0 {
        maps::watch_exit(closer.pid);
    }
    // Slot 0 stands for many upstreams.
    if upstream == 0 {
        return;
    }
    let key = BackendKey {
        pid: closer.pid,
        upstream,
    };
    if let Some(process) = maps::backend_process(&key) {
        process.connections += 1;
        process.last_ns = ns;
        return;
    }
    maps::new_backend_process(
        &key,
        &BackendProcess {
            first_ns: ns,
            last_ns: ns,
            connections: 1,
            parent_pid: closer.parent_pid,
            reserved: 0,
            comm: closer.comm,
        },
    );
}

/// `sched_process_exit`: a thread of the host ends. Its process does if it was the last.
#[inline(always)]
pub(crate) fn exited() {
    let pid = kernel::current_pid();
    if !maps::is_exit_watched(pid) || !kernel::is_last_thread() {
        return;
    }
    // Two last threads may see each other gone; one of them finds the entry.
    if !maps::unwatch_exit(pid) {
        return;
    }
    let mut record = BackendExit {
        kind: Kind::BackendExit as u32,
        size: BackendExit::SIZE as u32,
        ns: now(),
        pid,
        parent_pid: kernel::parent_pid(),
        ..BackendExit::ZERO
    };
    kernel::current_name(&mut record.comm);
    let exit = kernel::exit();
    record.exit_code = exit.code;
    record.out_of_memory = u32::from(exit.out_of_memory);
    maps::send_backend_exit(&record);
}
