//! The connections that are still open, nginx's or accepted ones: iterators over the
//! socket storage, which user space reads at the capture's end.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_seq_write;
use tracer_ebpf::accepted::Accepted;
use tracer_ebpf::connection::Connection;

use crate::accepting;
use crate::kernel::Socket;

/// `struct bpf_iter_meta` of the kernel's iterator interface.
#[repr(C)]
struct Meta {
    seq: *mut c_void,
}

/// `struct bpf_iter__bpf_sk_storage_map`.
#[repr(C)]
struct Element {
    meta: *mut Meta,
    map: *mut c_void,
    socket: *mut c_void,
    value: *mut c_void,
}

// iter/bpf_sk_storage_map
// proto: struct bpf_iter_meta *meta, struct bpf_map *map, struct sock *sk, void *value; since 5.9
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
extern "C" fn whoclosed_open(element: *mut Element) -> i32 {
    write(element, Connection::SIZE as u32)
}

// The same, in a capture on a backend's host.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
extern "C" fn whoclosed_b_ope(element: *mut Element) -> i32 {
    bring_up_to_date(element);
    write(element, Accepted::SIZE as u32)
}

/// What is told at a connection's end, of one that has not come to it.
#[inline(always)]
fn bring_up_to_date(element: *mut Element) {
    // SAFETY: the kernel passes its iterator context, whose members the verifier checks for
    // this program type.
    let socket = unsafe { (*element).socket };
    // SAFETY: as above.
    let value = unsafe { (*element).value };
    if socket.is_null() {
        return;
    }
    // SAFETY: null or a value of this map, writable, which the iterator holds for the run.
    if let Some(accepted) = unsafe { value.cast::<Accepted>().as_mut() }
        && accepted.sent == 0
    {
        accepting::traffic(Socket(socket), accepted);
    }
}

/// Writes a value of the map's, which must have this size.
#[inline(always)]
fn write(element: *mut Element, size: u32) -> i32 {
    // SAFETY: the kernel passes its iterator context, whose members the verifier
    // checks for this program type.
    let value = unsafe { (*element).value };
    if value.is_null() {
        return 0;
    }
    // SAFETY: as above.
    let meta = unsafe { (*element).meta };
    // SAFETY: `meta` is a trusted pointer in this program type.
    let seq = unsafe { (*meta).seq };
    // SAFETY: `value` is this map's value, of the size given; the verifier checks that.
    unsafe { bpf_seq_write(seq.cast(), value, size) };
    0
}
