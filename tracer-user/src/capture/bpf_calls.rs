//! bpf() calls that aya has no way to make yet.

use std::ffi::CStr;
use std::os::fd::{FromRawFd as _, OwnedFd};

use anyhow::Result;
use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_insn, bpf_prog_type};

/// A bpf() call that makes a descriptor. `attributes` begins as the member of
/// `union bpf_attr` for the command does.
///
/// # Errors
/// The kernel's.
pub(super) fn bpf<T>(command: bpf_cmd, attributes: &T) -> Result<OwnedFd> {
    let pointer: *const T = attributes;
    // SAFETY: the pointer and size describe a live struct that begins as the kernel's
    // union for this command does; the kernel writes at most where an address in it points.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            pointer,
            libc::c_long::try_from(size_of::<T>())?,
        )
    };
    if result < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let fd = i32::try_from(result)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An address as the kernel's structs hold it.
pub(super) fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// `union bpf_attr` for BPF_PROG_LOAD, as far as it is used.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// A program to load.
pub(super) struct Program<'a> {
    /// Its first 15 bytes are shown by the kernel.
    pub(super) name: &'a str,
    pub(super) kind: bpf_prog_type,
    /// Of the kinds that are loaded for one.
    pub(super) attach_type: Option<bpf_attach_type>,
    pub(super) license: &'a CStr,
    pub(super) instructions: &'a [bpf_insn],
}

/// Loads a program. What the verifier says is left in `log`, unless that is empty.
///
/// # Errors
/// The kernel's.
pub(super) fn load(program: &Program<'_>, log: &mut [u8]) -> Result<OwnedFd> {
    let mut prog_name = [0; 16];
    for (to, from) in prog_name.iter_mut().take(15).zip(program.name.bytes()) {
        *to = from;
    }
    let (log_level, log_buf) = match log.is_empty() {
        true => (0, 0),
        false => (1, log.as_mut_ptr().expose_provenance() as u64),
    };
    bpf(
        bpf_cmd::BPF_PROG_LOAD,
        &ProgLoad {
            prog_type: program.kind as u32,
            insn_cnt: u32::try_from(program.instructions.len())?,
            insns: address(program.instructions.as_ptr()),
            license: address(program.license.as_ptr()),
            log_level,
            log_size: u32::try_from(log.len())?,
            log_buf,
            kern_version: 0,
            prog_flags: 0,
            prog_name,
            prog_ifindex: 0,
            expected_attach_type: program.attach_type.map_or(0, |kind| kind as u32),
        },
    )
}
