//! Connections that were open before the capture began: three iterators over the open
//! files of all processes, which user space runs once, in this order, when everything
//! else is attached. The first notes the ports that nginx listens on, the second makes
//! records for nginx's own connections, from what the kernel still knows of them, the
//! third finds their other ends on this host. A capture on a backend's host runs a fourth
//! instead, for connections at the ports asked for.

use core::ffi::c_void;

use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::helpers::generated::bpf_sock_from_file;
use aya_ebpf::macros::btf_map;
use tracer_ebpf::connection::{CALL_SEND, Connection};
use tracer_ebpf::upstream::UpstreamKey;
use tracer_ebpf::{Kind, loss};

use crate::kernel::{Process, Socket};
use crate::threads::now;
use crate::{accepting, maps, owner, peers, remembered};

// TCP states of net/tcp_states.h.
const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;

/// How often a connection is looked at that moves under the look.
const ATTEMPTS: u32 = 4;

/// Ports that nginx listens on, by [`port_key`]: connections with one of these as their
/// own are clients'.
#[btf_map]
static LISTENED: HashMap<u64, u8, 4096> = HashMap::new();

/// A record while it is made; the programs' stack holds 512 bytes in all, and one
/// iterator runs at a time.
#[btf_map]
static DRAFT: Array<Connection, 1> = Array::new();

/// `struct bpf_iter__task_file` of the kernel's iterator interface.
#[repr(C)]
struct Element {
    meta: *mut c_void,
    task: *mut c_void,
    descriptor: u64,
    file: *mut c_void,
}

/// A process's file that is a TCP socket over IPv4 or IPv6, and the family.
#[inline(always)]
fn socket_of(element: *mut Element) -> Option<(Process, Socket, u16)> {
    // SAFETY: the kernel passes its iterator context, whose members the verifier
    // checks for this program type.
    let task = unsafe { (*element).task };
    // SAFETY: as above.
    let file = unsafe { (*element).file };
    if task.is_null() || file.is_null() {
        return None;
    }
    // SAFETY: the iterator's own file, checked for null as the verifier requires.
    let socket = unsafe { bpf_sock_from_file(file.cast()) };
    let socket = Socket::of_file(socket.cast())?;
    Some((Process::of(task), socket, socket.tcp_family()?))
}

#[inline(always)]
fn port_key(socket: Socket) -> u64 {
    u64::from(socket.netns()) << 16 | u64::from(socket.local_port())
}

// iter/task_file
// proto: struct bpf_iter_meta *meta, struct task_struct *task, u32 fd, struct file *file; since 5.8
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn whoclosed_ports(element: *mut Element) -> i32 {
    if let Some((process, socket, _)) = socket_of(element)
        && socket.state() == LISTEN
        && owner::of(process).is_some()
    {
        // A full map: what it lacks is told from upstream connections by their SYNs.
        let _ = LISTENED.insert(&port_key(socket), &1, 0);
    }
    0
}

// iter/task_file, as above; bpf_sock_from_file since 5.11
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn whoclosed_taken(element: *mut Element) -> i32 {
    if let Some((process, socket, family)) = socket_of(element) {
        consider(process, socket, family);
    }
    0
}

// iter/task_file, as above
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn whoclosed_held(element: *mut Element) -> i32 {
    if let Some((_, socket, _)) = socket_of(element)
        && socket.state() == ESTABLISHED
        && maps::peer(socket).is_none()
    {
        peers::attach(socket);
    }
    0
}

// iter/task_file, as above; in a capture on a backend's host, in the place of those above
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn whoclosed_b_tak(element: *mut Element) -> i32 {
    if let Some((_, socket, _)) = socket_of(element) {
        accepting::take_over(socket);
    }
    0
}

#[inline(always)]
fn consider(process: Process, socket: Socket, family: u16) {
    let Some(owner) = owner::of(process) else {
        return;
    };
    let state = socket.state();
    if !matches!(state, ESTABLISHED | CLOSE_WAIT)
        || LISTENED.get_ptr(&port_key(socket)).is_some()
        || socket.was_accepted()
        || maps::connection(socket).is_some()
    {
        return;
    }
    let Some(draft) = DRAFT.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the one element of an array map; one iterator runs at a time.
    let Some(draft) = (unsafe { draft.as_mut() }) else {
        return;
    };
    for _ in 0..ATTEMPTS {
        let before = Moment::of(socket);
        describe(draft, socket, family, before);
        draft.pid = owner.pid;
        draft.tid = owner.tid;
        draft.comm = owner.comm;
        if maps::take_over(socket, draft).is_none() {
            maps::lost(loss::SOCKET_STORAGE);
            return;
        }
        // From here on the other programs keep the record. What they did not see yet
        // shows in the sequence numbers.
        if Moment::of(socket) == before {
            peers::expect(socket, draft);
            return;
        }
        maps::drop_connection(socket);
    }
    maps::lost(loss::SOCKET_STORAGE);
}

/// What moves on a socket.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Moment {
    state: u8,
    written: u32,
    read: u32,
}

impl Moment {
    #[inline(always)]
    fn of(socket: Socket) -> Self {
        Self {
            state: socket.state(),
            written: socket.next_sequence(),
            read: socket.next_to_read(),
        }
    }
}

/// What the kernel still knows. Times are known to one of its ticks, and only the last
/// of each kind; of the exchanges there was one at least if nginx had sent anything, and
/// one before it if that has no answer and data had come.
#[inline(always)]
fn describe(record: &mut Connection, socket: Socket, family: u16, moment: Moment) {
    let now = now();
    let ended = moment.state == CLOSE_WAIT;
    *record = Connection::ZERO;
    record.kind = Kind::Connection as u32;
    record.size = Connection::SIZE as u32;
    record.first_seen_mid_life = 1;
    record.netns = socket.netns();
    socket.local_address(family, &mut record.local);
    socket.remote_address(family, &mut record.remote);
    record.local_port = socket.local_port();
    record.remote_port = socket.remote_port();
    record.family = family;
    record.cookie = socket.cookie();
    record.opened_ns = now;
    record.established_ns = now;
    record.upstream = maps::upstream_slot(&UpstreamKey {
        address: record.remote,
        port: record.remote_port,
        family,
        netns: record.netns,
    });
    record.calls_unseen = u8::from(maps::calls_unseen());
    let unread = remembered::describe(record, socket, moment.written, ended);
    if ended {
        record.fin_received_ns = now;
        record.exchanges_at_end = record.exchanges;
        record.unread_at_end = unread;
        record.awaiting_at_end = u8::from(record.last_call == CALL_SEND && unread == 0);
    }
}
