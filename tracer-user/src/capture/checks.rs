//! What a capture needs of the user and the host, checked before anything is touched.

use anyhow::{Context as _, Result, bail};

use super::programs;

/// A capability and what it is needed for.
struct Needed {
    name: &'static str,
    bit: u32,
    purpose: &'static str,
}

// Bits of include/uapi/linux/capability.h. CAP_SYS_ADMIN includes the first two.
const SYS_ADMIN: u32 = 21;
const BPF: Needed = Needed {
    name: "CAP_BPF",
    bit: 39,
    purpose: "load programs and maps into the kernel",
};
const PERFMON: Needed = Needed {
    name: "CAP_PERFMON",
    bit: 38,
    purpose: "attach programs to tracepoints and to nginx",
};
const SYS_PTRACE: Needed = Needed {
    name: "CAP_SYS_PTRACE",
    bit: 19,
    purpose: "read nginx's binary, configuration and logs through /proc",
};
const DAC_READ_SEARCH: Needed = Needed {
    name: "CAP_DAC_READ_SEARCH",
    bit: 2,
    purpose: "read nginx's configuration and logs",
};
/// Includes [`DAC_READ_SEARCH`].
const DAC_OVERRIDE: u32 = 1;

/// Capabilities that are needed and not in `effective`.
fn missing(effective: u64) -> Vec<&'static Needed> {
    let has = |bit: u32| effective >> bit & 1 == 1;
    [
        (&BPF, has(SYS_ADMIN)),
        (&PERFMON, has(SYS_ADMIN)),
        (&SYS_PTRACE, false),
        (&DAC_READ_SEARCH, has(DAC_OVERRIDE)),
    ]
    .into_iter()
    .filter(|(needed, included)| !included && !has(needed.bit))
    .map(|(needed, _)| needed)
    .collect()
}

/// The effective capabilities of this process.
fn effective() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .context("/proc/self/status has no CapEff")?;
    u64::from_str_radix(line.trim(), 16).context("cannot read CapEff")
}

/// Checks that a capture can be tried at all.
///
/// # Errors
/// If this build has no kernel programs, or a capability is missing: names it and
/// what it is for.
pub fn before_capture() -> Result<()> {
    if !programs::embedded() {
        bail!(
            "this whoclosed was built without its kernel programs, so it can report on traces \
             but not capture; build it with `cargo xtask build`"
        );
    }
    let missing = missing(effective()?);
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = missing
        .iter()
        .map(|needed| format!("{} (to {})", needed.name, needed.purpose))
        .collect();
    bail!(
        "a capture must run as root; missing here: {}",
        list.join(", ")
    );
}

/// Inode number of the initial pid namespace (`PROC_PID_INIT_INO` of
/// include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// What makes a capture from here less than whole.
#[must_use]
pub fn warnings() -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    let namespace = std::fs::metadata("/proc/self/ns/pid").map(|metadata| metadata.ino());
    match namespace {
        Ok(INITIAL_PID_NAMESPACE) | Err(_) => Vec::new(),
        Ok(_) => vec![
            "whoclosed runs in a pid namespace of its own, where pids differ from the kernel's: \
             lines will not be tied to their connections; run it on the host, or in a container \
             with the host's pid namespace"
                .to_owned(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(effective: u64) -> Vec<&'static str> {
        missing(effective)
            .iter()
            .map(|needed| needed.name)
            .collect()
    }

    #[test]
    fn each_missing_capability_is_named() {
        let all = 1 << 39 | 1 << 38 | 1 << 19 | 1 << 2;
        assert!(names(all).is_empty());
        assert_eq!(names(all & !(1 << 38)), ["CAP_PERFMON"]);
        assert_eq!(names(1 << 21 | 1 << 19 | 1 << 1), [""; 0]);
        assert_eq!(names(0).len(), 4);
    }
}
