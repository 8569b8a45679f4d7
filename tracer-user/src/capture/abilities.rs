//! What the kernel lets programs do, found by loading tiny ones that do nothing else and
//! are attached to nothing.

use anyhow::{Context as _, Result};
use aya_obj::generated::{bpf_insn, bpf_prog_type};

use super::bpf_calls::{self, Program};
use super::programs::telling_line;
use crate::trace::record::Hook;

/// What a capture loses where no program may ask for a task's registers.
const WITHOUT_REGISTERS: &str = "where a process closes a connection and then starts another \
     program, which closes its copy last, that child is named as the one that closed";

/// One instruction of a program's.
fn instruction(code: u8, to: u8, from: u8, immediate: i32) -> bpf_insn {
    bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(to, from),
        off: 0,
        imm: immediate,
    }
}

/// Tries whether a program may read the kernel's memory, without the kernel's description
/// of its types.
///
/// # Errors
/// If not: the kernel's own words.
pub(super) fn may_read_kernel() -> Result<()> {
    load(
        "reading",
        &[
            instruction(0xbf, 1, 10, 0),  // r1 = r10
            instruction(0x07, 1, 0, -8),  // r1 += -8
            instruction(0xb7, 2, 0, 8),   // r2 = 8
            instruction(0xb7, 3, 0, 0),   // r3 = 0
            instruction(0x85, 0, 0, 113), // call bpf_probe_read_kernel
            instruction(0xb7, 0, 0, 0),   // r0 = 0
            instruction(0x95, 0, 0, 0),   // exit
        ],
    )
    .context("the kernel refuses a program that reads its memory")
}

/// Tries whether a program may ask for the current task's registers.
///
/// # Errors
/// If not: the kernel's own words.
fn may_ask_for_registers() -> Result<()> {
    load(
        "registers",
        &[
            instruction(0x85, 0, 0, 158), // call bpf_get_current_task_btf
            instruction(0xbf, 1, 0, 0),   // r1 = r0
            instruction(0x85, 0, 0, 175), // call bpf_task_pt_regs
            instruction(0xb7, 0, 0, 0),   // r0 = 0
            instruction(0x95, 0, 0, 0),   // exit
        ],
    )
}

/// The same, as what became of a hook; none if it may, which most kernels allow.
pub(super) fn registers(is_withheld: bool) -> Option<Hook> {
    let reason = if is_withheld {
        "withheld on request".to_owned()
    } else {
        let refused = may_ask_for_registers().err()?;
        format!("the kernel refuses a program that asks for a task's registers: {refused:#}")
    };
    Some(Hook {
        name: "bpf_task_pt_regs".to_owned(),
        attached: false,
        by: None,
        reason: Some(format!("{reason}; without it {WITHOUT_REGISTERS}")),
    })
}

fn load(name: &str, instructions: &[bpf_insn]) -> Result<()> {
    let mut log = vec![0u8; 1 << 16];
    let outcome = bpf_calls::load(
        &Program {
            name,
            kind: bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT,
            attach_type: None,
            license: c"GPL",
            instructions,
        },
        &mut log,
    );
    let said = String::from_utf8_lossy(&log);
    let said = telling_line(said.trim_end_matches('\0')).to_owned();
    outcome.map(drop).context(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_do_it_or_the_kernel_says_why_not() {
        for tried in [may_read_kernel(), may_ask_for_registers()] {
            if let Err(refused) = tried {
                let said = format!("{refused:#}");
                assert!(said.contains("(os error"), "{said}");
            }
        }
    }

    #[test]
    fn what_a_kernel_does_not_hand_out_is_told_as_a_hook_that_is_missing() {
        let hook = registers(true).unwrap();
        assert!(!hook.attached && hook.by.is_none());
        let reason = hook.reason.unwrap();
        assert!(
            reason.starts_with("withheld on request; without it "),
            "{reason}"
        );
    }
}
