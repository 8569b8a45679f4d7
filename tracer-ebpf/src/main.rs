//! The BPF programs: thin entry points, one line over a shared body each. Above
//! each stands its attach point, the kernel's prototype and the kernels that have
//! it. Built for the BPF target only (`cargo xtask build`).
//!
//! The kernel keeps 15 bytes of a program's name, so that `bpftool prog` can tell
//! ours: hence the short names with a common front.
#![no_std]
#![no_main]

mod accepting;
mod backends;
mod calls;
mod gaps;
mod handshake;
mod kernel;
mod life;
mod log_call;
mod maps;
mod mid_life;
mod open_connections;
mod owner;
mod peers;
mod remembered;
mod threads;
mod write_call;

use core::ffi::c_void;

use aya_ebpf::macros::{btf_tracepoint, fexit, uprobe, uretprobe};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, ProbeContext, RetProbeContext};
use aya_log_ebpf::debug;
use tracer_ebpf::settings;

use crate::kernel::Socket;

/// Settings of user space, indexed by the constants of [`settings`].
#[unsafe(no_mangle)]
static SETTINGS: [u32; settings::SETTINGS] = [0; settings::SETTINGS];

#[inline(always)]
fn setting(settings: &'static [u32; settings::SETTINGS], index: usize) -> u32 {
    let entry = &raw const settings[index];
    // SAFETY: a constant index into a read-only global; volatile because the loader
    // replaces the compiled value.
    unsafe { core::ptr::read_volatile(entry) }
}

#[inline(always)]
fn socket(context: &BtfTracePointContext) -> Socket {
    Socket(context.arg::<*mut c_void>(0))
}

/// A program and its twins, which are the same again but for `IS_TWIN`. The kernel skips a
/// program that runs already on the processor: one that a softirq has interrupted, or, from
/// Linux 7.0 on (at the ends of functions earlier), another task, and then until it goes on.
/// (To forbid that for the program's run (`bpf_preempt_disable`) is no use: the other task
/// then comes when it is allowed again, which is in the program still.) A twin is seldom
/// interrupted as well. Whichever comes later finds all noted: the body must leave nothing
/// to do for another run.
macro_rules! twins {
    ($(#[$attribute:meta])* fn $program:ident $(, $twin:ident)+($context:ident: $type:ty) $body:tt) => {
        twins!(@one false, [$(#[$attribute])*] $program($context: $type) $body);
        twins!(@each [$($twin)+] [$(#[$attribute])*] ($context: $type) $body);
    };
    (@each [$twin:ident $($more:ident)*] $attributes:tt ($context:ident: $type:ty) $body:tt) => {
        twins!(@one true, $attributes $twin($context: $type) $body);
        twins!(@each [$($more)*] $attributes ($context: $type) $body);
    };
    (@each [] $attributes:tt ($context:ident: $type:ty) $body:tt) => {};
    (@one $is_twin:literal, [$(#[$attribute:meta])*] $program:ident($context:ident: $type:ty) { $($body:tt)* }) => {
        $(#[$attribute])*
        fn $program($context: $type) -> i32 {
            const IS_TWIN: bool = $is_twin;
            let _ = IS_TWIN;
            $($body)*
            0
        }
    };
}

// tp_btf/inet_sock_set_state
// proto: const struct sock *sk, const int oldstate, const int newstate; since 4.16
twins! {
    #[btf_tracepoint(function = "inet_sock_set_state")]
    fn whoclosed_state, whoclosed_twin, whoclosed_third, whoclosed_4th(context: BtfTracePointContext) {
        let (from, to): (i32, i32) = (context.arg(1), context.arg(2));
        if let Some(cookie) = life::state_changed(socket(&context), from, to) {
            debug!(&context, "connection {}: state {} to {}", cookie, from, to);
        }
    }
}

// tp_btf/sock_send_length
// proto: struct sock *sk, int ret, int flags; since 6.3
twins! {
    #[btf_tracepoint(function = "sock_send_length")]
    fn whoclosed_send, whoclosed_sendt(context: BtfTracePointContext) {
        calls::sent(socket(&context), context.arg(1), IS_TWIN);
    }
}

// tp_btf/sock_recv_length
// proto: struct sock *sk, int ret, int flags; since 6.3
twins! {
    #[btf_tracepoint(function = "sock_recv_length")]
    fn whoclosed_recv, whoclosed_recvt(context: BtfTracePointContext) {
        calls::received(socket(&context), context.arg(1), context.arg(2), IS_TWIN);
    }
}

// Where these two tracepoints are missing, the functions behind them tell the same. What a
// function returned stands after its arguments, of which later kernels have fewer: so there
// is a program for each number of them, and user space takes the one that fits.

// fexit/tcp_sendmsg
// proto: int (struct sock *sk, struct msghdr *msg, size_t size)
twins! {
    #[fexit(function = "tcp_sendmsg")]
    fn whoclosed_f_s, whoclosed_f_st(context: FExitContext) {
        let socket = Socket(context.arg::<*mut c_void>(0));
        calls::sent(socket, context.arg(3), IS_TWIN);
    }
}

// fexit/tcp_sendpage: sendfile()
// proto: int (struct sock *sk, struct page *page, int offset, size_t size, int flags); until 6.4
twins! {
    #[fexit(function = "tcp_sendpage")]
    fn whoclosed_f_p, whoclosed_f_pt(context: FExitContext) {
        let socket = Socket(context.arg::<*mut c_void>(0));
        calls::sent(socket, context.arg(5), IS_TWIN);
    }
}

// fexit/tcp_recvmsg
// proto: int (struct sock *sk, struct msghdr *msg, size_t len, int flags); since 7.3
twins! {
    #[fexit(function = "tcp_recvmsg")]
    fn whoclosed_f_r4, whoclosed_f_r4t(context: FExitContext) {
        let socket = Socket(context.arg::<*mut c_void>(0));
        calls::received(socket, context.arg(4), context.arg(3), IS_TWIN);
    }
}

// fexit/tcp_recvmsg
// proto: int (.., size_t len, int flags, int *addr_len); since 5.19
twins! {
    #[fexit(function = "tcp_recvmsg")]
    fn whoclosed_f_r5, whoclosed_f_r5t(context: FExitContext) {
        let socket = Socket(context.arg::<*mut c_void>(0));
        calls::received(socket, context.arg(5), context.arg(3), IS_TWIN);
    }
}

// fexit/tcp_recvmsg
// proto: int (.., size_t len, int nonblock, int flags, int *addr_len); until 5.18
twins! {
    #[fexit(function = "tcp_recvmsg")]
    fn whoclosed_f_r6, whoclosed_f_r6t(context: FExitContext) {
        let socket = Socket(context.arg::<*mut c_void>(0));
        calls::received(socket, context.arg(6), context.arg(4), IS_TWIN);
    }
}

// tp_btf/tcp_receive_reset
// proto: struct sock *sk; since 4.16
twins! {
    #[btf_tracepoint(function = "tcp_receive_reset")]
    fn whoclosed_rst_i, whoclosed_rst_it(context: BtfTracePointContext) {
        life::reset_received(socket(&context));
    }
}

// tp_btf/tcp_send_reset
// proto: const struct sock *sk, const struct sk_buff *skb; since 4.16; sk may be null
#[btf_tracepoint(function = "tcp_send_reset")]
fn whoclosed_rst_o(context: BtfTracePointContext) -> i32 {
    life::reset_sent(socket(&context), 0);
    0
}

// tp_btf/tcp_send_reset
// proto: the same and const enum sk_rst_reason reason; since 6.10
#[btf_tracepoint(function = "tcp_send_reset")]
fn whoclosed_rst_r(context: BtfTracePointContext) -> i32 {
    life::reset_sent(socket(&context), context.arg(2));
    0
}

// tp_btf/tcp_retransmit_skb
// proto: const struct sock *sk, const struct sk_buff *skb[, int err]; since 4.15
#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn whoclosed_again(context: BtfTracePointContext) -> i32 {
    life::retransmitted(socket(&context));
    0
}

// tp_btf/tcp_destroy_sock
// proto: struct sock *sk; since 4.16
twins! {
    #[btf_tracepoint(function = "tcp_destroy_sock")]
    fn whoclosed_gone, whoclosed_gonet(context: BtfTracePointContext) {
        life::destroyed(socket(&context));
    }
}

// tp_btf/sched_process_exit
// proto: struct task_struct *p[, bool group_dead]; since 2.6.29; p is the current task
twins! {
    #[btf_tracepoint(function = "sched_process_exit")]
    fn whoclosed_exit, whoclosed_exitt(_context: BtfTracePointContext) {
        backends::exited();
    }
}

// tp_btf/sys_enter
// proto: struct pt_regs *regs, long id; since 2.6.34
// Attached only where an error log is no file.
#[btf_tracepoint(function = "sys_enter")]
fn whoclosed_write(context: BtfTracePointContext) -> i32 {
    write_call::called(context.arg::<*const c_void>(0), context.arg(1));
    0
}

// Those that follow take the place of those above, but for the last, in a capture on a
// backend's host.

// tp_btf/inet_sock_set_state
// proto: const struct sock *sk, const int oldstate, const int newstate; since 4.16
twins! {
    #[btf_tracepoint(function = "inet_sock_set_state")]
    fn whoclosed_b_set, whoclosed_b_two, whoclosed_b_3, whoclosed_b_4(context: BtfTracePointContext) {
        accepting::state_changed(socket(&context), context.arg(1), context.arg(2));
    }
}

// tp_btf/tcp_destroy_sock
// proto: struct sock *sk; since 4.16
twins! {
    #[btf_tracepoint(function = "tcp_destroy_sock")]
    fn whoclosed_b_end, whoclosed_b_endt(context: BtfTracePointContext) {
        accepting::destroyed(socket(&context));
    }
}

// tp_btf/tcp_receive_reset
// proto: struct sock *sk; since 4.16
twins! {
    #[btf_tracepoint(function = "tcp_receive_reset")]
    fn whoclosed_b_ri, whoclosed_b_rit(context: BtfTracePointContext) {
        accepting::reset_received(socket(&context));
    }
}

// tp_btf/tcp_send_reset
// proto: const struct sock *sk, const struct sk_buff *skb; since 4.16; sk may be null
#[btf_tracepoint(function = "tcp_send_reset")]
fn whoclosed_b_ro(context: BtfTracePointContext) -> i32 {
    accepting::reset_sent(socket(&context), 0);
    0
}

// tp_btf/tcp_send_reset
// proto: the same and const enum sk_rst_reason reason; since 6.10
#[btf_tracepoint(function = "tcp_send_reset")]
fn whoclosed_b_rr(context: BtfTracePointContext) -> i32 {
    accepting::reset_sent(socket(&context), context.arg(2));
    0
}

// uprobe on ngx_log_error_core of the nginx binary
// proto: ngx_uint_t level, ngx_log_t *log, ngx_err_t err, const char *fmt, ...
// (Angie 1.12 and later: a file name before err)
#[uprobe]
fn whoclosed_line(context: ProbeContext) -> u32 {
    log_call::logged(&context);
    0
}

// uprobe on ngx_ssl_handshake and ngx_ssl_shutdown of the nginx binary
// proto: ngx_connection_t *c
#[uprobe]
fn whoclosed_tls(context: ProbeContext) -> u32 {
    handshake::entered(&context);
    0
}

// uretprobe on ngx_ssl_handshake and ngx_ssl_shutdown of the nginx binary
// proto: ngx_int_t; NGX_OK, NGX_AGAIN or NGX_ERROR
#[uretprobe]
fn whoclosed_tls_r(context: RetProbeContext) -> u32 {
    handshake::returned(&context);
    0
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The programs use helpers that the kernel gives to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
