//! Gives up the capabilities that a capture needs no longer once everything is attached
//! and open.
//!
//! What is needed later was found by taking it away: new and rotated logs and reloaded
//! configurations are read through `/proc/PID/root` (CAP_SYS_PTRACE,
//! CAP_DAC_READ_SEARCH), and, where the kernel has no links of uprobes
//! ([`super::uprobe_links`], which need nothing), a binary that nginx is upgraded to gets
//! its uprobes (CAP_PERFMON, or CAP_SYS_ADMIN where the kernel asks for that). All
//! programs are loaded and the maps open: they need nothing, but kernels before 5.19 let
//! nobody without CAP_BPF (or CAP_SYS_ADMIN) call bpf() at all where `kernel.unprivileged_bpf_disabled` is
//! set.

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability, CapsHashSet};

/// What later binaries' uprobes may need.
const FOR_UPROBES: [Capability; 2] = [Capability::CAP_PERFMON, Capability::CAP_SYS_ADMIN];

/// What of these is kept: of `uprobes` all, and to look at processes.
fn kept(held: &CapsHashSet, uprobes: bool) -> CapsHashSet {
    let reads = Capability::CAP_DAC_READ_SEARCH;
    let mut wanted = vec![Capability::CAP_SYS_PTRACE, reads];
    if !held.contains(&reads) {
        wanted.push(Capability::CAP_DAC_OVERRIDE);
    }
    if uprobes {
        wanted.extend(FOR_UPROBES);
    }
    wanted
        .into_iter()
        .filter(|capability| held.contains(capability))
        .collect()
}

/// What keeps the maps readable where that needs a capability: the least of those held.
fn for_maps(held: &CapsHashSet) -> Option<Capability> {
    [Capability::CAP_BPF, Capability::CAP_SYS_ADMIN]
        .into_iter()
        .find(|capability| held.contains(capability))
}

/// Gives up what is not needed any more. `uprobes`: those of later binaries need theirs.
/// `works` tells whether the maps can still be read; it is asked without CAP_BPF.
///
/// What cannot be given up is kept, and is no reason to lose the capture: `warn` is told.
pub(super) fn give_up(
    uprobes: bool,
    works: impl FnOnce() -> bool,
    warn: impl FnOnce(std::fmt::Arguments<'_>),
) {
    if let Err(error) = try_to_give_up(uprobes, works) {
        warn(format_args!(
            "the capture runs with more privileges than it needs: {error:#}"
        ));
    }
}

fn try_to_give_up(uprobes: bool, works: impl FnOnce() -> bool) -> Result<()> {
    let held = caps::read(None, CapSet::Permitted).context("cannot read the capabilities")?;
    let mut keep = kept(&held, uprobes);
    let mut least = keep.clone();
    // It includes CAP_BPF.
    least.remove(&Capability::CAP_SYS_ADMIN);
    set(CapSet::Effective, &least)?;
    if !works() {
        keep.extend(for_maps(&held));
    }
    set(CapSet::Effective, &keep)?;
    let none = CapsHashSet::new();
    caps::clear(None, CapSet::Ambient).context("cannot clear the ambient capabilities")?;
    set(CapSet::Inheritable, &none)?;
    set(CapSet::Permitted, &keep)?;
    // Nothing that this process might ever run gets them back.
    rustix::thread::set_no_new_privs(true).context("cannot give up new privileges")
}

fn set(which: CapSet, capabilities: &CapsHashSet) -> Result<()> {
    caps::set(None, which, capabilities).context("cannot give up capabilities")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_stay_readable_with_the_least_that_is_held() {
        use Capability::{CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN};
        let set = |all: &[Capability]| all.iter().copied().collect::<CapsHashSet>();
        assert_eq!(for_maps(&caps::all()), Some(CAP_BPF));
        assert_eq!(
            for_maps(&set(&[CAP_SYS_ADMIN, CAP_PERFMON])),
            Some(CAP_SYS_ADMIN)
        );
        assert_eq!(for_maps(&set(&[CAP_PERFMON])), None);
    }

    /// Lets the kernel refuse this thread every capset(2).
    fn refuse_capset() {
        let statement = |code: u32, jt, jf, k| libc::sock_filter {
            code: u16::try_from(code).unwrap(),
            jt,
            jf,
            k,
        };
        let number = u32::try_from(libc::SYS_capset).unwrap();
        let refused = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).unwrap();
        let mut filter = [
            // The number of the call is the first word of `struct seccomp_data`.
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
            statement(libc::BPF_RET | libc::BPF_K, 0, 0, refused),
            statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).unwrap(),
            filter: filter.as_mut_ptr(),
        };
        rustix::thread::set_no_new_privs(true).unwrap();
        // SAFETY: the kernel copies the program, and the statements that it points to, before
        // the call returns; both live until then.
        let set = unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            )
        };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }

    #[test]
    fn what_cannot_be_given_up_is_warned_of_and_ends_nothing() {
        // The filter is this thread's alone.
        let warned = std::thread::spawn(|| {
            refuse_capset();
            let mut warned = String::new();
            give_up(false, || true, |why| warned = why.to_string());
            warned
        });
        let warned = warned.join().unwrap();
        assert!(warned.contains("cannot give up capabilities"), "{warned}");
    }

    #[test]
    fn no_more_is_kept_than_is_held_and_later_needed() {
        use Capability::{
            CAP_BPF, CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_PERFMON, CAP_SYS_PTRACE,
        };
        let set = |all: &[Capability]| all.iter().copied().collect::<CapsHashSet>();
        let root = caps::all();
        assert_eq!(
            kept(&root, false),
            set(&[CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH])
        );
        assert!(!kept(&root, true).contains(&CAP_BPF));
        assert_eq!(
            kept(&set(&[CAP_BPF, CAP_PERFMON, CAP_CHOWN]), true),
            set(&[CAP_PERFMON])
        );
        assert_eq!(
            kept(&set(&[CAP_DAC_OVERRIDE, CAP_SYS_PTRACE]), false),
            set(&[CAP_DAC_OVERRIDE, CAP_SYS_PTRACE])
        );
    }
}
