//! The facts of a host that bear on what a capture there can tell.

use serde::Serialize;

use crate::capture::checks::Obstacle;
use crate::judge::by_functions::Past;
use crate::trace::record::{Hook, Role};

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Found {
    /// Whose side of connections a capture would watch.
    pub role: Role,
    /// Host name.
    pub host: String,
    /// The kernel.
    pub kernel: Kernel,
    /// This process.
    pub process: Process,
    /// Memory.
    pub memory: Memory,
    /// Every hook that was tried, and what became of it.
    pub hooks: Vec<Hook>,
    /// nginx instances, in the role of nginx's host.
    pub nginx: Vec<Nginx>,
    /// Ports at which somebody listens and their processes, in the role of a backend's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listening: Option<String>,
    /// What keeps a capture from running, in the order in which it would meet it.
    #[serde(skip)]
    pub obstacles: Vec<Obstacle>,
    /// What a capture would warn of, in its words.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// The kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// `uname -m`.
    pub machine: String,
    /// All fields of its structs that the programs read were found.
    pub type_information: bool,
    /// Mode of its lockdown, if it is locked down.
    pub lockdown: Option<String>,
    /// Security modules in force, where the kernel tells.
    pub security_modules: Vec<String>,
    /// What it takes its time from.
    pub clock_source: Option<String>,
}

/// This process.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Process {
    /// Effective user.
    pub uid: u32,
    /// Its pids are the kernel's.
    pub pids_of_the_host: bool,
    /// A filter of system calls is in force.
    pub seccomp: bool,
    /// What a capture uses, and whether it is held.
    pub capabilities: Vec<Capability>,
}

/// A capability.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Capability {
    /// `CAP_BPF`.
    pub name: String,
    /// No capture without it.
    pub required: bool,
    /// This process has it, or one that includes it.
    pub held: bool,
    /// What it is for, after "to".
    pub purpose: String,
}

/// Memory that a capture would use and may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Of these, the ring buffer.
    pub ring_buffer_bytes: u64,
    /// What a capture uses at most: kernel and process.
    pub needed_bytes: u64,
    /// What is free where the least is.
    pub free_bytes: Option<u64>,
    /// What limits it there: `this host`, `the memory cgroup /a/b`.
    pub limited_by: Option<String>,
}

/// One nginx instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Nginx {
    /// Pid of its master.
    pub master_pid: u32,
    /// Flavour and version.
    pub version: Option<String>,
    /// Its binary as it sees it.
    pub binary: String,
    /// How many workers it has.
    pub workers: usize,
    /// Its binary names the function behind every log line.
    pub exports_log_function: bool,
    /// Lines can be seen being written.
    pub log_calls_seen: bool,
    /// Its configuration file as it sees it.
    pub configuration_path: String,
    /// Could it be read?
    pub configuration_read: bool,
    /// What could not be read or understood of it.
    pub configuration_problems: Vec<String>,
    /// Error logs that a capture would read.
    pub error_logs: Vec<ErrorLog>,
    /// Of the logs of its requests the one that leaves out the most, where that is known: a
    /// request's lines go to the logs of its own context and to no other.
    pub narrowest_log: Option<ErrorLog>,
    /// What of its bytes goes past the kernel's TCP functions, by its configuration.
    #[serde(skip)]
    pub past_functions: Past,
}

/// An error log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ErrorLog {
    /// Path as nginx sees it, or what it is.
    pub path: String,
    /// Level, where known.
    pub level: Option<String>,
}
