//! Reads the connections that are still open through a BPF iterator over the socket
//! storage. aya has no way to bind an iterator to a map yet, so that is done here.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use anyhow::{Context as _, Result, bail};
use aya::maps::Map;
use aya::programs::ProgramFd;
use aya_obj::generated::{bpf_attach_type, bpf_cmd};

use super::bpf_calls::{address, bpf};

/// `union bpf_attr`, member `link_create`, as far as iterators use it.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    reserved: u32,
}

/// `union bpf_iter_link_info`, member `map`; the union's size.
#[repr(C)]
struct IteratorTarget {
    map_fd: u32,
    reserved: [u32; 3],
}

/// `union bpf_attr`, member `iter_create`.
#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// The descriptor of a socket storage map.
///
/// # Errors
/// If the map is of another kind.
pub(super) fn map_fd(map: &Map) -> Result<BorrowedFd<'_>> {
    match map {
        Map::SkStorage(data) => Ok(data.fd().as_fd()),
        _ => bail!("the connection map is no socket storage"),
    }
}

/// Reads all values of the map.
///
/// # Errors
/// If the kernel refuses the iterator.
pub(super) fn read<const SIZE: usize>(
    program: &ProgramFd,
    map: BorrowedFd<'_>,
) -> Result<Vec<[u8; SIZE]>> {
    let number = |fd: i32| u32::try_from(fd);
    let target = IteratorTarget {
        map_fd: number(map.as_raw_fd())?,
        reserved: [0; 3],
    };
    let link = bpf(
        bpf_cmd::BPF_LINK_CREATE,
        &LinkCreate {
            prog_fd: number(program.as_fd().as_raw_fd())?,
            target_fd: 0,
            attach_type: bpf_attach_type::BPF_TRACE_ITER as u32,
            flags: 0,
            iter_info: address(&raw const target),
            iter_info_len: u32::try_from(size_of::<IteratorTarget>())?,
            reserved: 0,
        },
    )
    .context("cannot bind the iterator to the connection map")?;
    let iterator = bpf(
        bpf_cmd::BPF_ITER_CREATE,
        &IterCreate {
            link_fd: number(link.as_raw_fd())?,
            flags: 0,
        },
    )
    .context("cannot start the iterator over open connections")?;
    let mut bytes = Vec::new();
    File::from(iterator)
        .read_to_end(&mut bytes)
        .context("cannot read open connections")?;
    let (values, _rest) = bytes.as_chunks::<SIZE>();
    Ok(values.to_vec())
}
