//! The processes of this host that end backends' sides of upstream connections, and how
//! they end themselves. Which process holds a connection shows when it closes: accept()
//! passes no tracepoint, and nothing is added to sends and receives to learn it earlier.

use tracer_ebpf::Kind;
use tracer_ebpf::backend::{BackendExit, BackendKey, BackendProcess};
use tracer_ebpf::peer::PeerClose;

use crate::threads::now;
use crate::{kernel, maps};

/// The current process has ended its side of a connection, as this tells.
#[inline(always)]
pub(crate) fn ended_one(peer: &PeerClose) {
    // Nobody's: the kernel put away the last reference in a thread of its own.
    if kernel::is_kernel_thread() {
        return;
    }
    // A process that is ending has been told, or is nobody's loss: each of the
    // connections that go with it says how it ended.
    if peer.exiting == 0 {
        maps::watch_exit(peer.pid);
    }
    // Slot 0 stands for many upstreams.
    if peer.upstream == 0 {
        return;
    }
    let key = BackendKey {
        pid: peer.pid,
        upstream: peer.upstream,
    };
    if let Some(process) = maps::backend_process(&key) {
        process.connections += 1;
        process.last_ns = peer.ns;
        return;
    }
    maps::new_backend_process(
        &key,
        &BackendProcess {
            first_ns: peer.ns,
            last_ns: peer.ns,
            connections: 1,
            parent_pid: peer.parent_pid,
            reserved: 0,
            comm: peer.comm,
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
