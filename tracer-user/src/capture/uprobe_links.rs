//! Uprobes as links of their own kind (BPF_TRACE_UPROBE_MULTI, Linux 6.6 and later).
//! perf_event_open() wants a capability for each of them: CAP_PERFMON, or CAP_SYS_ADMIN
//! from Linux 6.16 on and in stable kernels since mid-2025 (`perf_uprobe_event_init`). A
//! link wants none beyond those with which its program is loaded, CAP_BPF and CAP_PERFMON,
//! so a capture needs neither once its programs are. aya has no such attach type yet, so
//! the programs are taken out of the object and loaded here, on the maps that aya made.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya_obj::generated::{BPF_F_UPROBE_MULTI_RETURN, bpf_attach_type, bpf_cmd, bpf_prog_type};
use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, ReadCache};

use super::bpf_calls::{self, Program, address, bpf};

/// `union bpf_attr`, member `link_create` with `uprobe_multi`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    ref_ctr_offsets: u64,
    cookies: u64,
    count: u32,
    uprobe_flags: u32,
    pid: u32,
    reserved: u32,
}

/// Programs that are loaded, and their links. Dropping them detaches everything.
#[derive(Debug, Default)]
pub(super) struct UprobeLinks {
    programs: BTreeMap<String, OwnedFd>,
    links: Vec<OwnedFd>,
}

impl UprobeLinks {
    /// Loads these programs of an object whose maps `ebpf` has.
    ///
    /// # Errors
    /// If a map of theirs was taken away, or the kernel refuses one, or has no such links.
    pub(super) fn load(bytes: &[u8], ebpf: &Ebpf, names: &[&str]) -> Result<Self> {
        let mut object = aya_obj::Object::parse(bytes).context("cannot read the programs")?;
        let sections = object.functions.keys().map(|(section, _)| *section);
        let sections = sections.collect();
        let programs = std::mem::take(&mut object.programs);
        object.functions.retain(|_, function| {
            names.contains(&function.name.as_str()) || !programs.contains_key(&function.name)
        });
        object.programs = programs;
        object
            .programs
            .retain(|name, _| names.contains(&name.as_str()));
        let maps: Vec<_> = object
            .maps
            .iter()
            .filter_map(|(name, map)| {
                let data = data(ebpf.map(name)?)?;
                Some((name.clone(), data.fd().as_fd().as_raw_fd(), map.clone()))
            })
            .collect();
        object.relocate_maps(
            maps.iter().map(|(name, fd, map)| (name.as_str(), *fd, map)),
            &sections,
        )?;
        object.relocate_calls(&sections)?;
        let mut this = Self::default();
        for (name, program) in &object.programs {
            let function = object
                .functions
                .get(&program.function_key())
                .with_context(|| format!("there is no program {name}"))?;
            let loaded = bpf_calls::load(
                &Program {
                    name,
                    kind: bpf_prog_type::BPF_PROG_TYPE_KPROBE,
                    attach_type: Some(bpf_attach_type::BPF_TRACE_UPROBE_MULTI),
                    license: &program.license,
                    instructions: &function.instructions,
                },
                &mut [],
            )
            .with_context(|| format!("cannot load {name}"))?;
            this.programs.insert(name.clone(), loaded);
        }
        if let Some((_, program)) = this.programs().next() {
            supported(program)?;
        }
        Ok(this)
    }

    /// Attaches a program to a function of a binary, in all processes that run it.
    ///
    /// # Errors
    /// If the binary has no such function, or the kernel refuses.
    pub(super) fn attach(
        &mut self,
        program: &str,
        at_return: bool,
        function: &str,
        binary: &Path,
    ) -> Result<()> {
        let loaded = self.programs.get(program).context("no such program")?;
        let offset = offset_of(function, binary)?;
        let link = link(loaded.as_fd(), at_return, offset, binary)
            .with_context(|| format!("cannot link {program} to {function}"))?;
        self.links.push(link);
        Ok(())
    }

    /// The programs by name.
    pub(super) fn programs(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.programs
            .iter()
            .map(|(name, program)| (name.as_str(), program.as_fd()))
    }
}

/// In all processes that run the binary.
fn link(program: BorrowedFd<'_>, at_return: bool, offset: u64, binary: &Path) -> Result<OwnedFd> {
    let path = CString::new(binary.as_os_str().as_bytes())?;
    let attributes = LinkCreate {
        prog_fd: u32::try_from(program.as_raw_fd())?,
        target_fd: 0,
        attach_type: bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32,
        flags: 0,
        path: address(path.as_ptr()),
        offsets: address(&raw const offset),
        ref_ctr_offsets: 0,
        cookies: 0,
        count: 1,
        uprobe_flags: if at_return {
            BPF_F_UPROBE_MULTI_RETURN
        } else {
            0
        },
        pid: 0,
        reserved: 0,
    };
    bpf(bpf_cmd::BPF_LINK_CREATE, &attributes)
}

/// Asks for a link to what is no file: a kernel that has such links says so
/// (`bpf_uprobe_multi_link_attach`), another does not get as far.
fn supported(program: BorrowedFd<'_>) -> Result<()> {
    let Err(error) = link(program, false, 0, Path::new("/")) else {
        return Ok(());
    };
    let number = |error: &std::io::Error| error.raw_os_error();
    match error.downcast_ref::<std::io::Error>().and_then(number) {
        Some(libc::EBADF) => Ok(()),
        Some(libc::EINVAL | libc::E2BIG) => bail!("this kernel has no links of uprobes"),
        _ => Err(error.context("links of uprobes are refused")),
    }
}

/// The descriptor of a map, of the kinds that uprobes use.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::Queue(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data) => Some(data),
        _ => None,
    }
}

/// Where in a binary's file a function begins.
fn offset_of(function: &str, binary: &Path) -> Result<u64> {
    let named = || format!("cannot find {function} in {}", binary.display());
    let mut file = File::open(binary).with_context(named)?;
    let cache = ReadCache::new(&mut file);
    let elf = ElfFile64::<Endianness, _>::parse(&cache).with_context(named)?;
    let symbol = elf
        .dynamic_symbols()
        .chain(elf.symbols())
        .find(|symbol| symbol.is_definition() && symbol.name() == Ok(function))
        .with_context(named)?;
    let section = symbol.section_index().with_context(named)?;
    let section = elf.section_by_index(section).with_context(named)?;
    let (begin, _) = section.file_range().with_context(named)?;
    symbol
        .address()
        .checked_sub(section.address())
        .and_then(|inside| inside.checked_add(begin))
        .with_context(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_a_binary_has_not_is_named() {
        let own = Path::new("/proc/self/exe");
        assert!(offset_of("main", own).unwrap() > 0);
        let error = offset_of("no_such_function", own).unwrap_err();
        assert!(error.to_string().contains("no_such_function"), "{error:#}");
    }
}
