//! Runs of programs that the kernel skipped, because the program was already running on
//! that processor.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use aya::Ebpf;

use super::uprobe_links::UprobeLinks;

/// How many of each program's runs were skipped, by its name.
pub(super) fn by_program(ebpf: &Ebpf, links: Option<&UprobeLinks>) -> BTreeMap<String, u64> {
    let missed = ebpf.programs().filter_map(|(name, program)| {
        let missed = missed_runs(program.fd().ok()?.as_fd())?;
        Some((name.to_owned(), missed))
    });
    let mut missed: BTreeMap<String, u64> = missed.collect();
    for (name, program) in links.iter().flat_map(|links| links.programs()) {
        if let Some(more) = missed_runs(program) {
            *missed.entry(name.to_owned()).or_default() += more;
        }
    }
    missed
}

/// The same of one program.
pub(super) fn of(ebpf: &Ebpf, program: &str) -> Option<u64> {
    missed_runs(ebpf.program(program)?.fd().ok()?.as_fd())
}

/// `recursion_misses` of a program (kernel/bpf/syscall.c; 5.12 and later).
fn missed_runs(program: BorrowedFd<'_>) -> Option<u64> {
    let fd = program.as_raw_fd();
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))?;
    value.trim().parse().ok()
}
