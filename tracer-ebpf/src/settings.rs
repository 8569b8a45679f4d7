//! What user space tells the programs when it loads them: whose connections count.

/// How many process names can be given.
pub const NAMES: usize = 8;
/// Bytes of a process name (`TASK_COMM_LEN`), zero-padded.
pub const NAME_BYTES: usize = 16;
/// Process names as the global `NAMES` holds them: the bytes, zero-padded, as two
/// little-endian words each.
pub type Names = [[u64; 2]; NAMES];

/// Indexes of the global `SETTINGS`, an array of `u32`.
pub const MASTER_PID: usize = 0;
/// 1 where `ngx_log_error_core` takes a file name before errno (Angie 1.12 and later).
pub const LOG_HAS_FILE_NAME: usize = 1;
/// Numbers of the system calls that put another program in a process's place.
pub const EXECVE: usize = 2;
/// See [`EXECVE`].
pub const EXECVEAT: usize = 3;
/// Numbers of the system calls with which nginx writes its error logs.
pub const WRITE: usize = 4;
/// See [`WRITE`].
pub const SENDTO: usize = 5;
/// Nanoseconds of one tick of the kernel's counter (`1 / CONFIG_HZ`); 0 if not known.
pub const TICK_NS: usize = 6;
/// 1 if the backends' sides of connections on this host are left alone.
pub const NO_LOCAL_BACKENDS: usize = 7;
/// For tests: of a hundred of nginx's sends and receives, so many are missed; 0 as a rule.
pub const MISSED_CALLS: usize = 8;
/// 1 where programs can ask for a task's registers (`bpf_task_pt_regs`, Linux 5.15).
pub const TASK_REGISTERS: usize = 9;
/// Length of the global `SETTINGS`.
pub const SETTINGS: usize = 10;

/// Slots of the thread table; a thread's slot is its id modulo this.
pub const THREADS: usize = 4096;
