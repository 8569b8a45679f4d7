//! The kernel struct fields that the programs read. User space resolves each from
//! the running kernel's BTF at load time and hands the offsets over as one
//! read-only global, `LAYOUT`; no literal offset stands in the code.

/// One field: the struct's name, the member's path in it, and what is read there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Struct as BTF names it.
    pub structure: &'static str,
    /// Members, outermost first; anonymous structs and unions are passed through.
    pub path: &'static [&'static str],
    /// What the programs read there.
    pub reads: Reads,
}

/// What the programs read at a field, and so what must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// So many bytes of something that is no pointer; of a wider integer the lower half.
    Bytes(u32),
    /// A pointer, which they follow to this struct unless no name is given.
    Pointer(&'static str),
}

macro_rules! layout {
    ($($(#[$meta:meta])* $name:ident = $structure:literal $(. $member:tt)+ , $reads:ident($what:tt);)*) => {
        layout!(@index 0usize; $($(#[$meta])* $name)*);
        layout!(@of x86_64, ["orig_ax", "di", "si", "dx"];
            $([$structure [$($member)+] $reads $what])*);
        layout!(@of aarch64, ["syscallno", "regs", "regs", "regs"];
            $([$structure [$($member)+] $reads $what])*);
    };
    (@of $architecture:ident, $registers:expr;
        $([$structure:literal [$($member:tt)+] $reads:ident $what:tt])*) => {
        /// Kernels of this architecture.
        pub mod $architecture {
            use super::{Field, Reads};

            /// Where the registers of a system call keep its number and its first three
            /// arguments. On aarch64 these stand one after the other in an array, which
            /// the programs notice by the offsets being the same.
            const REGISTERS: [&str; 4] = $registers;

            /// Every field, in the order of `LAYOUT`.
            pub const FIELDS: &[Field; super::COUNT] = &[$(
                Field {
                    structure: $structure,
                    path: &[$($member),+],
                    reads: Reads::$reads($what),
                },
            )*];
        }
    };
    (@index $n:expr; $(#[$meta:meta])* $name:ident $($rest:tt)*) => {
        $(#[$meta])*
        pub const $name: usize = $n;
        layout!(@index $n + 1usize; $($rest)*);
    };
    (@index $n:expr;) => {
        /// Length of `LAYOUT`.
        pub const COUNT: usize = $n;
    };
}

// The running kernel's architecture is the one that the agent is built for.
#[cfg(target_arch = "aarch64")]
pub use aarch64::FIELDS;
#[cfg(not(target_arch = "aarch64"))]
pub use x86_64::FIELDS;

layout! {
    /// Address family.
    FAMILY = "sock_common"."skc_family", Bytes(2);
    /// IPv4 peer address.
    REMOTE_IPV4 = "sock_common"."skc_daddr", Bytes(4);
    /// IPv4 own address.
    LOCAL_IPV4 = "sock_common"."skc_rcv_saddr", Bytes(4);
    /// IPv6 peer address.
    REMOTE_IPV6 = "sock_common"."skc_v6_daddr", Bytes(16);
    /// IPv6 own address.
    LOCAL_IPV6 = "sock_common"."skc_v6_rcv_saddr", Bytes(16);
    /// Peer port, network order.
    REMOTE_PORT = "sock_common"."skc_dport", Bytes(2);
    /// Own port, network order (`inet_num` is cleared early, `inet_sport` is not).
    LOCAL_PORT = "inet_sock"."inet_sport", Bytes(2);
    /// Network namespace.
    NET = "sock_common"."skc_net"."net", Pointer("net");
    /// Inode number of a network namespace.
    NET_INODE = "net"."ns"."inum", Bytes(4);
    /// Protocol number.
    PROTOCOL = "sock"."sk_protocol", Bytes(2);
    /// Socket type.
    TYPE = "sock"."sk_type", Bytes(2);
    /// Pending error.
    ERROR = "sock"."sk_err", Bytes(4);
    /// Next byte that nginx will write.
    WRITE_SEQ = "tcp_sock"."write_seq", Bytes(4);
    /// First byte not acknowledged.
    SND_UNA = "tcp_sock"."snd_una", Bytes(4);
    /// Next byte expected from the peer.
    RCV_NXT = "tcp_sock"."rcv_nxt", Bytes(4);
    /// First byte that nginx has not read.
    COPIED_SEQ = "tcp_sock"."copied_seq", Bytes(4);
    /// A task's parent.
    PARENT = "task_struct"."real_parent", Pointer("task_struct");
    /// A task's process id.
    TGID = "task_struct"."tgid", Bytes(4);
    /// The process's main thread.
    GROUP_LEADER = "task_struct"."group_leader", Pointer("task_struct");
    /// A thread's name.
    COMM = "task_struct"."comm", Bytes(16);
    /// A task's flags, `PF_EXITING` among them.
    TASK_FLAGS = "task_struct"."flags", Bytes(4);
    /// How a task ended; set before its files are closed.
    EXIT_CODE = "task_struct"."exit_code", Bytes(4);
    /// What the threads of a process share.
    SIGNAL = "task_struct"."signal", Pointer("signal_struct");
    /// The system call that a task is in, or is leaving.
    SYSTEM_CALL = "pt_regs".(REGISTERS[0]), Bytes(4);
    /// How many threads of it have not begun to end.
    LIVE_THREADS = "signal_struct"."live"."counter", Bytes(4);
    /// Memory of a process that was chosen to free some.
    OOM_MM = "signal_struct"."oom_mm", Pointer("");
    /// Bytes that a socket has received in order.
    BYTES_RECEIVED = "tcp_sock"."bytes_received", Bytes(8);
    /// The file's half of a socket; none until accept().
    SK_SOCKET = "sock"."sk_socket", Pointer("");
    /// A task's open files.
    FILES = "task_struct"."files", Pointer("files_struct");
    /// Their table.
    FILE_TABLE = "files_struct"."fdt", Pointer("fdtable");
    /// Descriptors that the table has room for.
    FILE_TABLE_SIZE = "fdtable"."max_fds", Bytes(4);
    /// The files by descriptor.
    FILE_TABLE_FILES = "fdtable"."fd", Pointer("");
    /// A socket's file points to the socket.
    FILE_PRIVATE = "file"."private_data", Pointer("");
    /// The kernel's socket of a process's one.
    SOCK = "socket"."sk", Pointer("sock");
    /// The cookie, 0 before anybody has asked for it.
    COOKIE = "sock_common"."skc_cookie", Bytes(8);
    /// What a file stands for.
    FILE_INODE = "file"."f_inode", Pointer("inode");
    /// Its number.
    INODE_NUMBER = "inode"."i_ino", Bytes(8);
    /// A system call's arguments.
    ARGUMENT_1 = "pt_regs".(REGISTERS[1]), Bytes(8);
    /// See [`ARGUMENT_1`].
    ARGUMENT_2 = "pt_regs".(REGISTERS[2]), Bytes(8);
    /// See [`ARGUMENT_1`].
    ARGUMENT_3 = "pt_regs".(REGISTERS[3]), Bytes(8);
    /// TCP state.
    STATE = "sock_common"."skc_state", Bytes(1);
    /// Next sequence number to send.
    SND_NXT = "tcp_sock"."snd_nxt", Bytes(4);
    /// Bytes sent, those sent again included.
    BYTES_SENT = "tcp_sock"."bytes_sent", Bytes(8);
    /// Bytes sent again.
    BYTES_RETRANSMITTED = "tcp_sock"."bytes_retrans", Bytes(8);
    /// Bytes that the peer has acknowledged.
    BYTES_ACKED = "tcp_sock"."bytes_acked", Bytes(8);
    /// The tick in which the last data came.
    LAST_ARRIVAL = "inet_connection_sock"."icsk_ack"."lrcvtime", Bytes(4);
    /// The tick in which data was last sent.
    LAST_DEPARTURE = "tcp_sock"."lsndtime", Bytes(4);
    /// The tick in which something was last acknowledged.
    LAST_ACK = "tcp_sock"."rcv_tstamp", Bytes(4);
    /// Sequence number of the segment that last advanced the send window.
    SND_WL1 = "tcp_sock"."snd_wl1", Bytes(4);
    /// What stands on top of TCP (kTLS); none as a rule.
    UPPER_PROTOCOL = "inet_connection_sock"."icsk_ulp_ops", Pointer("");
}
