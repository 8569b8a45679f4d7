//! Runs of programs that the kernel skipped, because the program was already running on
//! that processor.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use aya::Ebpf;

use super::hooks::TWINS;
use super::uprobe_links::UprobeLinks;

/// How many of each program's runs cost something, by its name.
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
    that_count(missed)
}

/// A change of state is lost if both of its programs missed it, so at most as many are
/// as the one that missed fewer did.
fn that_count(mut missed: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    for (program, twin) in TWINS {
        if let Some(by_twin) = missed.remove(twin)
            && let Some(by_program) = missed.get_mut(program)
        {
            *by_program = by_twin.min(*by_program);
        }
    }
    missed
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

#[cfg(test)]
mod tests {
    use super::super::hooks::{STATE, STATE_TWIN};
    use super::*;

    fn counted(missed: &[(&str, u64)]) -> BTreeMap<String, u64> {
        that_count(
            missed
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
        )
    }

    #[test]
    fn a_change_of_state_is_lost_where_both_programs_missed_it() {
        assert_eq!(counted(&[(STATE, 7), (STATE_TWIN, 0)])[STATE], 0);
        assert_eq!(counted(&[(STATE, 2), (STATE_TWIN, 5)])[STATE], 2);
        let others = counted(&[(STATE, 7), (STATE_TWIN, 3), ("whoclosed_recv", 4)]);
        assert_eq!(others[STATE], 3);
        assert_eq!(others["whoclosed_recv"], 4);
        assert_eq!(others.len(), 2);
    }

    #[test]
    fn without_the_second_program_what_the_first_missed_is_lost() {
        assert_eq!(counted(&[(STATE, 7)])[STATE], 7);
    }
}
