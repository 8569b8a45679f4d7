//! Which programs see nginx's sends and receives: the first way of [`WAYS`] that this host
//! lets all of its programs go. Where none does, the capture goes on without.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::programs::{BtfTracePoint, FExit, Program};
use aya::{Btf, Ebpf};

use super::btf::{KERNEL_BTF, Types};
use super::hooks::{By, Call, RECEIVES, SENDS, WAYS, WITHOUT_CALLS, Way};
use super::programs::why;
use super::twins::Twins;
use crate::trace::record::Hook;

/// Hooks that a capture does without although the host may have them, so that what takes
/// their place can be tested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Withheld {
    /// The tracepoints of sends and receives.
    pub io_tracepoints: bool,
    /// The ends of the kernel's functions.
    pub fentry: bool,
    /// Of a hundred sends and receives so many, as if the kernel had skipped the programs.
    pub calls: u32,
    /// Links of uprobes.
    pub uprobe_links: bool,
    /// A task's registers.
    pub task_registers: bool,
}

impl Withheld {
    const fn has(self, by: By) -> bool {
        match by {
            By::Tracepoints => self.io_tracepoints,
            By::Functions => self.fentry,
        }
    }
}

/// Attaches the programs of one way; says what became of both hooks.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    twins: &mut Twins,
    btf: &Btf,
    withheld: Withheld,
) -> [Hook; 2] {
    let mut refusals = Vec::new();
    for way in &WAYS {
        let attached = if withheld.has(way.by) {
            Err(anyhow!("withheld on request"))
        } else {
            attach_all(ebpf, twins, btf, way)
        };
        match attached {
            Ok(programs) => {
                return [SENDS, RECEIVES].map(|hook| Hook {
                    name: hook.to_owned(),
                    attached: true,
                    by: instead(&programs, hook, way.by),
                    reason: refusals.first().cloned(),
                });
            }
            Err(error) => {
                detach_all(ebpf, twins, way);
                refusals.push(format!("{}: {error:#}", kind(way.by)));
            }
        }
    }
    let why = format!("{}; without it {WITHOUT_CALLS}", refusals.join("; "));
    [(SENDS, why), (RECEIVES, format!("like {SENDS}"))].map(|(hook, reason)| Hook {
        name: hook.to_owned(),
        attached: false,
        by: None,
        reason: Some(reason),
    })
}

const fn kind(by: By) -> &'static str {
    match by {
        By::Tracepoints => "tracepoint",
        By::Functions => "fentry",
    }
}

/// What was attached instead of the tracepoint.
fn instead(programs: &[Call], hook: &str, by: By) -> Option<String> {
    let functions: Vec<&str> = programs
        .iter()
        .filter(|program| program.hook == hook)
        .map(|program| program.target)
        .collect();
    (by == By::Functions).then(|| format!("fexit {}", functions.join(", ")))
}

fn attach_all(ebpf: &mut Ebpf, twins: &mut Twins, btf: &Btf, way: &Way) -> Result<Vec<Call>> {
    let blob = std::fs::read(Path::new(KERNEL_BTF))
        .with_context(|| format!("cannot read {KERNEL_BTF}"))?;
    let types = Types::parse(&blob)?;
    let programs = match way.by {
        By::Tracepoints => way.programs.to_vec(),
        By::Functions => fitting(way.programs, &types)?,
    };
    for program in &programs {
        types.suits(program.program)?;
        attach_one(ebpf, btf, way.by, program)
            .with_context(|| format!("cannot attach to {}", program.target))?;
        twins.load(ebpf, btf, program.program, program.target);
    }
    Ok(programs)
}

/// The programs that fit the functions that this kernel has.
pub(super) fn fitting(programs: &[Call], types: &Types<'_>) -> Result<Vec<Call>> {
    let mut found: Vec<Call> = Vec::new();
    let mut targets: Vec<&str> = programs.iter().map(|program| program.target).collect();
    targets.dedup();
    for target in targets {
        let Some(parameters) = types.parameters(target)? else {
            continue;
        };
        let fits = |program: &&Call| {
            program.target == target
                && program.parameters.len() == parameters.len()
                && program
                    .parameters
                    .iter()
                    .zip(&parameters)
                    .all(|(wanted, name)| wanted.is_empty() || wanted == name)
        };
        let Some(program) = programs.iter().find(fits) else {
            bail!(
                "the parameters of this kernel's {target} are not known to this version: {}",
                parameters.join(", ")
            );
        };
        types.check_function(target, program.takes)?;
        found.push(*program);
    }
    for hook in [SENDS, RECEIVES] {
        ensure!(
            found.iter().any(|program| program.hook == hook),
            "this kernel has no function that whoclosed knows in the place of {hook}"
        );
    }
    Ok(found)
}

fn attach_one(ebpf: &mut Ebpf, btf: &Btf, by: By, program: &Call) -> Result<()> {
    let loaded = ebpf
        .program_mut(program.program)
        .context("no such program")?;
    match by {
        By::Tracepoints => {
            let loaded: &mut BtfTracePoint = loaded.try_into()?;
            loaded
                .load(program.target, btf)
                .and_then(|()| loaded.attach())
                .map_err(|error| anyhow!(why(&error)))?;
        }
        By::Functions => {
            let loaded: &mut FExit = loaded.try_into()?;
            loaded
                .load(program.target, btf)
                .and_then(|()| loaded.attach())
                .map_err(|error| anyhow!(why(&error)))?;
        }
    }
    Ok(())
}

/// Half of a way would tell of requests without answers.
fn detach_all(ebpf: &mut Ebpf, twins: &mut Twins, way: &Way) {
    for program in way.programs {
        let twin = twins.unload(ebpf, program.program);
        debug_assert!(twin.is_ok(), "{twin:?}");
        let unloaded = match ebpf.program_mut(program.program) {
            Some(Program::BtfTracePoint(loaded)) if loaded.fd().is_ok() => loaded.unload(),
            Some(Program::FExit(loaded)) if loaded.fd().is_ok() => loaded.unload(),
            _ => Ok(()),
        };
        // Unloading closes descriptors of our own, which cannot be refused.
        debug_assert!(unloaded.is_ok(), "{unloaded:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernels_functions_fit_or_are_named() {
        let Ok(blob) = std::fs::read(KERNEL_BTF) else {
            return;
        };
        let types = Types::parse(&blob).unwrap();
        let [_, functions] = &WAYS;
        let found = fitting(functions.programs, &types).unwrap();
        assert!(found.iter().any(|call| call.target == "tcp_sendmsg"));
        assert!(found.iter().any(|call| call.target == "tcp_recvmsg"));
    }
}
