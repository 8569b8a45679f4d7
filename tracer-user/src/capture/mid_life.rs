//! Takes over the connections that are open when a capture begins: runs the kernel
//! programs that look at every open file of the host once. The programs write into the
//! sockets' storage; nothing is read here.

use std::io::{ErrorKind, Read as _};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::programs::Iter;
use aya::{Btf, Ebpf};

use super::programs::why;
use crate::trace::record::Role;

/// nginx's side: the programs, in the order in which each needs what the ones before it
/// noted.
const OF_NGINX: [&str; 3] = ["whoclosed_ports", "whoclosed_taken", "whoclosed_held"];
/// The accepting side.
const OF_BACKEND: [&str; 1] = ["whoclosed_b_tak"];

/// Maps that no other program uses: they go with these.
const MAPS: [&str; 2] = ["LISTENED", "DRAFT"];

/// The kernel looks at a million files in one go at most (`bpf_seq_read`) and then asks
/// for another read.
const MOST_READS: usize = 64;

/// Makes records for nginx's open connections and for their other ends on this host, or for
/// those that were accepted at the ports asked for.
///
/// # Errors
/// If the kernel refuses one of the programs or cannot run it to its end.
pub(super) fn take_over(ebpf: &mut Ebpf, role: Role) -> Result<()> {
    let btf = Btf::from_sys_fs().context("cannot read the kernel's type information")?;
    let programs: &[&str] = match role {
        Role::Nginx => &OF_NGINX,
        Role::Backend => &OF_BACKEND,
    };
    for name in programs {
        let program = ebpf.program_mut(name).context("no such program")?;
        let program: &mut Iter = program.try_into()?;
        program
            .load("task_file", &btf)
            .map_err(|error| anyhow!(why(&error)))?;
        run(program).with_context(|| format!("cannot run {name} over the open files"))?;
        program.unload()?;
    }
    for name in MAPS {
        drop(ebpf.take_map(name));
    }
    Ok(())
}

fn run(program: &mut Iter) -> Result<()> {
    let id = program.attach()?;
    let mut file = program.take_link(id)?.into_file()?;
    let mut nothing = [0; 64];
    for _ in 0..MOST_READS {
        match file.read(&mut nothing) {
            Ok(0) => return Ok(()),
            Ok(_) => bail!("the program wrote something"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("this host has too many open files")
}
