//! What a capture needs of the user and the host, and the words for what is missing:
//! `capture` ends with the first of them, `doctor` tells them all.

use std::fs;

use anyhow::Result;
use caps::{CapSet, Capability, CapsHashSet};

use super::programs::{self, Options, Programs};
use super::refusals;
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
/// Without these no program gets into the kernel.
pub(crate) const fn for_programs(role: Role) -> [Privilege; 2] {
    let purpose = match role {
        Role::Nginx => "attach programs to tracepoints and to nginx",
        Role::Backend => "attach programs to tracepoints",
    };
    let included_in = Some(Capability::CAP_SYS_ADMIN);
    [BPF, required(Capability::CAP_PERFMON, included_in, purpose)]
}

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

/// What makes a capture whole where others lack something.
const fn optional(role: Role) -> Privilege {
    Privilege {
        capability: Capability::CAP_SYS_ADMIN,
        included_in: None,
        required: false,
        purpose: match role {
            Role::Nginx => {
                "see nginx write its log where the kernel lets nobody else, and ask for \
                 listening sockets in the network namespaces of containers"
            }
            Role::Backend => "ask for listening sockets in the network namespaces of containers",
        },
    }
}

/// All that a capture in this role uses.
#[must_use]
pub fn privileges(role: Role) -> Vec<Privilege> {
    let mut all = for_programs(role).to_vec();
    all.extend(of_proc(role));
    all.push(optional(role));
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
    refusals::explained(Programs::load(options))
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
    fn what_a_capability_is_for_is_said_of_the_role_it_is_for() {
        let purposes = |role| {
            let all = privileges(role).into_iter().map(|one| one.purpose);
            all.collect::<Vec<_>>().join("; ")
        };
        assert!(purposes(Role::Nginx).contains("see nginx write its log"));
        assert!(!purposes(Role::Backend).contains("nginx"));
    }

    /// What stands after this, to the first of these characters, each time that it stands there.
    fn after<'a>(text: &'a str, start: &str, ends: &[char]) -> Vec<&'a str> {
        let parts = text.split(start).skip(1);
        parts.filter_map(|part| part.split(ends).next()).collect()
    }

    #[test]
    fn the_units_in_the_documentation_give_what_is_required_and_no_more() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/doctor.md");
        let page = fs::read_to_string(page).unwrap();
        for role in [Role::Nginx, Role::Backend] {
            let required = privileges(role).into_iter().filter(|one| one.required);
            let required: Vec<String> = required.map(|one| one.capability.to_string()).collect();
            for setting in ["AmbientCapabilities=", "CapabilityBoundingSet="] {
                assert_eq!(after(&page, setting, &['"']), [required.join(" ")]);
            }
            let added = |name: &String| format!("+{}", name["CAP_".len()..].to_lowercase());
            let added: Vec<String> = required.iter().map(added).collect();
            let expected = format!("-all,{}", added.join(","));
            assert_eq!(after(&page, "\nCAPS=", &['\n']), [expected]);
            // The table says of each what it is for, and of the optional that it is one.
            let rows = after(&page, "\n| `", &['|']);
            let rows: Vec<&str> = rows
                .into_iter()
                .filter(|row| row.starts_with("CAP_"))
                .collect();
            let optional = privileges(role).into_iter().filter(|one| !one.required);
            let optional = optional.map(|one| format!("{}`, optional ", one.capability));
            let names = required.iter().map(|name| format!("{name}` "));
            assert_eq!(rows, names.chain(optional).collect::<Vec<_>>());
        }
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
}
