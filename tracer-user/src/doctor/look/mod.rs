//! Looks at this host. Everything is tried for real, and nothing is left behind.

mod memory;

use std::fs;

use super::found::{Capability, ErrorLog, Found, Kernel, Memory, Nginx, Process};
use crate::capture::host::Watched;
use crate::capture::refusals::Policy;
use crate::capture::rehearsal::{Request, rehearse};
use crate::capture::{checks, host_name, programs};
use crate::judge::by_functions::Past;
use crate::trace::record::{self, Role};

const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// Looks at everything.
#[must_use]
pub fn look(request: &Request) -> Found {
    let memory = free_memory(programs::RING_BYTES);
    let rehearsal = rehearse(request);
    let watched = rehearsal.host.iter().flat_map(|host| &host.watched);
    let instances = watched.zip(&rehearsal.instances);
    Found {
        nginx: instances
            .map(|(watched, (logs, seen))| instance(watched, logs, *seen))
            .collect(),
        hooks: rehearsal.hooks,
        listening: rehearsal.listening,
        obstacles: rehearsal.obstacles,
        warnings: rehearsal.warnings,
        ..here(request.role, memory, rehearsal.type_information)
    }
}

/// What a capture with a ring buffer of this size may still use. To be asked before it uses
/// any of it.
pub(crate) fn free_memory(ring_bytes: u32) -> Memory {
    memory::look(u64::from(ring_bytes))
}

/// What can be looked at without trying anything.
pub(crate) fn here(role: Role, memory: Memory, type_information: bool) -> Found {
    let policy = Policy::of_this_host();
    let uname = rustix::system::uname();
    let held = checks::effective();
    Found {
        role,
        host: host_name(),
        kernel: Kernel {
            release: uname.release().to_string_lossy().into_owned(),
            machine: uname.machine().to_string_lossy().into_owned(),
            type_information,
            lockdown: policy.lockdown,
            security_modules: policy.security_modules,
            clock_source: fs::read_to_string(CLOCK_SOURCE)
                .ok()
                .map(|text| text.trim().to_owned()),
        },
        process: Process {
            uid: rustix::process::geteuid().as_raw(),
            pids_of_the_host: checks::warnings(role).is_empty(),
            seccomp: policy.seccomp,
            capabilities: checks::privileges(role)
                .iter()
                .map(|privilege| Capability {
                    name: privilege.capability.to_string(),
                    required: privilege.required,
                    held: privilege.is_in(&held),
                    purpose: privilege.purpose.to_owned(),
                })
                .collect(),
        },
        memory,
        ..Found::default()
    }
}

/// An instance with the logs that are followed of it.
pub(crate) fn instance(
    watched: &Watched,
    logs: &[record::ErrorLog],
    log_calls_seen: bool,
) -> Nginx {
    let in_force = watched.in_force();
    Nginx {
        master_pid: watched.instance.master_pid,
        version: watched.binary.version.clone(),
        binary: watched.instance.binary.clone(),
        workers: watched.instance.workers.len(),
        exports_log_function: watched.binary.exports_log_function,
        log_calls_seen,
        configuration_path: in_force.path.clone(),
        configuration_read: in_force.configuration.is_some(),
        configuration_problems: in_force.problems.clone(),
        error_logs: logs.iter().cloned().map(error_log).collect(),
        narrowest_log: watched.narrowest(logs).map(error_log),
        past_functions: Past::of(
            in_force
                .configuration
                .as_ref()
                .filter(|_| !in_force.changed_since_start),
        ),
    }
}

fn error_log(log: record::ErrorLog) -> ErrorLog {
    ErrorLog {
        path: log.path,
        level: log.level,
    }
}
