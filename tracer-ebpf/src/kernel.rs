//! Reads kernel structs; nothing else does. Offsets come from the running kernel's
//! BTF through [`LAYOUT`], so a field that moves between kernels moves here too.
//! A read that faults gives zero, which callers treat as "not known".

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_get_socket_cookie, bpf_jiffies64,
    bpf_ktime_get_ns, bpf_probe_read_kernel, bpf_task_pt_regs,
};
use tracer_ebpf::closer::Closer;
use tracer_ebpf::connection::{FAMILY_IPV4, FAMILY_IPV6};
use tracer_ebpf::{layout, settings};

use crate::SETTINGS;

/// Offsets in bytes, in the order of [`layout::FIELDS`]; user space writes them
/// before the programs are loaded, and the verifier sees them as constants.
#[unsafe(no_mangle)]
static LAYOUT: [u32; layout::COUNT] = [0; layout::COUNT];

const NS_PER_S: u64 = 1_000_000_000;

/// `IPPROTO_TCP` of `linux/in.h`.
const TCP: u16 = 6;
/// `SOCK_STREAM` of `linux/net.h`.
const STREAM: u16 = 1;

/// A kernel socket, as a tracepoint hands it over.
#[derive(Clone, Copy)]
pub(crate) struct Socket(pub(crate) *mut c_void);

#[inline(always)]
fn offset(field: usize) -> usize {
    let entry = &raw const LAYOUT[field];
    // SAFETY: `field` is a constant index below COUNT; the read is volatile because
    // the loader replaces the compiled value.
    (unsafe { core::ptr::read_volatile(entry) }) as usize
}

#[inline(always)]
fn read<T: Copy>(base: *const c_void, field: usize) -> T {
    read_at(base.wrapping_byte_add(offset(field)))
}

#[inline(always)]
fn read_at<T: Copy>(source: *const c_void) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the helper checks the source address itself and zeroes the target on
    // a fault; the target is this stack slot of exactly the size given.
    unsafe { bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, source) };
    // SAFETY: zeroed before, and T is an integer, a pointer or a byte array.
    unsafe { value.assume_init() }
}

#[inline(always)]
fn read_into(base: *const c_void, field: usize, target: &mut [u8]) {
    let source = base.wrapping_byte_add(offset(field));
    // SAFETY: as in `read`; the target is a part of a map value of the size given.
    unsafe { bpf_probe_read_kernel(target.as_mut_ptr().cast(), target.len() as u32, source) };
}

/// Nanoseconds of a tick of the kernel's; 0 if user space has not told.
#[inline(always)]
pub(crate) fn tick_ns() -> u64 {
    u64::from(crate::setting(&SETTINGS, settings::TICK_NS))
}

/// When the kernel's tick counter (`tcp_jiffies32`) stood so, as CLOCK_MONOTONIC: right
/// to a tick either way. 0 if the length of a
/// tick is not known.
#[inline(always)]
fn at_tick(counter: u32) -> u64 {
    let tick = tick_ns();
    if tick == 0 {
        return 0;
    }
    // SAFETY: no arguments.
    let ticks = unsafe { bpf_jiffies64() } as u32;
    let age = u64::from(ticks.wrapping_sub(counter)) * tick;
    // SAFETY: no arguments. (Tracing programs may not ask for the time of the last tick.)
    let now = unsafe { bpf_ktime_get_ns() };
    now.saturating_sub(age)
}

impl Socket {
    /// The socket of a process's one, which the kernel gave for a file; none if that is
    /// no socket.
    #[inline(always)]
    pub(crate) fn of_file(socket: *mut c_void) -> Option<Self> {
        if socket.is_null() {
            return None;
        }
        let sock = socket.wrapping_byte_add(offset(layout::SOCK));
        // SAFETY: a pointer that the verifier knows to be a socket, at an offset that it
        // knows as a constant: it checks that a pointer to a `sock` stands there.
        Some(Self(unsafe { sock.cast::<*mut c_void>().read_volatile() }))
    }

    /// TCP state (of `net/tcp_states.h`).
    #[inline(always)]
    pub(crate) fn state(self) -> u8 {
        read(self.0, layout::STATE)
    }

    /// Did this host accept the connection, and not open it? The SYN of an opener is
    /// acknowledged and counts as a byte there (`tcp_ack` in SYN_SENT); an accepted
    /// socket is made when that has happened (`tcp_create_openreq_child`).
    #[inline(always)]
    pub(crate) fn was_accepted(self) -> bool {
        let sent: u64 = read(self.0, layout::BYTES_SENT);
        let again: u64 = read(self.0, layout::BYTES_RETRANSMITTED);
        let next: u32 = read(self.0, layout::SND_NXT);
        let acknowledged: u32 = read(self.0, layout::SND_UNA);
        let in_flight = u64::from(next.wrapping_sub(acknowledged));
        self.acked_bytes()
            .wrapping_add(again)
            .wrapping_add(in_flight)
            == sent
    }

    /// Bytes that the peer has acknowledged, the SYN of a connection opened here among
    /// them.
    #[inline(always)]
    pub(crate) fn acked_bytes(self) -> u64 {
        read(self.0, layout::BYTES_ACKED)
    }

    /// When the last data arrived; see [`at_tick`]. A FIN alone is none
    /// (`tcp_event_data_recv`).
    #[inline(always)]
    pub(crate) fn last_arrival_ns(self) -> u64 {
        at_tick(read(self.0, layout::LAST_ARRIVAL))
    }

    /// When data was last sent; see [`at_tick`].
    #[inline(always)]
    pub(crate) fn last_departure_ns(self) -> u64 {
        at_tick(read(self.0, layout::LAST_DEPARTURE))
    }

    /// Was anything acknowledged after the tick in which the last data came?
    #[inline(always)]
    pub(crate) fn acked_after_arrival(self) -> bool {
        let acknowledged: u32 = read(self.0, layout::LAST_ACK);
        let came: u32 = read(self.0, layout::LAST_ARRIVAL);
        (acknowledged.wrapping_sub(came) as i32) > 0
    }

    /// Did the last data go and come within one tick?
    #[inline(always)]
    pub(crate) fn sent_in_tick_of_arrival(self) -> bool {
        let sent: u32 = read(self.0, layout::LAST_DEPARTURE);
        let came: u32 = read(self.0, layout::LAST_ARRIVAL);
        sent == came
    }

    /// Was data sent after the last data came? Within one tick the segment tells that last
    /// advanced the window: one without data, after all data, acknowledged what was sent
    /// then (`tcp_ack_update_window`). So does the answer to a keepalive probe, but no
    /// probe comes within a second.
    #[inline(always)]
    pub(crate) fn sent_after_arrival(self) -> bool {
        let sent: u32 = read(self.0, layout::LAST_DEPARTURE);
        let came: u32 = read(self.0, layout::LAST_ARRIVAL);
        if sent != came {
            return (sent.wrapping_sub(came) as i32) > 0;
        }
        let advanced: u32 = read(self.0, layout::SND_WL1);
        let received: u32 = read(self.0, layout::RCV_NXT);
        let acknowledged: u32 = read(self.0, layout::LAST_ACK);
        let later = u64::from(acknowledged.wrapping_sub(sent)) * tick_ns();
        advanced == received && later < NS_PER_S
    }

    /// Is this a TCP socket over IPv4 or IPv6? Gives the family.
    #[inline(always)]
    pub(crate) fn tcp_family(self) -> Option<u16> {
        let family: u16 = read(self.0, layout::FAMILY);
        let protocol: u16 = read(self.0, layout::PROTOCOL);
        (protocol == TCP && (family == FAMILY_IPV4 || family == FAMILY_IPV6)).then_some(family)
    }

    /// Is this a stream socket? A client's is (but for HTTP/3), syslog's and the
    /// resolver's are not.
    #[inline(always)]
    pub(crate) fn is_stream(self) -> bool {
        let kind: u16 = read(self.0, layout::TYPE);
        kind == STREAM
    }

    /// The kernel's cookie for this socket: unique while the host runs, where
    /// addresses of sockets are used again within microseconds.
    #[inline(always)]
    pub(crate) fn cookie(self) -> u64 {
        // SAFETY: the pointer is the tracepoint's own socket argument, which the
        // verifier knows to be a valid socket.
        unsafe { bpf_get_socket_cookie(self.0) }
    }

    /// Own address in network order; IPv4 in the first four bytes. Writes straight
    /// into the record: the programs' stack holds 512 bytes in all.
    #[inline(always)]
    pub(crate) fn local_address(self, family: u16, target: &mut [u8; 16]) {
        if family == FAMILY_IPV4 {
            read_into(self.0, layout::LOCAL_IPV4, &mut target[..4]);
        } else {
            read_into(self.0, layout::LOCAL_IPV6, target);
        }
    }

    /// The peer's address, likewise.
    #[inline(always)]
    pub(crate) fn remote_address(self, family: u16, target: &mut [u8; 16]) {
        if family == FAMILY_IPV4 {
            read_into(self.0, layout::REMOTE_IPV4, &mut target[..4]);
        } else {
            read_into(self.0, layout::REMOTE_IPV6, target);
        }
    }

    /// Own address in network order, IPv4 in its form for IPv6.
    #[inline(always)]
    pub(crate) fn mapped_local_address(self, family: u16, target: &mut [u8; 16]) {
        if family == FAMILY_IPV4 {
            target[10] = 0xff;
            target[11] = 0xff;
            read_into(self.0, layout::LOCAL_IPV4, &mut target[12..]);
        } else {
            read_into(self.0, layout::LOCAL_IPV6, target);
        }
    }

    /// The peer's address, likewise.
    #[inline(always)]
    pub(crate) fn mapped_remote_address(self, family: u16, target: &mut [u8; 16]) {
        if family == FAMILY_IPV4 {
            target[10] = 0xff;
            target[11] = 0xff;
            read_into(self.0, layout::REMOTE_IPV4, &mut target[12..]);
        } else {
            read_into(self.0, layout::REMOTE_IPV6, target);
        }
    }

    /// Bytes received in order.
    #[inline(always)]
    pub(crate) fn received_bytes(self) -> u64 {
        read(self.0, layout::BYTES_RECEIVED)
    }

    /// A process has taken the connection from the listener's queue.
    #[inline(always)]
    pub(crate) fn is_accepted(self) -> bool {
        let socket: *const c_void = read(self.0, layout::SK_SOCKET);
        !socket.is_null()
    }

    /// Own port in host order; 0 before the kernel has chosen one.
    #[inline(always)]
    pub(crate) fn local_port(self) -> u16 {
        u16::from_be(read(self.0, layout::LOCAL_PORT))
    }

    /// The peer's port in host order.
    #[inline(always)]
    pub(crate) fn remote_port(self) -> u16 {
        u16::from_be(read(self.0, layout::REMOTE_PORT))
    }

    /// Inode number of the network namespace.
    #[inline(always)]
    pub(crate) fn netns(self) -> u32 {
        let net: *const c_void = read(self.0, layout::NET);
        read(net, layout::NET_INODE)
    }

    /// `sk_err`: 0, or the errno that the next call on the socket will give.
    #[inline(always)]
    pub(crate) fn error(self) -> u32 {
        let error: i32 = read(self.0, layout::ERROR);
        error.unsigned_abs()
    }

    /// Sequence number of the next byte that the process will write.
    #[inline(always)]
    pub(crate) fn next_sequence(self) -> u32 {
        read(self.0, layout::WRITE_SEQ)
    }

    /// Does the kernel itself encrypt what goes over the socket (kTLS)? Calls count the
    /// plain text then, sequence numbers the records.
    #[inline(always)]
    pub(crate) fn is_encrypted(self) -> bool {
        let protocol: *const c_void = read(self.0, layout::UPPER_PROTOCOL);
        !protocol.is_null()
    }

    /// Bytes written by the process that the peer has not acknowledged.
    #[inline(always)]
    pub(crate) fn unacked(self) -> u32 {
        let acknowledged: u32 = read(self.0, layout::SND_UNA);
        self.next_sequence().wrapping_sub(acknowledged)
    }

    /// Sequence number of the next byte that the process will read.
    #[inline(always)]
    pub(crate) fn next_to_read(self) -> u32 {
        read(self.0, layout::COPIED_SEQ)
    }

    /// Sequence numbers received and not read by the process; a FIN counts as one.
    #[inline(always)]
    pub(crate) fn unread(self) -> u32 {
        let received: u32 = read(self.0, layout::RCV_NXT);
        let copied: u32 = read(self.0, layout::COPIED_SEQ);
        received.wrapping_sub(copied)
    }
}

/// A process that an iterator has come to.
#[derive(Clone, Copy)]
pub(crate) struct Process(*const c_void);

impl Process {
    /// Of a task that the kernel gave.
    #[inline(always)]
    pub(crate) fn of(task: *const c_void) -> Self {
        Self(task)
    }

    /// Process id.
    #[inline(always)]
    pub(crate) fn pid(self) -> u32 {
        read(self.0, layout::TGID)
    }

    /// Its parent's.
    #[inline(always)]
    pub(crate) fn parent_pid(self) -> u32 {
        parent_pid_of(self.0)
    }

    /// Its name.
    #[inline(always)]
    pub(crate) fn name(self) -> [u8; 16] {
        read(self.0, layout::COMM)
    }
}

/// `PF_EXITING` of `linux/sched.h`.
const EXITING: u32 = 4;
/// `PF_KTHREAD` of `linux/sched.h`.
const KERNEL_THREAD: u32 = 0x0020_0000;
/// Who gets the children of a process that has ended.
const INIT: u32 = 1;

#[inline(always)]
fn current_task() -> *const c_void {
    // SAFETY: no arguments; the kernel returns the current task's address.
    (unsafe { bpf_get_current_task() }) as *const c_void
}

#[inline(always)]
fn has_flag(flag: u32) -> bool {
    let flags: u32 = read(current_task(), layout::TASK_FLAGS);
    flags & flag != 0
}

/// Who ended a connection, and whether and how that process is ending: the current one.
#[inline(always)]
pub(crate) fn describe_current(closer: &mut Closer) {
    let task = actor();
    closer.pid = read(task, layout::TGID);
    closer.parent_pid = parent_pid_of(task);
    process_name(task, &mut closer.comm);
    closer.may_be_copy = u8::from(!tells_registers());
    if has_flag(EXITING) {
        let exit = exit();
        closer.exiting = 1;
        closer.may_be_copy = 0;
        closer.exit_code = exit.code;
        closer.out_of_memory = u8::from(exit.out_of_memory);
    }
}

/// A process that starts another program leaves the child copies of its sockets until
/// the child's exec closes them. If one is the last, the parent has closed its own
/// before, and the child has done nothing.
#[inline(always)]
fn actor() -> *const c_void {
    let task = current_task();
    if !is_in_exec() {
        return task;
    }
    let parent: *const c_void = read(task, layout::PARENT);
    let pid: u32 = read(parent, layout::TGID);
    // The parent has ended meanwhile.
    if pid == INIT { task } else { parent }
}

/// Do tasks tell their registers? The verifier knows, and never comes to what it would
/// refuse where they do not.
#[inline(always)]
fn tells_registers() -> bool {
    crate::setting(&SETTINGS, settings::TASK_REGISTERS) != 0
}

/// Is the current task leaving an exec that did what it should? Its registers hold the
/// system call until it makes another. Not known where they are not told.
#[inline(always)]
fn is_in_exec() -> bool {
    if !tells_registers() {
        return false;
    }
    // SAFETY: no arguments; the kernel returns the current task.
    let task = unsafe { bpf_get_current_task_btf() };
    // SAFETY: a task that the kernel gave.
    let registers = unsafe { bpf_task_pt_regs(task) } as *const c_void;
    let call: u32 = read(registers, layout::SYSTEM_CALL);
    call == crate::setting(&SETTINGS, settings::EXECVE)
        || call == crate::setting(&SETTINGS, settings::EXECVEAT)
}

/// Id of the current process.
#[inline(always)]
pub(crate) fn current_pid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Name of the current process's main thread.
#[inline(always)]
pub(crate) fn current_name(target: &mut [u8; 16]) {
    process_name(current_task(), target);
}

#[inline(always)]
fn process_name(task: *const c_void, target: &mut [u8; 16]) {
    let leader: *const c_void = read(task, layout::GROUP_LEADER);
    read_into(leader, layout::COMM, target);
}

/// Does the current task run no process's code?
#[inline(always)]
pub(crate) fn is_kernel_thread() -> bool {
    has_flag(KERNEL_THREAD)
}

/// Is the current task, which is ending, the last of its process to do so?
#[inline(always)]
pub(crate) fn is_last_thread() -> bool {
    let signal: *const c_void = read(current_task(), layout::SIGNAL);
    let live: u32 = read(signal, layout::LIVE_THREADS);
    live == 0
}

/// How a process ends.
pub(crate) struct Exit {
    /// As wait() gives it.
    pub(crate) code: u32,
    /// The kernel chose it to free memory.
    pub(crate) out_of_memory: bool,
}

/// How the current process, which is ending, does so.
#[inline(always)]
pub(crate) fn exit() -> Exit {
    let task = current_task();
    let signal: *const c_void = read(task, layout::SIGNAL);
    let victim: *const c_void = read(signal, layout::OOM_MM);
    Exit {
        code: read(task, layout::EXIT_CODE),
        out_of_memory: !victim.is_null(),
    }
}

/// Cookie of the socket that the current task has under this descriptor, which must
/// be a socket's; 0 if nobody has asked for that cookie yet.
#[inline(always)]
pub(crate) fn cookie_of(descriptor: i32) -> u64 {
    let file = file_of(descriptor);
    let socket: *const c_void = read(file, layout::FILE_PRIVATE);
    let sock: *const c_void = read(socket, layout::SOCK);
    read(sock, layout::COOKIE)
}

/// Inode number of what the current task has under this descriptor, as fstat() tells it;
/// 0 if it has nothing there.
#[inline(always)]
pub(crate) fn inode_of(descriptor: i32) -> u64 {
    let inode: *const c_void = read(file_of(descriptor), layout::FILE_INODE);
    read(inode, layout::INODE_NUMBER)
}

/// The first three arguments of a system call, from the registers at its entry.
#[inline(always)]
pub(crate) fn arguments(registers: *const c_void) -> [u64; 3] {
    let is_array = offset(layout::ARGUMENT_1) == offset(layout::ARGUMENT_2);
    let step = if is_array { size_of::<u64>() } else { 0 };
    [
        read(registers, layout::ARGUMENT_1),
        read(registers.wrapping_byte_add(step), layout::ARGUMENT_2),
        read(registers.wrapping_byte_add(2 * step), layout::ARGUMENT_3),
    ]
}

/// Null if there is none; a read from there gives zero.
#[inline(always)]
fn file_of(descriptor: i32) -> *const c_void {
    let files: *const c_void = read(current_task(), layout::FILES);
    let table: *const c_void = read(files, layout::FILE_TABLE);
    let size: u32 = read(table, layout::FILE_TABLE_SIZE);
    // A negative descriptor is larger than any table.
    if descriptor as u32 >= size {
        return core::ptr::null();
    }
    let list: *const c_void = read(table, layout::FILE_TABLE_FILES);
    let entry = list.wrapping_byte_add(descriptor as usize * size_of::<*const c_void>());
    read_at(entry)
}

/// Process id of the current task's parent.
#[inline(always)]
pub(crate) fn parent_pid() -> u32 {
    parent_pid_of(current_task())
}

#[inline(always)]
fn parent_pid_of(task: *const c_void) -> u32 {
    let parent: *const c_void = read(task, layout::PARENT);
    read(parent, layout::TGID)
}
