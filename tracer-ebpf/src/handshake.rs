//! TLS handshakes with upstreams, which are no requests, and the close_notify at the end,
//! which is none either. nginx moves all their bytes inside `ngx_ssl_handshake` and
//! `ngx_ssl_shutdown`: while a thread is in one of these, what it sends and receives on
//! the call's connection is a flight of TLS's own.
//!
//! The programs on both functions find the connection's cookie and note it under the
//! thread's id; those on send and receive ask for it on connections that have not begun
//! a request yet or have had a handshake, and on no other.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use tracer_ebpf::settings::THREADS;

use crate::threads::{current_tid, now};
use crate::{kernel, owner};

/// Offsets in `ngx_connection_t`, the same from nginx 1.14 to 1.31 and in its forks
/// (nginx's own ABI, no kernel's).
const CONNECTION_FD: usize = 24;
/// Null in connections that nginx opened, set in those that it accepted.
const CONNECTION_LISTENING: usize = 64;
/// `NGX_OK` of `ngx_core.h`: the handshake is done.
const OK: u64 = 0;

/// A thread's handshake.
#[repr(C)]
struct Handshake {
    tid: u32,
    reserved: u32,
    /// Cookie of the connection that the thread is working on now.
    current: u64,
    /// Cookie of the last connection whose handshake it has done.
    done: u64,
    /// When that was.
    done_ns: u64,
}

/// By thread id modulo the table's size. A thread that finds its slot taken by another
/// has no handshake: its connection's flights count as requests, and it says so by
/// having no `handshake_ns`.
#[btf_map]
static HANDSHAKES: Array<Handshake, { THREADS }> = Array::new();

#[inline(always)]
fn slot(tid: u32) -> Option<&'static mut Handshake> {
    let slot = HANDSHAKES.get_ptr_mut(tid % THREADS as u32)?;
    // SAFETY: an element of an array map, which is never freed while programs run.
    unsafe { slot.as_mut() }
}

/// Zero where the address cannot be read.
#[inline(always)]
fn read_user<T: Copy>(base: *const c_void, offset: usize) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    let source = base.wrapping_byte_add(offset);
    // SAFETY: the helper checks the user address itself and zeroes the target on a
    // fault; the target is this stack slot of exactly the size given.
    unsafe { bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, source) };
    // SAFETY: zeroed before, and T is an integer.
    unsafe { value.assume_init() }
}

/// `ngx_ssl_handshake` or `ngx_ssl_shutdown` was entered.
#[inline(always)]
pub(crate) fn entered(context: &ProbeContext) {
    let connection = context.arg::<*const c_void>(0);
    let Some(owner) = owner::current() else {
        return;
    };
    let Some(slot) = slot(owner.tid) else {
        return;
    };
    // Whatever was noted here before, it is not what the thread works on now.
    slot.current = 0;
    let connection = connection.unwrap_or(core::ptr::null());
    if connection.is_null() || read_user::<u64>(connection, CONNECTION_LISTENING) != 0 {
        return;
    }
    let cookie = kernel::cookie_of(read_user(connection, CONNECTION_FD));
    if slot.tid != owner.tid {
        slot.tid = owner.tid;
        slot.done = 0;
    }
    slot.current = cookie;
}

/// The function returned. After a shutdown no request follows that would ask for it.
#[inline(always)]
pub(crate) fn returned(context: &RetProbeContext) {
    let result = context.ret::<u64>();
    let tid = current_tid();
    let Some(slot) = slot(tid) else {
        return;
    };
    if slot.tid != tid || slot.current == 0 {
        return;
    }
    if result == OK {
        slot.done = slot.current;
        slot.done_ns = now();
    }
    slot.current = 0;
}

/// What a call on a connection belongs to.
pub(crate) enum Part {
    /// A flight of the handshake.
    Flight,
    /// The close_notify after it.
    Farewell,
    /// A request, after a handshake that was done at this time.
    Request(u64),
    /// No handshake is known of.
    Unknown,
}

/// Of a call that the current thread makes on the connection with this cookie.
#[inline(always)]
pub(crate) fn part(cookie: u64) -> Part {
    let tid = current_tid();
    match slot(tid) {
        Some(slot) if slot.tid != tid => Part::Unknown,
        // Done before the call began: what nginx sends now is its close_notify.
        Some(slot) if slot.current == cookie && slot.done == cookie => Part::Farewell,
        Some(slot) if slot.current == cookie => Part::Flight,
        Some(slot) if slot.done == cookie => Part::Request(slot.done_ns),
        _ => Part::Unknown,
    }
}
