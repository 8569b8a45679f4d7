//! Why this kernel refuses what a capture does: what of the host's policy, or its age,
//! explains it. Whether it refuses is found by trying, never from these.

use std::fs;

use anyhow::Result;

use super::checks::Obstacle;

/// Says instead of a refusal of the kernel's what explains it.
pub(super) fn explained<T>(result: Result<T>) -> Result<T> {
    result.map_err(|error| {
        let refusal = match error.downcast_ref::<Obstacle>() {
            Some(obstacle) => obstacle.what.clone(),
            None => format!("{error:#}"),
        };
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        match explanation(&refusal, &Policy::of_this_host(), &release) {
            Some(obstacle) => obstacle.into(),
            None => error,
        }
    })
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
/// (`bpf_tracing_func_proto` in kernel/trace/bpf_trace.c; the first seen on Linux 6.12, the
/// second on 6.1).
const READS: [&str; 2] = [
    "cannot use helper bpf_probe_read",
    "unknown func bpf_probe_read",
];

/// The oldest kernel on which captures were run.
const OLDEST: (u32, u32) = (5, 14);
/// Before this one no program on a tracepoint has socket storage; later ones that refuse may
/// do so for any other reason.
const FIRST: (u32, u32) = (5, 11);

/// Is it a refusal by the host's policy? What the verifier does not take is none, though it
/// has the same number as that of a security module.
fn is_denied(refusal: &str) -> bool {
    let by_module = |after: &str| {
        after.is_empty() || after.starts_with("; ") || after.starts_with(": the verifier said")
    };
    refusal.contains("EPERM")
        || refusal.contains("(os error 1)")
        || refusal.split("(os error 13)").skip(1).any(by_module)
}

/// Why this kernel's age explains a refusal that is none of the host's policy.
fn is_for_age(refusal: &str, release: &str) -> bool {
    // Helpers that a policy takes away are no sign of it.
    let lacks_helper = helper(refusal).is_some() && !READS.iter().any(|one| refusal.contains(one));
    is_before(release, FIRST) || lacks_helper && is_before(release, OLDEST)
}

/// What of the host explains why the kernel refuses the programs, or cannot describe its
/// types. `release` is that of `uname -r`.
fn explanation(refusal: &str, policy: &Policy, release: &str) -> Option<Obstacle> {
    let is_confidential = policy.lockdown.as_deref() == Some("confidentiality");
    let denied = is_denied(refusal);
    let may_not_read = READS.iter().any(|words| refusal.contains(words));
    if is_confidential && (may_not_read || denied) {
        return Some(Obstacle {
            what: "this kernel is locked down \
                   (lockdown=confidentiality): no program may look into it"
                .to_owned(),
            remedy: "capture on a host that is not, or start this one with lockdown=integrity"
                .to_owned(),
        });
    }
    if denied {
        return Some(denial(policy, release));
    }
    if is_for_age(refusal, release) {
        return Some(Obstacle {
            what: format!(
                "this kernel is too old, Linux {release}: {}",
                helper(refusal).map_or_else(
                    || refusal.to_owned(),
                    |helper| format!("it has no {helper} for programs on its tracepoints")
                )
            ),
            remedy: elsewhere(),
        });
    }
    None
}

fn elsewhere() -> String {
    format!(
        "capture on a host with Linux {}.{} or later",
        OLDEST.0, OLDEST.1
    )
}

/// Which policy it may have been. Whoever lifts it on an old kernel gains nothing by it.
fn denial(policy: &Policy, release: &str) -> Obstacle {
    let mut obstacle = denied_by(policy);
    if is_before(release, FIRST) {
        obstacle.what = format!(
            "{}, and the kernel is too old besides, Linux {release}",
            obstacle.what
        );
        obstacle.remedy = elsewhere();
    }
    obstacle
}

fn denied_by(policy: &Policy) -> Obstacle {
    if policy.seccomp {
        return Obstacle {
            what: "a filter of system calls (seccomp) is in force for \
                   this process and seems to refuse bpf()"
                .to_owned(),
            remedy: "run whoclosed on the host itself, or in a container without that filter"
                .to_owned(),
        };
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
    Obstacle {
        what: format!("this kernel refuses programs, by {by}"),
        remedy: "its log (dmesg, audit.log) may name the rule".to_owned(),
    }
}

fn is_before(release: &str, first: (u32, u32)) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok();
    number()
        .zip(number())
        .is_some_and(|version| version < first)
}

/// The function of the kernel's that the verifier does not let a program call:
/// `unknown func bpf_sk_storage_get#107`.
fn helper(refusal: &str) -> Option<&str> {
    let (_, after) = refusal.split_once("unknown func ")?;
    let end = after.find(|letter: char| letter != '_' && !letter.is_ascii_alphanumeric());
    after.get(..end?).filter(|name| name.starts_with("bpf_"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let text = |host: &Policy| explanation(helper, host, "6.12").map(|found| found.what);
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
        let text = |host: &Policy| explanation("refused (EPERM)", host, "6.12").unwrap().what;
        assert!(text(&host).contains("(in force: selinux)"));
        host.seccomp = true;
        assert!(text(&host).contains("seccomp"));
        assert_eq!(explanation("no such tracepoint", &host, "6.12"), None);
    }

    #[test]
    fn a_kernel_that_is_too_old_is_said_to_be_once_it_refuses() {
        let refusal = "cannot attach to the kernel's tracepoint inet_sock_set_state: Invalid \
                       argument (os error 22): unknown func bpf_sk_storage_get#107; without it x";
        let text = |release| {
            explanation(refusal, &Policy::default(), release).map(|found| found.to_string())
        };
        assert_eq!(
            text("5.10.0-46-amd64").unwrap(),
            "this kernel is too old, Linux 5.10.0-46-amd64: it has no bpf_sk_storage_get for \
             programs on its tracepoints; capture on a host with Linux 5.14 or later"
        );
        assert_eq!(text("5.14.0-503.el9"), None);
        let other = explanation("cannot read x", &Policy::default(), "4.19.0-27").unwrap();
        assert!(other.what.ends_with("4.19.0-27: cannot read x"), "{other}");
        let denied = explanation("refused (EPERM)", &Policy::default(), "5.14.0-503.el9");
        assert!(!denied.unwrap().what.contains("too old"));
        for release in ["5.14.0-503.el9", "6.10", "7.0-rc1", "10.0.1", "odd", ""] {
            assert!(!is_before(release, FIRST), "{release}");
        }
    }

    #[test]
    fn a_denial_on_an_old_kernel_is_told_before_its_age() {
        let host = Policy {
            security_modules: vec!["selinux".to_owned()],
            ..Policy::default()
        };
        let found = |refusal, release| explanation(refusal, &host, release);
        for denied in [
            "the host does not permit this program (EPERM): CAP_BPF is needed; without it x",
            "cannot attach: Permission denied (os error 13): the verifier said nothing; without",
            "failed to create map `LOSS`: Permission denied (os error 13)",
        ] {
            let old = found(denied, "5.10.0-46-amd64").unwrap().to_string();
            assert!(
                old.contains("by its security policy (in force: selinux)"),
                "{old}"
            );
            assert!(
                old.contains("too old besides, Linux 5.10.0-46-amd64"),
                "{old}"
            );
            let new = found(denied, "6.12").unwrap().to_string();
            assert!(new.contains("selinux") && !new.contains("too old"), "{new}");
        }
        let rejected = "Permission denied (os error 13): R1 invalid mem access 'scalar'; without";
        assert_eq!(found(rejected, "6.12"), None);
    }

    #[test]
    fn a_kernel_that_lacks_a_helper_is_too_old_though_others_of_its_age_may_do() {
        let lacking = "Invalid argument (os error 22): unknown func bpf_snprintf#165; without";
        let found = |refusal, release| explanation(refusal, &Policy::default(), release);
        let said = found(lacking, "5.13.0").unwrap().to_string();
        assert!(said.starts_with("this kernel is too old, Linux 5.13.0: it has no bpf_snprintf"));
        assert_eq!(found(lacking, "5.14.21"), None);
        assert_eq!(found("no such tracepoint", "5.13.0"), None);
        assert_eq!(
            found("unknown func bpf_probe_read_kernel#113", "5.13.0"),
            None
        );
    }

    #[test]
    fn the_lockdown_of_an_old_kernel_comes_before_its_age() {
        let host = Policy {
            lockdown: Some("confidentiality".to_owned()),
            ..Policy::default()
        };
        let found = explanation("unknown func bpf_probe_read#4", &host, "5.10.0").unwrap();
        assert!(found.what.contains("lockdown=confidentiality"), "{found}");
    }
}
