//! nginx's error lines on their way into the kernel, where the log is no file: a
//! container's stderr, a syslog server. They cannot be read twice, so they are taken
//! from nginx's own write() and send() calls.
//!
//! The program stands at the entry of every system call of the host, and is attached
//! only where an instance has such a log. Cheapest first: the call's number, the
//! process, the form of the text's beginning, the file behind the descriptor.

use core::ffi::c_void;

use aya_ebpf::btf_maps::{HashMap, PerCpuArray};
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::macros::btf_map;
use tracer_ebpf::written::{LOGS, SYSLOG, TEXT, Written};
use tracer_ebpf::{Kind, loss, settings};

use crate::{SETTINGS, kernel, maps, owner, threads};

/// Inode numbers of the logs that are wanted, and [`SYSLOG`].
#[btf_map]
static WRITTEN_LOGS: HashMap<u64, u32, { LOGS }> = HashMap::new();

/// A record and its text, too large for the stack.
#[repr(C)]
struct Buffer {
    record: Written,
    text: [u8; TEXT],
}

#[btf_map]
static BUFFER: PerCpuArray<Buffer, 1> = PerCpuArray::new();

/// Length of `YYYY/MM/DD HH:MM:SS [`, with which each of nginx's lines begins.
const STAMP: usize = 21;
/// Length of the longest header before a line that goes to syslog: `<191>`, a date of 15
/// bytes and a space, a host's name of 255 and a space, a tag of 32, a colon and a space.
const HEADER: usize = 5 + 16 + 256 + 32 + 2;
/// Length of what is looked at of a datagram.
const FRONT: usize = HEADER + STAMP;

/// A system call begins.
#[inline(always)]
pub(crate) fn called(registers: *const c_void, number: u32) {
    if number == crate::setting(&SETTINGS, settings::WRITE) {
        written(registers);
    } else if number == crate::setting(&SETTINGS, settings::SENDTO) {
        sent(registers);
    }
}

fn is_wanted(inode: u64) -> bool {
    WRITTEN_LOGS.get_ptr(&inode).is_some()
}

/// nginx's lines begin with their time; of its other writes the most are TLS.
#[inline(always)]
fn is_stamp(text: &[u8; STAMP]) -> bool {
    let digits = text[0].wrapping_sub(b'0') < 10
        && text[3].wrapping_sub(b'0') < 10
        && text[18].wrapping_sub(b'0') < 10;
    let signs = text[4] == b'/' && text[7] == b'/' && text[10] == b' ' && text[13] == b':';
    digits && signs && text[16] == b':' && text[19] == b' ' && text[20] == b'['
}

#[inline(always)]
fn written(registers: *const c_void) {
    let Some(owner) = owner::current() else {
        return;
    };
    let [descriptor, source, bytes] = kernel::arguments(registers);
    if bytes <= STAMP as u64 {
        return;
    }
    let mut front = [0; STAMP];
    if !read_user(&mut front, source) || !is_stamp(&front) {
        return;
    }
    let inode = kernel::inode_of(descriptor as i32);
    if inode == SYSLOG || !is_wanted(inode) {
        return;
    }
    send(&owner, inode, descriptor, source, bytes);
}

/// A datagram that reads like one of nginx's error log: `<PRI>date host tag: ` and a line.
#[inline(always)]
fn sent(registers: *const c_void) {
    let Some(owner) = owner::current() else {
        return;
    };
    let [descriptor, source, bytes] = kernel::arguments(registers);
    if bytes <= STAMP as u64 {
        return;
    }
    let mut first = [0u8; 1];
    if !read_user(&mut first, source) || first[0] != b'<' || !is_wanted(SYSLOG) {
        return;
    }
    let Some(buffer) = BUFFER.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this processor's own slot of the map, valid for the program's run; system
    // calls interrupt no program at the beginning of another.
    let text = unsafe { &mut (*buffer).text };
    let length = core::hint::black_box(bytes.min(FRONT as u64)) & 0x1ff;
    if length > FRONT as u64 {
        return;
    }
    // SAFETY: the helper checks the user address itself; the target is longer.
    let result = unsafe {
        bpf_probe_read_user(
            text.as_mut_ptr().cast(),
            length as u32,
            source as *const c_void,
        )
    };
    if result != 0 {
        return;
    }
    let mut at = 4;
    while at < HEADER {
        // A colon in the date has a digit after it, hosts and tags have none.
        if text[at] == b':' && text[at + 1] == b' ' {
            if at + 2 + STAMP <= length as usize && text[at + 6] == b'/' && text[at + 9] == b'/' {
                send(&owner, SYSLOG, descriptor, source, bytes);
            }
            return;
        }
        at += 1;
    }
}

#[inline(always)]
fn read_user<const N: usize>(target: &mut [u8; N], source: u64) -> bool {
    let source = source as *const c_void;
    // SAFETY: the helper checks the user address itself; the target is a stack slot of
    // the size given.
    let result = unsafe { bpf_probe_read_user(target.as_mut_ptr().cast(), N as u32, source) };
    result == 0
}

#[inline(always)]
fn send(owner: &owner::Owner, inode: u64, descriptor: u64, source: u64, bytes: u64) {
    let Some(buffer) = BUFFER.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this processor's own slot of the map, valid for the program's run.
    let Buffer { record, text } = unsafe { &mut *buffer };
    *record = Written {
        kind: Kind::Written as u32,
        size: Written::SIZE as u32,
        ns: threads::now(),
        inode,
        pid: owner.pid,
        parent_pid: kernel::parent_pid(),
        tid: owner.tid,
        descriptor: descriptor as u32,
        bytes: bytes.min(u64::from(u32::MAX)) as u32,
        reserved: 0,
    };
    // The verifier must see the bound, and the compiler, which knows it already, must
    // not take it away.
    let kept = core::hint::black_box(bytes.min(TEXT as u64)) & 0x1fff;
    if kept > TEXT as u64 {
        return;
    }
    // SAFETY: the helper checks the user address itself; the target has that many bytes.
    let result = unsafe {
        bpf_probe_read_user(
            text.as_mut_ptr().cast(),
            kept as u32,
            source as *const c_void,
        )
    };
    if result != 0 {
        maps::lost(loss::WRITTEN_RECORDS);
        return;
    }
    maps::send_written(record, kept);
}
