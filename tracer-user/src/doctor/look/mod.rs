//! Looks at this host. Everything is tried for real, and nothing is left behind.

mod memory;

use std::fs;

use super::found::{Capability, ErrorLog, Found, Kernel, Nginx, Process};
use crate::capture::checks;
use crate::capture::refusals::Policy;
use crate::capture::rehearsal::{Rehearsal, Request, rehearse};
use crate::capture::{host_name, programs};
use crate::trace::record;

const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// Looks at everything.
#[must_use]
pub fn look(request: &Request) -> Found {
    let policy = Policy::of_this_host();
    let memory = memory::look(u64::from(programs::RING_BYTES));
    let rehearsal = rehearse(request);
    let uname = rustix::system::uname();
    let held = checks::effective();
    Found {
        role: request.role,
        host: host_name(),
        kernel: Kernel {
            release: uname.release().to_string_lossy().into_owned(),
            machine: uname.machine().to_string_lossy().into_owned(),
            type_information: rehearsal.type_information,
            lockdown: policy.lockdown,
            security_modules: policy.security_modules,
            clock_source: fs::read_to_string(CLOCK_SOURCE)
                .ok()
                .map(|text| text.trim().to_owned()),
        },
        process: Process {
            uid: rustix::process::geteuid().as_raw(),
            pids_of_the_host: checks::warnings(request.role).is_empty(),
            seccomp: policy.seccomp,
            capabilities: checks::privileges(request.role)
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
        nginx: instances(&rehearsal),
        hooks: rehearsal.hooks,
        listening: rehearsal.listening,
        obstacles: rehearsal.obstacles,
        warnings: rehearsal.warnings,
    }
}

fn instances(rehearsal: &Rehearsal) -> Vec<Nginx> {
    let watched = rehearsal.host.iter().flat_map(|host| &host.watched);
    watched
        .zip(&rehearsal.instances)
        .map(|(watched, (logs, log_calls_seen))| {
            let in_force = watched.in_force();
            Nginx {
                master_pid: watched.instance.master_pid,
                version: watched.binary.version.clone(),
                binary: watched.instance.binary.clone(),
                workers: watched.instance.workers.len(),
                exports_log_function: watched.binary.exports_log_function,
                log_calls_seen: *log_calls_seen,
                configuration_path: in_force.path.clone(),
                configuration_read: in_force.configuration.is_some(),
                configuration_problems: in_force.problems.clone(),
                error_logs: logs.iter().cloned().map(error_log).collect(),
                narrowest_log: watched.narrowest(logs).map(error_log),
            }
        })
        .collect()
}

fn error_log(log: record::ErrorLog) -> ErrorLog {
    ErrorLog {
        path: log.path,
        level: log.level,
    }
}
