//! The maps, and the few operations on them that the programs share.

use core::ffi::c_void;

use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, Queue, RingBuf, SkStorage};
use aya_ebpf::helpers::generated::{bpf_ringbuf_output, bpf_sk_storage_delete, bpf_sk_storage_get};
use aya_ebpf::macros::btf_map;
use tracer_ebpf::accepted::Accepted;
use tracer_ebpf::backend::{BackendExit, BackendKey, BackendProcess, PROCESSES};
use tracer_ebpf::connection::Connection;
use tracer_ebpf::continuation::Continuation;
use tracer_ebpf::peer::{Expected, PeerClose, PeerKey};
use tracer_ebpf::settings::THREADS;
use tracer_ebpf::upstream::{SLOTS, UpstreamCounters, UpstreamKey};
use tracer_ebpf::{histogram, logged::Logged, loss, written::Written};

use crate::kernel::Socket;

/// One record per upstream connection, in the socket itself.
#[btf_map]
static CONNECTIONS: SkStorage<Connection> = SkStorage::new();

/// The same for the other ends that processes of this host have.
#[btf_map]
static PEERS: SkStorage<PeerClose> = SkStorage::new();

/// Connections accepted at the ports asked for, in a capture on a backend's host.
#[btf_map]
static ACCEPTED: SkStorage<Accepted> = SkStorage::new();

/// Open connections, whose other end may show up on this host.
#[btf_map]
static EXPECTED_PEERS: LruHashMap<PeerKey, Expected, 16384> = LruHashMap::new();

/// For each port, not 0 if nginx has connected to it, or if a capture on a backend's host
/// was asked for it: most sockets that this host accepts are no backend's, and one look
/// here tells.
#[btf_map]
static BACKEND_PORTS: Array<[u8; PORTS], 1> = Array::new();

/// Processes that have ended backends' sides, by upstream.
#[btf_map]
static BACKENDS: LruHashMap<BackendKey, BackendProcess, { PROCESSES }> = LruHashMap::new();

/// The same processes, while they live: whose end is to be told.
#[btf_map]
static WATCHED_EXITS: LruHashMap<u32, u32, { PROCESSES }> = LruHashMap::new();

/// Records to user space. The loader sets the real size.
#[btf_map]
static RECORDS: RingBuf<Connection, { 1 << 20 }> = RingBuf::new();

/// Which slot of the counters an upstream has.
#[btf_map]
static UPSTREAM_SLOTS: HashMap<UpstreamKey, u32, { SLOTS }> = HashMap::new();

/// Slots that no upstream has yet, filled by user space with all but slot 0, which
/// is for the upstreams that find none.
#[btf_map]
static FREE_SLOTS: Queue<u32, { SLOTS }> = Queue::new();

/// Counters by slot.
#[btf_map]
static UPSTREAMS: PerCpuArray<UpstreamCounters, { SLOTS }> = PerCpuArray::new();

/// What each worker thread did after its last failed attempt, by thread id modulo
/// the table's size. An array, so that looking into it costs next to nothing.
#[btf_map]
static THREAD_TABLE: Array<Continuation, { THREADS }> = Array::new();

/// Loss counters.
#[btf_map]
static LOSS: PerCpuArray<u64, { loss::COUNT as usize }> = PerCpuArray::new();

/// Not 0 where no program sees nginx's sends and receives; written by user space before
/// the programs on state changes are attached.
#[btf_map]
static CALLS_UNSEEN: Array<u32, 1> = Array::new();

/// Port numbers.
const PORTS: usize = 1 << 16;
/// `BPF_SK_STORAGE_GET_F_CREATE`
const CREATE: u64 = 1;
/// `BPF_RB_NO_WAKEUP`: user space looks on its own some times a second, which costs
/// nginx nothing.
const NO_WAKEUP: u64 = 1;
/// `BPF_NOEXIST`
const NO_EXIST: u64 = 1;

#[inline(always)]
fn storage<T>(map: *const SkStorage<T>, socket: Socket, flags: u64) -> Option<&'static mut T> {
    storage_of(map, socket, core::ptr::null_mut(), flags)
}

/// `initial`: null or a map's value, which a storage that is made begins with.
#[inline(always)]
fn storage_of<T>(
    map: *const SkStorage<T>,
    socket: Socket,
    initial: *mut T,
    flags: u64,
) -> Option<&'static mut T> {
    if socket.0.is_null() {
        return None;
    }
    let map = map.cast_mut().cast::<c_void>();
    // SAFETY: the map is a socket storage of T and the pointer is the
    // tracepoint's socket argument, checked for null as the verifier requires.
    let found = unsafe { bpf_sk_storage_get(map, socket.0, initial.cast(), flags) };
    // SAFETY: null or a value of this map, which lives as long as the socket; the
    // kernel keeps the socket alive for the program's run.
    unsafe { found.cast::<T>().as_mut() }
}

/// The record of an upstream connection; none for any other socket.
#[inline(always)]
pub(crate) fn connection(socket: Socket) -> Option<&'static mut Connection> {
    storage(&raw const CONNECTIONS, socket, 0)
}

/// A new record for a socket that becomes an upstream connection.
#[inline(always)]
pub(crate) fn new_connection(socket: Socket) -> Option<&'static mut Connection> {
    storage(&raw const CONNECTIONS, socket, CREATE)
}

/// A record for a socket that has been an upstream connection for some time: there at
/// once and whole. One that is there already stays.
#[inline(always)]
pub(crate) fn take_over(
    socket: Socket,
    record: &mut Connection,
) -> Option<&'static mut Connection> {
    storage_of(&raw const CONNECTIONS, socket, record, CREATE)
}

/// The socket has no record any more.
#[inline(always)]
pub(crate) fn drop_connection(socket: Socket) {
    let map = (&raw const CONNECTIONS).cast_mut().cast::<c_void>();
    // SAFETY: the map is a socket storage and the pointer one that the verifier knows to
    // be a socket. Nothing to do if there is none.
    unsafe { bpf_sk_storage_delete(map, socket.0) };
}

/// The record of a backend's side; none for any other socket.
#[inline(always)]
pub(crate) fn peer(socket: Socket) -> Option<&'static mut PeerClose> {
    storage(&raw const PEERS, socket, 0)
}

/// A new record for a socket that turns out to be a backend's side.
#[inline(always)]
pub(crate) fn new_peer(socket: Socket) -> Option<&'static mut PeerClose> {
    storage(&raw const PEERS, socket, CREATE)
}

/// The record of an accepted connection; none for any other socket.
#[inline(always)]
pub(crate) fn accepted(socket: Socket) -> Option<&'static mut Accepted> {
    storage(&raw const ACCEPTED, socket, 0)
}

/// A record for a socket at a port asked for: there at once and whole. One that is there
/// already stays.
#[inline(always)]
pub(crate) fn new_accepted(socket: Socket, record: &mut Accepted) -> Option<&'static mut Accepted> {
    storage_of(&raw const ACCEPTED, socket, record, CREATE)
}

#[inline(always)]
fn backend_port(port: u16) -> Option<*mut u8> {
    let ports = BACKEND_PORTS.get_ptr_mut(0)?.cast::<u8>();
    // The verifier must see the bound, and the compiler, which knows it already, must not
    // take it away.
    let index = core::hint::black_box(usize::from(port)) & (PORTS - 1);
    Some(ports.wrapping_add(index))
}

/// May a socket that listened here be a backend's?
#[inline(always)]
pub(crate) fn is_backend_port(port: u16) -> bool {
    // SAFETY: within the one element of an array map.
    backend_port(port).is_some_and(|entry| unsafe { entry.read_volatile() } != 0)
}

/// The other end of nginx's socket with this cookie may come.
#[inline(always)]
pub(crate) fn expect_peer(key: &PeerKey, expected: &Expected) {
    if !is_backend_port(key.backend_port)
        && let Some(entry) = backend_port(key.backend_port)
    {
        // SAFETY: as above; whoever else writes there writes the same.
        unsafe { entry.write_volatile(1) };
    }
    // A full LRU map makes room by itself: what it throws out is a backend elsewhere.
    let _ = EXPECTED_PEERS.insert(key, expected, 0);
}

/// nginx's side whose other end this is.
#[inline(always)]
pub(crate) fn expected_peer(key: &PeerKey) -> Option<Expected> {
    // SAFETY: the value is copied at once; that of another connection could stand
    // there only if nginx had used the same addresses and ports again meanwhile.
    unsafe { EXPECTED_PEERS.get(key) }.copied()
}

/// Nothing more is expected.
#[inline(always)]
pub(crate) fn forget_peer(key: &PeerKey) {
    // A full map may have thrown it out.
    let _ = EXPECTED_PEERS.remove(key);
}

/// What a process has done with the connections of an upstream.
#[inline(always)]
pub(crate) fn backend_process(key: &BackendKey) -> Option<&'static mut BackendProcess> {
    let process = BACKENDS.get_ptr_mut(key)?;
    // SAFETY: an element of a preallocated map, which is never freed while programs run;
    // were it given to another key meanwhile, that one would count one too many.
    unsafe { process.as_mut() }
}

/// A process that is new to an upstream.
#[inline(always)]
pub(crate) fn new_backend_process(key: &BackendKey, process: &BackendProcess) {
    // A full LRU map makes room by itself; user space has read what it throws out.
    let _ = BACKENDS.insert(key, process, 0);
}

/// The end of this process is to be told.
#[inline(always)]
pub(crate) fn watch_exit(pid: u32) {
    if !is_exit_watched(pid) {
        let _ = WATCHED_EXITS.insert(pid, 1, 0);
    }
}

/// Is it? Runs at each end of a thread of the host.
#[inline(always)]
pub(crate) fn is_exit_watched(pid: u32) -> bool {
    WATCHED_EXITS.get_ptr(pid).is_some()
}

/// It is told now; false if somebody else was quicker.
#[inline(always)]
pub(crate) fn unwatch_exit(pid: u32) -> bool {
    WATCHED_EXITS.remove(pid).is_ok()
}

/// Are nginx's sends and receives unseen?
#[inline(always)]
pub(crate) fn calls_unseen() -> bool {
    // SAFETY: the one element of an array map.
    CALLS_UNSEEN
        .get_ptr(0)
        .is_some_and(|unseen| unsafe { unseen.read_volatile() } != 0)
}

/// Counts one loss.
#[inline(always)]
pub(crate) fn lost(counter: u32) {
    if let Some(count) = LOSS.get_ptr_mut(counter) {
        // SAFETY: this processor's own slot of the map.
        unsafe { *count += 1 };
    }
}

#[inline(always)]
fn output<T>(record: &T, counter: u32) {
    let map = (&raw const RECORDS).cast_mut().cast::<c_void>();
    let data = core::ptr::from_ref(record).cast_mut().cast::<c_void>();
    // SAFETY: the map is a ring buffer; the record is a map value or a stack slot
    // of exactly the size given.
    let result = unsafe { bpf_ringbuf_output(map, data, size_of::<T>() as u64, NO_WAKEUP) };
    if result < 0 {
        lost(counter);
    }
}

/// Sends a connection's record.
#[inline(always)]
pub(crate) fn send_connection(record: &Connection) {
    output(record, loss::CONNECTION_RECORDS);
}

/// Sends a line's sighting.
#[inline(always)]
pub(crate) fn send_logged(record: &Logged) {
    output(record, loss::LOGGED_RECORDS);
}

/// Sends a thread's slot.
#[inline(always)]
pub(crate) fn send_continuation(record: &Continuation) {
    output(record, loss::CONTINUATION_RECORDS);
}

/// Sends the end of a backend's side.
#[inline(always)]
pub(crate) fn send_peer_close(record: &PeerClose) {
    output(record, loss::PEER_CLOSE_RECORDS);
}

/// Sends the end of a backend's process.
#[inline(always)]
pub(crate) fn send_backend_exit(record: &BackendExit) {
    output(record, loss::BACKEND_EXIT_RECORDS);
}

/// Sends a line that nginx wrote, with `kept` bytes of its text after the record.
#[inline(always)]
pub(crate) fn send_written(record: &Written, kept: u64) {
    let map = (&raw const RECORDS).cast_mut().cast::<c_void>();
    let data = core::ptr::from_ref(record).cast_mut().cast::<c_void>();
    // SAFETY: the map is a ring buffer; the record is the front of a map value that has
    // at least so many bytes of text after it.
    let result = unsafe { bpf_ringbuf_output(map, data, Written::SIZE as u64 + kept, NO_WAKEUP) };
    if result < 0 {
        lost(loss::WRITTEN_RECORDS);
    }
}

/// Sends an accepted connection's record.
#[inline(always)]
pub(crate) fn send_accepted(record: &Accepted) {
    output(record, loss::ACCEPTED_RECORDS);
}

/// The counters of a slot on this processor.
#[inline(always)]
pub(crate) fn counters(slot: u32) -> Option<&'static mut UpstreamCounters> {
    let counters = UPSTREAMS.get_ptr_mut(slot)?;
    // SAFETY: this processor's own slot of the map, valid for the program's run.
    unsafe { counters.as_mut() }
}

/// Counts a value in a histogram.
#[inline(always)]
pub(crate) fn count(histogram: &mut [u32; histogram::BUCKETS], value: u64) {
    // The verifier must see the bound, and the compiler, which knows it already, must
    // not take it away.
    let bucket = core::hint::black_box(histogram::bucket(value)) & (histogram::BUCKETS - 1);
    histogram[bucket] += 1;
}

/// Slot of a thread in the thread table.
#[inline(always)]
pub(crate) fn thread_slot(tid: u32) -> Option<&'static mut Continuation> {
    let slot = THREAD_TABLE.get_ptr_mut(tid % THREADS as u32)?;
    // SAFETY: an element of an array map, which is never freed while programs run.
    unsafe { slot.as_mut() }
}

/// Finds or assigns the counter slot of an upstream; 0 if none is left.
#[inline(always)]
pub(crate) fn upstream_slot(key: &UpstreamKey) -> u32 {
    // SAFETY: entries are never deleted, so the value stays this key's.
    if let Some(slot) = unsafe { UPSTREAM_SLOTS.get(key) } {
        return *slot;
    }
    let Ok(Some(slot)) = FREE_SLOTS.pop() else {
        lost(loss::UPSTREAM_SLOTS);
        return 0;
    };
    if UPSTREAM_SLOTS.insert(key, slot, NO_EXIST).is_ok() {
        return slot;
    }
    // Another processor was quicker; give the slot back.
    let _ = FREE_SLOTS.push(slot, 0);
    // SAFETY: as above.
    unsafe { UPSTREAM_SLOTS.get(key) }.copied().unwrap_or(0)
}
