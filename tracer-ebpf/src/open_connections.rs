//! The upstream connections that are still open: an iterator over the socket
//! storage, which user space reads at the capture's end.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_seq_write;
use tracer_ebpf::connection::Connection;

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
    // SAFETY: `value` is this map's value, of the size given.
    unsafe { bpf_seq_write(seq.cast(), value, Connection::SIZE as u32) };
    0
}
