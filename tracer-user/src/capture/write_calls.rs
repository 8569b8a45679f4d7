//! The program on the calls with which nginx writes its error logs, attached only where
//! a log is no file ([`super::written`]): every system call of the host pays for it. It is
//! loaded at the beginning in any case, for an instance with such a log may come later.

use std::collections::BTreeSet;

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

/// The program, and what it looks for.
#[derive(Debug)]
pub(super) struct WriteCalls {
    inodes: BTreeSet<u64>,
    attached: bool,
    /// Why the kernel did not take it.
    refused: Option<String>,
}

impl WriteCalls {
    /// Loads it, and attaches it for the logs of these instances if one needs it.
    ///
    /// # Errors
    /// If the kernel refuses, and no log is a file either.
    pub(super) fn start(host: &Host, programs: &mut Programs) -> Result<Self> {
        let unsuited = programs.unsuited(PROGRAM).map(|reason| anyhow!("{reason}"));
        let refused = unsuited.or_else(|| programs.with(load).err());
        let mut calls = Self {
            inodes: BTreeSet::new(),
            attached: false,
            refused: refused.map(|error| format!("{error:#}")),
        };
        let names = host.written.names().join(", ");
        if names.is_empty() {
            return Ok(calls);
        }
        let reason = calls.want(host, programs).err();
        let reason = reason.map(|error| format!("{error:#}"));
        if let Some(reason) = &reason
            && !host.follows_files()
        {
            bail!(
                "cannot see what is written to {names}: {reason}; and no error log is a file: \
                 give one with --error-log PATH"
            );
        }
        programs.hooks.push(Hook {
            name: format!("{TRACEPOINT} for {names}"),
            attached: reason.is_none(),
            by: None,
            reason: reason.map(|reason| {
                format!("{reason}; without it the lines of these logs cannot be seen")
            }),
        });
        Ok(calls)
    }

    /// Looks for the logs of instances that have come since, too.
    pub(super) fn follow(&mut self, host: &mut Host, programs: &mut Programs) {
        if let Err(error) = self.want(host, programs) {
            let names = host.written.names().join(", ");
            host.warn(format!("cannot see what is written to {names}: {error:#}"));
        }
    }

    fn want(&mut self, host: &Host, programs: &mut Programs) -> Result<()> {
        let inodes = host.written.inodes();
        let new: Vec<u64> = inodes
            .into_iter()
            .filter(|inode| !self.inodes.contains(inode))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        if let Some(refused) = &self.refused {
            bail!("{refused}");
        }
        programs.with(|ebpf| look_for(ebpf, &new))?;
        if !self.attached {
            programs.with(attach)?;
            self.attached = true;
        }
        self.inodes.extend(new);
        Ok(())
    }
}

fn look_for(ebpf: &mut Ebpf, inodes: &[u64]) -> Result<()> {
    let logs = ebpf.map_mut(LOGS).context("no such map")?;
    let mut logs: HashMap<&mut MapData, u64, u32> = HashMap::try_from(logs)?;
    for inode in inodes {
        logs.insert(inode, 1, 0)
            .context("too many error logs that are no files")?;
    }
    Ok(())
}

fn program(ebpf: &mut Ebpf) -> Result<&mut BtfTracePoint> {
    let program = ebpf.program_mut(PROGRAM).context("no such program")?;
    Ok(program.try_into()?)
}

fn load(ebpf: &mut Ebpf) -> Result<()> {
    let btf = Btf::from_sys_fs().context("cannot read the kernel's type information")?;
    let loaded = program(ebpf)?.load(TRACEPOINT, &btf);
    loaded.map_err(|error| anyhow!(why(&error)))
}

fn attach(ebpf: &mut Ebpf) -> Result<()> {
    let attached = program(ebpf)?.attach();
    attached.map_err(|error| anyhow!(why(&error)))?;
    Ok(())
}
