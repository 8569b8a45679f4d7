//! What a capture attaches to the kernel and holds there: as it should be (the README's
//! section "What it attaches and holds" names the same), and as the kernel tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{processes, tool};

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// At a tracepoint of the kernel.
    Tracepoint(&'static str),
    /// At a function of nginx's binary.
    Uprobe(&'static str),
    /// Nowhere: it is run on request, by reading from it.
    Iterator(&'static str),
}

impl Hook {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tracepoint(name) | Self::Uprobe(name) | Self::Iterator(name) => name,
        }
    }
}

/// A program of the tool.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name; where the kernel needs another variant, that one's after it.
    pub names: &'static [&'static str],
    /// Where it is attached.
    pub hooks: &'static [Hook],
}

const fn at(names: &'static [&'static str], hooks: &'static [Hook]) -> Program {
    Program { names, hooks }
}

/// nginx's steps of TLS.
const TLS: &[Hook] = &[
    Hook::Uprobe("ngx_ssl_handshake"),
    Hook::Uprobe("ngx_ssl_shutdown"),
];

/// All that a capture of one nginx attaches.
pub const PROGRAMS: [Program; 21] = [
    at(
        &["whoclosed_state"],
        &[Hook::Tracepoint("inet_sock_set_state")],
    ),
    at(
        &["whoclosed_twin"],
        &[Hook::Tracepoint("inet_sock_set_state")],
    ),
    at(
        &["whoclosed_third"],
        &[Hook::Tracepoint("inet_sock_set_state")],
    ),
    at(&["whoclosed_gone"], &[Hook::Tracepoint("tcp_destroy_sock")]),
    at(&["whoclosed_send"], &[Hook::Tracepoint("sock_send_length")]),
    at(&["whoclosed_recv"], &[Hook::Tracepoint("sock_recv_length")]),
    at(
        &["whoclosed_rst_i"],
        &[Hook::Tracepoint("tcp_receive_reset")],
    ),
    // The second on kernels before 6.10, whose tracepoint gives no reason.
    at(
        &["whoclosed_rst_r", "whoclosed_rst_o"],
        &[Hook::Tracepoint("tcp_send_reset")],
    ),
    at(
        &["whoclosed_again"],
        &[Hook::Tracepoint("tcp_retransmit_skb")],
    ),
    at(
        &["whoclosed_exit"],
        &[Hook::Tracepoint("sched_process_exit")],
    ),
    at(&["whoclosed_line"], &[Hook::Uprobe("ngx_log_error_core")]),
    at(&["whoclosed_tls"], TLS),
    at(&["whoclosed_tls_r"], TLS),
    at(&["whoclosed_open"], &[Hook::Iterator("bpf_sk_storage_map")]),
    // Ready for when the kernel lets the first one miss a run.
    at(&["whoclosed_4th"], &[]),
    at(&["whoclosed_sendt"], &[]),
    at(&["whoclosed_recvt"], &[]),
    at(&["whoclosed_gonet"], &[]),
    at(&["whoclosed_rst_it"], &[]),
    at(&["whoclosed_exitt"], &[]),
    // Ready for an instance whose log is no file.
    at(&["whoclosed_write"], &[]),
];

/// The last of them, where an error log is no file.
pub const FOR_LOGS_WITHOUT_FILES: Program =
    at(&["whoclosed_write"], &[Hook::Tracepoint("sys_enter")]);

/// What a process holds of BPF, by ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Programs.
    pub programs: BTreeSet<u64>,
    /// Maps.
    pub maps: BTreeSet<u64>,
    /// Links and what they attach.
    pub links: BTreeMap<u64, Link>,
}

/// A program attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// `raw_tracepoint` or `tracing`; of a uprobe `uprobe_multi` or `uretprobe_multi` (the
    /// latter only lately), or `perf`.
    pub kind: String,
    /// The program.
    pub program: u64,
    /// The tracepoint, if it is one's.
    pub tracepoint: Option<String>,
}

impl Link {
    /// Is it at a function of a binary's? Of which, the kernel tells only lately.
    #[must_use]
    pub fn is_uprobe(&self) -> bool {
        ["uprobe_multi", "uretprobe_multi", "perf"].contains(&self.kind.as_str())
    }
}

/// What a process holds, as its descriptors tell (`/proc/PID/fdinfo`,
/// kernel/bpf/syscall.c `bpf_link_show_fdinfo` and its siblings). Other captures on
/// this host hold others.
///
/// # Errors
/// If there is no such process, or a descriptor tells something else.
pub fn held_by(pid: u32) -> Result<Held> {
    let mut held = Held::default();
    let folder = format!("/proc/{pid}/fdinfo");
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))? {
        // One that was closed since it was listed holds nothing.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let facts: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name, value.trim()))
            .collect();
        let id = |name| -> Result<Option<u64>> {
            let value = facts.get(name).map(|value| value.parse());
            value
                .transpose()
                .with_context(|| format!("no number in {text}"))
        };
        if let Some(link) = id("link_id")? {
            let link_of = Link {
                kind: (*facts.get("link_type").context("a link of no type")?).to_owned(),
                program: id("prog_id")?.context("a link of no program")?,
                tracepoint: facts.get("tp_name").map(|&name| name.to_owned()),
            };
            held.programs.insert(link_of.program);
            held.links.insert(link, link_of);
        } else {
            held.programs.extend(id("prog_id")?);
            held.maps.extend(id("map_id")?);
        }
    }
    Ok(held)
}

/// The keys of a map that a process holds, by its name.
///
/// # Errors
/// If there is no bpftool, or it fails, or the process holds no such map.
pub fn keys_of(held: &Held, map: &str) -> Result<Vec<u64>> {
    let maps = listed("map")?;
    let is_it = |id: &&u64| maps.get(id).is_some_and(|found| found["name"] == map);
    let id = held.maps.iter().find(is_it);
    let id = id.with_context(|| format!("no map {map}"))?.to_string();
    let bpftool = processes::which("bpftool").context("no bpftool: run `cargo xtask setup`")?;
    let dump = tool::finish(Command::new(bpftool).args(["-j", "map", "dump", "id", &id]))?;
    let entries: Vec<Value> = serde_json::from_slice(&dump.succeeded()?.stdout)?;
    let byte = |value: &Value| {
        let digits = value.as_str()?.strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok()
    };
    let key = |entry: &Value| {
        let bytes = entry["key"].as_array()?.iter().map(byte);
        let bytes: Option<Vec<u64>> = bytes.collect();
        Some(bytes?.iter().rev().fold(0, |key, byte| key << 8 | byte))
    };
    let keys = entries.iter().map(key).collect::<Option<_>>();
    keys.with_context(|| format!("map {map} has other keys than numbers: {entries:?}"))
}

/// What the kernel has of one kind (`prog`, `map`, `link`), by id, as bpftool lists it.
/// Where an object is pinned stands in its `pinned`.
///
/// # Errors
/// If there is no bpftool, or it fails.
pub fn listed(kind: &str) -> Result<BTreeMap<u64, Value>> {
    let bpftool = processes::which("bpftool").context("no bpftool: run `cargo xtask setup`")?;
    // `-f` looks for pins.
    let arguments = ["-j", "-f", kind, "show"];
    let listed = tool::finish(Command::new(bpftool).args(arguments))?.succeeded()?;
    let objects: Vec<Value> = serde_json::from_slice(&listed.stdout)
        .with_context(|| format!("bpftool {kind} show printed no list: {}", listed.text()))?;
    Ok(objects
        .into_iter()
        .filter_map(|object| Some((object["id"].as_u64()?, object)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_names_what_is_attached() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let readme = fs::read_to_string(readme).unwrap_or_default();
        // The section's absence is for whoever writes the README to notice.
        let Some((_, section)) = readme.split_once("## What it attaches and holds") else {
            return;
        };
        let section = section.split("\n## ").next().unwrap_or_default();
        for program in PROGRAMS.iter().chain([&FOR_LOGS_WITHOUT_FILES]) {
            let hooks = program.hooks.iter().map(Hook::name);
            for name in program.names.iter().copied().chain(hooks) {
                let whole = section.contains(name)
                    || name
                        .strip_prefix("whoclosed")
                        .is_some_and(|rest| section.contains(rest));
                assert!(whole, "{name} is not in the README");
            }
        }
    }

    #[test]
    fn a_process_without_bpf_holds_none() {
        assert_eq!(held_by(std::process::id()).unwrap(), Held::default());
    }
}
