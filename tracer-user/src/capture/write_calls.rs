//! The program on the calls with which nginx writes its error logs, attached only where
//! a log is no file ([`super::written`]): every system call of the host pays for it.

use anyhow::{Context as _, Result, anyhow, bail};
use aya::maps::{HashMap, MapData};
use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf};

use super::host::Host;
use super::programs::{Programs, why};
use crate::trace::record::Hook;

const PROGRAM: &str = "whoclosed_write";
const TRACEPOINT: &str = "sys_enter";
const LOGS: &str = "WRITTEN_LOGS";
const BUFFER: &str = "BUFFER";

/// Attaches it for the logs of these instances, if one needs it.
///
/// # Errors
/// If the kernel refuses, and no log is a file either.
pub(super) fn attach(host: &Host, programs: &mut Programs) -> Result<()> {
    let inodes = host.written.inodes();
    if inodes.is_empty() {
        programs.with(|ebpf| {
            for map in [LOGS, BUFFER] {
                drop(ebpf.take_map(map));
            }
        });
        return Ok(());
    }
    let names = host.written.names().join(", ");
    let reason = programs.with(|ebpf| load(ebpf, &inodes)).err();
    let reason = reason.map(|error| format!("{error:#}"));
    if let Some(reason) = &reason
        && !host.follows_files()
    {
        bail!(
            "cannot see what is written to {names}: {reason}; and no error log is a file: give one \
             with --error-log PATH"
        );
    }
    programs.hooks.push(Hook {
        name: format!("{TRACEPOINT} for {names}"),
        attached: reason.is_none(),
        by: None,
        reason: reason
            .map(|reason| format!("{reason}; without it the lines of these logs cannot be seen")),
    });
    Ok(())
}

fn load(ebpf: &mut Ebpf, inodes: &[u64]) -> Result<()> {
    let logs = ebpf.map_mut(LOGS).context("no such map")?;
    let mut logs: HashMap<&mut MapData, u64, u32> = HashMap::try_from(logs)?;
    for inode in inodes {
        logs.insert(inode, 1, 0)
            .context("too many error logs that are no files")?;
    }
    let btf = Btf::from_sys_fs().context("cannot read the kernel's type information")?;
    let program = ebpf.program_mut(PROGRAM).context("no such program")?;
    let program: &mut BtfTracePoint = program.try_into()?;
    program
        .load(TRACEPOINT, &btf)
        .and_then(|()| program.attach())
        .map_err(|error| anyhow!(why(&error)))?;
    Ok(())
}
