//! What a capture needs of the user and the host, and the words for what is missing:
//! `capture` ends with the first of them, `doctor` tells them all.

use std::fs;

use anyhow::Result;
use caps::{CapSet, Capability, CapsHashSet};

use super::programs::{self, Options, Programs};
use crate::trace::record::Role;

/// Why no capture is possible here, in the words of both verbs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct Obstacle {
    /// What it is.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// A capability and what a capture does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privilege {
    /// The capability.
    pub capability: Capability,
    /// Another one that includes it.
    pub included_in: Option<Capability>,
    /// Without it there is no capture.
    pub required: bool,
    /// What it is for, after "to".
    pub purpose: &'static str,
}

const fn required(
    capability: Capability,
    included_in: Option<Capability>,
    purpose: &'static str,
) -> Privilege {
    Privilege {
        capability,
        included_in,
        required: true,
        purpose,
    }
}

const BPF: Privilege = required(
    Capability::CAP_BPF,
    Some(Capability::CAP_SYS_ADMIN),
    "load programs and maps into the kernel",
);
const PERFMON: Privilege = required(
    Capability::CAP_PERFMON,
    Some(Capability::CAP_SYS_ADMIN),
    "attach programs to tracepoints and to nginx",
);

/// Without these no program gets into the kernel.
pub(crate) const FOR_PROGRAMS: [Privilege; 2] = [BPF, PERFMON];

/// Without these nginx cannot be looked at.
pub(crate) const FOR_NGINX: [Privilege; 2] = [
    required(
        Capability::CAP_SYS_PTRACE,
        None,
        "read nginx's binary, configuration and logs through /proc",
    ),
    required(
        Capability::CAP_DAC_READ_SEARCH,
        Some(Capability::CAP_DAC_OVERRIDE),
        "read nginx's configuration and logs",
    ),
];

/// Without these it is not known who listens at a port.
const FOR_PORTS: [Privilege; 2] = [
    required(
        Capability::CAP_SYS_PTRACE,
        None,
        "see which process listens at a port",
    ),
    required(
        Capability::CAP_DAC_READ_SEARCH,
        Some(Capability::CAP_DAC_OVERRIDE),
        "see which process listens at a port",
    ),
];

const SYS_ADMIN: Privilege = Privilege {
    capability: Capability::CAP_SYS_ADMIN,
    included_in: None,
    required: false,
    purpose: "see nginx write its log where the kernel lets nobody else, and to ask for listening \
              sockets in the network namespaces of containers",
};

/// All that a capture in this role uses.
#[must_use]
pub fn privileges(role: Role) -> Vec<Privilege> {
    let mut all = FOR_PROGRAMS.to_vec();
    all.extend(of_proc(role));
    all.push(SYS_ADMIN);
    all
}

/// Those with which other processes are looked at.
pub(crate) const fn of_proc(role: Role) -> [Privilege; 2] {
    match role {
        Role::Nginx => FOR_NGINX,
        Role::Backend => FOR_PORTS,
    }
}

impl Privilege {
    /// Is it among these?
    #[must_use]
    pub fn is_in(&self, held: &CapsHashSet) -> bool {
        held.contains(&self.capability)
            || self
                .included_in
                .is_some_and(|larger| held.contains(&larger))
    }
}

/// The capabilities in force for this thread. One that this program does not know by name
/// is none that it needs.
#[must_use]
pub fn effective() -> CapsHashSet {
    caps::read(None, CapSet::Effective).unwrap_or_default()
}

/// Are any of the wanted missing?
///
/// # Errors
/// Then: names them and what they are for.
pub(crate) fn held(wanted: &[Privilege], held: &CapsHashSet) -> Result<(), Obstacle> {
    let missing: Vec<&Privilege> = wanted
        .iter()
        .filter(|privilege| privilege.required && !privilege.is_in(held))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let uses: Vec<String> = missing
        .iter()
        .map(|privilege| format!("{} (to {})", privilege.capability, privilege.purpose))
        .collect();
    let names: Vec<String> = missing
        .iter()
        .map(|privilege| privilege.capability.to_string())
        .collect();
    Err(Obstacle {
        what: format!("this process lacks {}", listed(&uses)),
        remedy: format!("run whoclosed as root, or give it {} too", listed(&names)),
    })
}

/// `a`, `a and b`, `a, b and c`.
fn listed(words: &[String]) -> String {
    match words {
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        words => words.concat(),
    }
}

/// Has this build its kernel programs?
///
/// # Errors
/// If not.
pub(crate) fn embedded() -> Result<(), Obstacle> {
    if programs::embedded() {
        return Ok(());
    }
    Err(Obstacle {
        what: "this whoclosed was built without its kernel programs: it can report on traces but \
               not capture"
            .to_owned(),
        remedy: "build it with `cargo xtask build`".to_owned(),
    })
}

/// Checks that a capture can be tried at all.
///
/// # Errors
/// If this build has no kernel programs, or a capability is missing: names it and
/// what it is for.
pub fn before_capture(role: Role) -> Result<()> {
    embedded()?;
    held(&privileges(role), &effective())?;
    Ok(())
}

/// Loads and attaches the kernel programs.
///
/// # Errors
/// If the kernel refuses what no capture can do without, with the reason where the
/// host's policy is one.
pub(super) fn load(options: &Options) -> Result<Programs> {
    explained(Programs::load(options))
}

/// Says instead of a refusal of the kernel's what of the host's policy explains it.
pub(super) fn explained<T>(result: Result<T>) -> Result<T> {
    result.map_err(
        |error| match policy(&format!("{error:#}"), &Policy::of_this_host()) {
            Some(obstacle) => obstacle.into(),
            None => error,
        },
    )
}

/// What may keep a privileged process from loading programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Mode of the kernel's lockdown, if it is locked down: `integrity`, `confidentiality`.
    pub lockdown: Option<String>,
    /// Security modules in force.
    pub security_modules: Vec<String>,
    /// System calls of this process are filtered.
    pub seccomp: bool,
}

impl Policy {
    /// As the kernel tells; what it does not tell is taken as not there.
    #[must_use]
    pub fn of_this_host() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let modules = text("/sys/kernel/security/lsm");
        let status = text("/proc/self/status");
        Self {
            lockdown: lockdown(&text("/sys/kernel/security/lockdown"))
                .or_else(|| lockdown_asked(&text("/proc/cmdline"))),
            security_modules: modules
                .trim()
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            seccomp: status
                .lines()
                .find_map(|line| line.strip_prefix("Seccomp:"))
                .is_some_and(|mode| mode.trim() == "2"),
        }
    }
}

/// `none [integrity] confidentiality` (security/lockdown/lockdown.c `lockdown_read`).
fn lockdown(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    let (mode, _) = rest.split_once(']')?;
    (mode != "none").then(|| mode.to_owned())
}

/// What the kernel was started with, for where its securityfs is not mounted.
fn lockdown_asked(command_line: &str) -> Option<String> {
    command_line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("lockdown="))
        .filter(|mode| ["integrity", "confidentiality"].contains(mode))
        .map(str::to_owned)
}

/// So the verifier refuses helpers that read the kernel's memory, under whichever name
/// (`bpf_tracing_func_proto` in kernel/trace/bpf_trace.c; seen on Linux 6.12).
const READS: &str = "cannot use helper bpf_probe_read";

/// What of the host's policy explains why the kernel refuses the programs.
pub(crate) fn policy(refusal: &str, policy: &Policy) -> Option<Obstacle> {
    let is_confidential = policy.lockdown.as_deref() == Some("confidentiality");
    let denied = refusal.contains("EPERM") || refusal.contains("(os error 1)");
    if is_confidential && (refusal.contains(READS) || denied) {
        return Some(Obstacle {
            what: "this kernel is locked down \
                   (lockdown=confidentiality): no program may look into it"
                .to_owned(),
            remedy: "capture on a host that is not, or start this one with lockdown=integrity"
                .to_owned(),
        });
    }
    if !denied {
        return None;
    }
    if policy.seccomp {
        return Some(Obstacle {
            what: "a filter of system calls (seccomp) is in force for \
                   this process and seems to refuse bpf()"
                .to_owned(),
            remedy: "run whoclosed on the host itself, or in a container without that filter"
                .to_owned(),
        });
    }
    let modules: Vec<&str> = policy
        .security_modules
        .iter()
        .map(String::as_str)
        .filter(|name| ["selinux", "apparmor", "smack", "tomoyo", "bpf"].contains(name))
        .collect();
    let by = match modules.as_slice() {
        [] => "its security policy".to_owned(),
        modules => format!("its security policy (in force: {})", modules.join(", ")),
    };
    Some(Obstacle {
        what: format!("this kernel refuses programs, by {by}"),
        remedy: "its log (dmesg, audit.log) may name the rule".to_owned(),
    })
}

/// Inode number of the initial pid namespace (`PROC_PID_INIT_INO` of
/// include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// What makes a capture from here less than whole.
#[must_use]
pub fn warnings(role: Role) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    let namespace = fs::metadata("/proc/self/ns/pid").map(|metadata| metadata.ino());
    match namespace {
        Ok(INITIAL_PID_NAMESPACE) | Err(_) => Vec::new(),
        Ok(_) => {
            let lost = match role {
                Role::Nginx => "lines will not be tied to their connections",
                Role::Backend => {
                    "processes outside are not found by their names, the ends of those that listen \
                     may be missed, and pids in the trace are the host's"
                }
            };
            vec![format!(
                "{lost}: whoclosed runs in a pid namespace of its own, where pids differ from the \
                 kernel's; run it on the host, or in a container with the host's pid namespace"
            )]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(all: &[Capability]) -> CapsHashSet {
        all.iter().copied().collect()
    }

    #[track_caller]
    fn missing(held_now: &[Capability]) -> String {
        let found = held(&privileges(Role::Nginx), &set(held_now));
        found.map_or_else(|obstacle| obstacle.to_string(), |()| String::new())
    }

    #[test]
    fn each_missing_capability_is_named_with_its_purpose() {
        use Capability::{
            CAP_BPF, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_PERFMON, CAP_SYS_ADMIN,
            CAP_SYS_PTRACE,
        };
        let all = [CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH];
        assert_eq!(missing(&all), "");
        assert_eq!(
            missing(&[CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_DAC_OVERRIDE]),
            ""
        );
        assert_eq!(
            missing(&[CAP_BPF, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH]),
            "this process lacks CAP_PERFMON (to attach programs to tracepoints and to nginx); run \
             whoclosed as root, or give it CAP_PERFMON too"
        );
        let none = missing(&[]);
        for capability in all {
            assert_eq!(none.matches(&capability.to_string()).count(), 2, "{none}");
        }
        assert!(none.ends_with("CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH too"));
    }

    #[test]
    fn lockdown_is_read_and_explains_a_refusal() {
        assert_eq!(lockdown("[none] integrity confidentiality\n"), None);
        assert_eq!(
            lockdown("none [integrity] confidentiality\n").as_deref(),
            Some("integrity")
        );
        assert_eq!(
            lockdown_asked("quiet lockdown=confidentiality\n").as_deref(),
            Some("confidentiality")
        );
        let mut host = Policy {
            lockdown: Some("confidentiality".to_owned()),
            ..Policy::default()
        };
        let helper = "cannot attach: program of this type cannot use helper bpf_probe_read#4";
        let text = |host: &Policy| policy(helper, host).map(|obstacle| obstacle.what);
        assert!(text(&host).unwrap().contains("lockdown=confidentiality"));
        host.lockdown = Some("integrity".to_owned());
        assert_eq!(text(&host), None);
    }

    #[test]
    fn a_refusal_without_a_reason_names_what_may_be_one() {
        let mut host = Policy {
            security_modules: ["capability", "yama", "selinux"]
                .map(str::to_owned)
                .to_vec(),
            ..Policy::default()
        };
        let text = |host: &Policy| policy("refused (EPERM)", host).unwrap().what;
        assert!(text(&host).contains("(in force: selinux)"));
        host.seccomp = true;
        assert!(text(&host).contains("seccomp"));
        assert_eq!(policy("no such tracepoint", &host), None);
    }
}
