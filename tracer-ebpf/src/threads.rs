//! What a worker does after a failed attempt. An error line arms the thread's slot,
//! the close that follows it (nginx closes the upstream socket right after the line)
//! says which connection failed, and the thread's next step on any socket says
//! whether nginx tried again or answered the client. Where no line was seen, a close
//! that shows a failure by itself does the same.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use tracer_ebpf::Kind;
use tracer_ebpf::continuation::{Continuation, NEXT_NONE, NEXT_OTHER_SEND, NEXT_REUSE};
use tracer_ebpf::loss;

use crate::kernel::Socket;
use crate::maps;

/// Nanoseconds of CLOCK_MONOTONIC.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// The current thread's id in the initial pid namespace.
#[inline(always)]
pub(crate) fn current_tid() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// The thread logged a line about a client connection; an `error` if it may report a
/// failed attempt.
#[inline(always)]
pub(crate) fn logged(tid: u32, ns: u64, error: bool) {
    let Some(slot) = maps::thread_slot(tid) else {
        return;
    };
    claim(slot, tid);
    slot.line_ns = ns;
    if error {
        slot.armed = 1;
    }
}

/// Makes the slot this thread's, if another one had it.
#[inline(always)]
fn claim(slot: &mut Continuation, tid: u32) {
    if slot.tid == tid {
        return;
    }
    if slot.failed_cookie != 0 {
        if slot.next == NEXT_NONE {
            maps::lost(loss::CONTINUATIONS_OVERWRITTEN);
        } else {
            maps::send_continuation(slot);
        }
    }
    *slot = Continuation {
        kind: Kind::Continuation as u32,
        size: Continuation::SIZE as u32,
        tid,
        ..Continuation::ZERO
    };
}

/// The line that the current thread logged before it closes a connection now.
#[inline(always)]
pub(crate) fn last_line_ns() -> u64 {
    let tid = current_tid();
    match maps::thread_slot(tid) {
        Some(slot) if slot.tid == tid => slot.line_ns,
        _ => 0,
    }
}

/// The thread closed an upstream connection. `failed`: the connection shows by itself
/// that an attempt on it failed, and it is this thread's.
#[inline(always)]
pub(crate) fn closed(cookie: u64, now: u64, failed: bool) {
    let tid = current_tid();
    let Some(slot) = maps::thread_slot(tid) else {
        return;
    };
    if failed {
        claim(slot, tid);
    } else if slot.tid != tid {
        return;
    }
    if slot.armed == 0 && !failed {
        slot.line_ns = 0;
        return;
    }
    if slot.failed_cookie != 0 && slot.next != NEXT_NONE {
        maps::send_continuation(slot);
    }
    slot.armed = 0;
    slot.line_ns = 0;
    slot.next = NEXT_NONE;
    slot.next_cookie = 0;
    slot.next_ns = 0;
    slot.closed_ns = now;
    slot.failed_cookie = cookie;
}

/// The thread opened or reused an upstream connection.
#[inline(always)]
pub(crate) fn went_on(next: u32, cookie: u64, now: u64) {
    let tid = current_tid();
    let Some(slot) = maps::thread_slot(tid) else {
        return;
    };
    if slot.tid != tid {
        return;
    }
    // A line that no close of a watched connection followed was about another one.
    slot.armed = 0;
    slot.line_ns = 0;
    if slot.failed_cookie != 0 && slot.next == NEXT_NONE {
        slot.next_cookie = cookie;
        slot.next_ns = now;
        slot.next = next;
    }
}

/// As [`went_on`], found when the thread closes the connection: lines that it wrote since
/// are about this one.
#[inline(always)]
pub(crate) fn had_gone_on(cookie: u64, ns: u64) {
    let tid = current_tid();
    let Some(slot) = maps::thread_slot(tid) else {
        return;
    };
    let awaited = slot.failed_cookie != 0 && slot.next == NEXT_NONE;
    if slot.tid == tid && awaited && ns > slot.closed_ns {
        slot.next_cookie = cookie;
        slot.next_ns = ns;
        slot.next = NEXT_REUSE;
    }
}

/// The thread sent bytes on a socket that is no upstream connection. Runs for every
/// send on the host, so it does no more than look into an array.
#[inline(always)]
pub(crate) fn sent_elsewhere(socket: Socket) {
    let tid = current_tid();
    let Some(slot) = maps::thread_slot(tid) else {
        return;
    };
    let awaited = slot.failed_cookie != 0 && slot.next == NEXT_NONE;
    if slot.tid != tid || !(awaited || slot.line_ns != 0) {
        return;
    }
    // nginx may send the very line to syslog: no step of its own.
    if !socket.is_stream() {
        return;
    }
    slot.armed = 0;
    slot.line_ns = 0;
    if awaited {
        slot.next_ns = now();
        slot.next = NEXT_OTHER_SEND;
    }
}
