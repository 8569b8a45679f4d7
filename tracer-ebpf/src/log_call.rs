//! nginx's own log call, seen at its entry: which thread writes a line at which
//! nanosecond for which client connection.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::programs::ProbeContext;
use core::ffi::c_void;
use tracer_ebpf::Kind;
use tracer_ebpf::logged::Logged;
use tracer_ebpf::settings;

use crate::{SETTINGS, maps, owner, threads};

/// Offset of `connection` in `ngx_log_t`: `log_level` and `file` come before it, in
/// every nginx from 1.10 to 1.31 and in its forks (nginx's own ABI, no kernel's).
const LOG_CONNECTION: usize = 16;

/// `NGX_LOG_ERR` of `ngx_log.h`; smaller is graver.
const LEVEL_ERROR: u32 = 4;
/// `NGX_LOG_INFO`; debug lines say nothing to the judge.
const LEVEL_INFO: u32 = 7;

const ERRNO_UNREAD: u32 = 1;
const CONNECTION_UNREAD: u32 = 2;

/// `ngx_log_error_core` was entered.
#[inline(always)]
pub(crate) fn logged(context: &ProbeContext) {
    let Some(level) = context.arg::<u64>(0) else {
        return;
    };
    let level = level as u32;
    if level == 0 || level > LEVEL_INFO {
        return;
    }
    let Some(owner) = owner::current() else {
        return;
    };
    let mut record = Logged {
        kind: Kind::Logged as u32,
        size: Logged::SIZE as u32,
        ns: threads::now(),
        pid: owner.pid,
        tid: owner.tid,
        level,
        ..Logged::ZERO
    };
    // Both are read before one is chosen: the verifier refuses a context pointer that
    // the compiler has moved by a choice.
    let third = core::hint::black_box(context.arg::<u64>(2));
    let fourth = core::hint::black_box(context.arg::<u64>(3));
    let has_file_name = crate::setting(&SETTINGS, settings::LOG_HAS_FILE_NAME) != 0;
    let errno = if has_file_name { fourth } else { third };
    match errno {
        Some(errno) => record.errno = errno as u32,
        None => record.unread |= ERRNO_UNREAD,
    }
    let log = context.arg::<*const c_void>(1).unwrap_or(core::ptr::null());
    let source = log.wrapping_byte_add(LOG_CONNECTION);
    // SAFETY: the helper checks the user address itself; the target is a stack slot
    // of eight bytes.
    let result = unsafe {
        bpf_probe_read_user(
            (&raw mut record.connection).cast(),
            size_of::<u64>() as u32,
            source,
        )
    };
    if result != 0 {
        record.unread |= CONNECTION_UNREAD;
    }
    maps::send_logged(&record);
    if record.connection != 0 {
        threads::logged(record.tid, record.ns, level <= LEVEL_ERROR);
    }
}
