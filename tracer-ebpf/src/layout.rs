//! The kernel struct fields that the programs read. User space resolves each from
//! the running kernel's BTF at load time and hands the offsets over as one
//! read-only global, `LAYOUT`; no literal offset stands in the code.

/// One field: the struct's name and the member's path in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Struct as BTF names it.
    pub structure: &'static str,
    /// Members, outermost first; anonymous structs and unions are passed through.
    pub path: &'static [&'static str],
}

/// Where the registers of a system call keep its number: the kernel's, so the
/// architecture that the agent is built for counts.
#[cfg(not(target_arch = "aarch64"))]
const SYSTEM_CALL_MEMBER: &str = "orig_ax";
#[cfg(target_arch = "aarch64")]
const SYSTEM_CALL_MEMBER: &str = "syscallno";

/// Where they keep the first arguments of a system call. On aarch64 they stand one after
/// the other in an array, which the programs notice by the offsets being the same.
#[cfg(not(target_arch = "aarch64"))]
const ARGUMENT_MEMBERS: [&str; 3] = ["di", "si", "dx"];
#[cfg(target_arch = "aarch64")]
const ARGUMENT_MEMBERS: [&str; 3] = ["regs", "regs", "regs"];

macro_rules! layout {
    ($($(#[$meta:meta])* $name:ident = $structure:literal $(. $member:tt)+;)*) => {
        layout!(@index 0usize; $($(#[$meta])* $name)*);
        /// Every field, in the order of `LAYOUT`.
        pub const FIELDS: &[Field] = &[$(
            Field { structure: $structure, path: &[$($member),+] },
        )*];
        /// Length of `LAYOUT`.
        pub const COUNT: usize = FIELDS.len();
    };
    (@index $n:expr; $(#[$meta:meta])* $name:ident $($rest:tt)*) => {
        $(#[$meta])*
        pub const $name: usize = $n;
        layout!(@index $n + 1usize; $($rest)*);
    };
    (@index $n:expr;) => {};
}

layout! {
    /// Address family.
    FAMILY = "sock_common"."skc_family";
    /// IPv4 peer address.
    REMOTE_IPV4 = "sock_common"."skc_daddr";
    /// IPv4 own address.
    LOCAL_IPV4 = "sock_common"."skc_rcv_saddr";
    /// IPv6 peer address.
    REMOTE_IPV6 = "sock_common"."skc_v6_daddr";
    /// IPv6 own address.
    LOCAL_IPV6 = "sock_common"."skc_v6_rcv_saddr";
    /// Peer port, network order.
    REMOTE_PORT = "sock_common"."skc_dport";
    /// Own port, network order (`inet_num` is cleared early, `inet_sport` is not).
    LOCAL_PORT = "inet_sock"."inet_sport";
    /// Network namespace.
    NET = "sock_common"."skc_net"."net";
    /// Inode number of a network namespace.
    NET_INODE = "net"."ns"."inum";
    /// Protocol number.
    PROTOCOL = "sock"."sk_protocol";
    /// Socket type.
    TYPE = "sock"."sk_type";
    /// Pending error.
    ERROR = "sock"."sk_err";
    /// Next byte that nginx will write.
    WRITE_SEQ = "tcp_sock"."write_seq";
    /// First byte not acknowledged.
    SND_UNA = "tcp_sock"."snd_una";
    /// Next byte expected from the peer.
    RCV_NXT = "tcp_sock"."rcv_nxt";
    /// First byte that nginx has not read.
    COPIED_SEQ = "tcp_sock"."copied_seq";
    /// A task's parent.
    PARENT = "task_struct"."real_parent";
    /// A task's process id.
    TGID = "task_struct"."tgid";
    /// The process's main thread.
    GROUP_LEADER = "task_struct"."group_leader";
    /// A thread's name.
    COMM = "task_struct"."comm";
    /// A task's flags, `PF_EXITING` among them.
    TASK_FLAGS = "task_struct"."flags";
    /// How a task ended; set before its files are closed.
    EXIT_CODE = "task_struct"."exit_code";
    /// What the threads of a process share.
    SIGNAL = "task_struct"."signal";
    /// The system call that a task is in, or is leaving.
    SYSTEM_CALL = "pt_regs".SYSTEM_CALL_MEMBER;
    /// How many threads of it have not begun to end.
    LIVE_THREADS = "signal_struct"."live"."counter";
    /// Memory of a process that was chosen to free some.
    OOM_MM = "signal_struct"."oom_mm";
    /// Bytes that a socket has received in order.
    BYTES_RECEIVED = "tcp_sock"."bytes_received";
    /// The file's half of a socket; none until accept().
    SK_SOCKET = "sock"."sk_socket";
    /// A task's open files.
    FILES = "task_struct"."files";
    /// Their table.
    FILE_TABLE = "files_struct"."fdt";
    /// Descriptors that the table has room for.
    FILE_TABLE_SIZE = "fdtable"."max_fds";
    /// The files by descriptor.
    FILE_TABLE_FILES = "fdtable"."fd";
    /// A socket's file points to the socket.
    FILE_PRIVATE = "file"."private_data";
    /// The kernel's socket of a process's one.
    SOCK = "socket"."sk";
    /// The cookie, 0 before anybody has asked for it.
    COOKIE = "sock_common"."skc_cookie";
    /// What a file stands for.
    FILE_INODE = "file"."f_inode";
    /// Its number.
    INODE_NUMBER = "inode"."i_ino";
    /// A system call's arguments.
    ARGUMENT_1 = "pt_regs".(ARGUMENT_MEMBERS[0]);
    /// See [`ARGUMENT_1`].
    ARGUMENT_2 = "pt_regs".(ARGUMENT_MEMBERS[1]);
    /// See [`ARGUMENT_1`].
    ARGUMENT_3 = "pt_regs".(ARGUMENT_MEMBERS[2]);
    /// TCP state.
    STATE = "sock_common"."skc_state";
    /// Next sequence number to send.
    SND_NXT = "tcp_sock"."snd_nxt";
    /// Bytes sent, those sent again included.
    BYTES_SENT = "tcp_sock"."bytes_sent";
    /// Bytes sent again.
    BYTES_RETRANSMITTED = "tcp_sock"."bytes_retrans";
    /// Bytes that the peer has acknowledged.
    BYTES_ACKED = "tcp_sock"."bytes_acked";
    /// The tick in which the last data came.
    LAST_ARRIVAL = "inet_connection_sock"."icsk_ack"."lrcvtime";
    /// The tick in which data was last sent.
    LAST_DEPARTURE = "tcp_sock"."lsndtime";
    /// The tick in which something was last acknowledged.
    LAST_ACK = "tcp_sock"."rcv_tstamp";
    /// Sequence number of the segment that last advanced the send window.
    SND_WL1 = "tcp_sock"."snd_wl1";
}
