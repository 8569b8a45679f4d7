//! Where the running kernel keeps the struct fields that the programs read, and which
//! arguments its functions and tracepoints have: a one-pass reader of BTF, the kernel's
//! own description of its types (Documentation/bpf/btf.rst). Only what is needed for that.
//! Whatever is not as the programs need it is an error that names it: a capture that
//! does not begin is better than one that reads the wrong bytes.

mod arguments;
mod types;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use tracer_ebpf::layout::{COUNT, FIELDS, Field, Reads};

use super::checks::Obstacle;
pub(super) use arguments::Argument;
pub use types::Types;

/// Where kernels with CONFIG_DEBUG_INFO_BTF put theirs.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// What the programs need to know of a kernel.
#[derive(Debug)]
pub struct Facts {
    /// The offset of each of [`FIELDS`].
    pub layout: [u32; COUNT],
    /// Programs that take arguments which their tracepoint does not have, and what is
    /// wrong.
    pub unsuited: BTreeMap<&'static str, String>,
}

impl Facts {
    /// What a BTF file says.
    ///
    /// # Errors
    /// If the file cannot be read or a field cannot be resolved.
    pub fn read(path: &Path) -> Result<Self> {
        let none = |what: String| Obstacle {
            what,
            remedy: "capture under a kernel built with CONFIG_DEBUG_INFO_BTF=y, as those of \
                     distributions are"
                .to_owned(),
        };
        let unusable = || {
            format!(
                "cannot use the kernel's type information in {}",
                path.display()
            )
        };
        let blob = std::fs::read(path).map_err(|error| {
            none(format!(
                "cannot read {} ({error}): without its description of its types (BTF) the \
                 kernel's structs are not known",
                path.display()
            ))
        })?;
        let types =
            Types::parse(&blob).map_err(|error| none(format!("{}: {error:#}", unusable())))?;
        Ok(Self {
            layout: types.layout(FIELDS).with_context(unusable)?,
            unsuited: types.unsuited(),
        })
    }
}

/// Offsets of all fields, from a BTF file.
///
/// # Errors
/// As [`Facts::read`].
pub fn layout_of(path: &Path) -> Result<[u32; COUNT]> {
    Ok(Facts::read(path)?.layout)
}

impl Types<'_> {
    /// Byte offset of a field.
    ///
    /// # Errors
    /// If this kernel has no such struct or member, or what is there is not what the
    /// programs read: the error names the field.
    pub fn offset(&self, field: &Field) -> Result<u32> {
        let name = || format!("{}.{}", field.structure, field.path.join("."));
        let mut found = None;
        // Most names have one struct; a private one of some driver's may have the same.
        for id in self.structs(field.structure) {
            let here = self.offset_in(*id, field).with_context(name);
            match (&mut found, here) {
                (None, here) => found = Some(here),
                (Some(Err(_)), Ok(here)) => found = Some(Ok(here)),
                (Some(Ok(one)), Ok(other)) if *one != other => {
                    bail!(
                        "this kernel's BTF has two structs {} that disagree about {}",
                        field.structure,
                        name()
                    );
                }
                _ => {}
            }
        }
        found.unwrap_or_else(|| {
            bail!(
                "this kernel's BTF has no struct {} (needed for {})",
                field.structure,
                name()
            )
        })
    }

    fn offset_in(&self, structure: u32, field: &Field) -> Result<u32> {
        let mut id = structure;
        let mut bits = 0;
        for name in field.path {
            let Some(member) = self.member(id, name) else {
                bail!("this kernel's BTF has no member {name} there");
            };
            ensure!(!member.is_bit_field, "member {name} is a bit field");
            bits += member.bits;
            id = member.target;
        }
        ensure!(bits % 8 == 0, "it does not begin at a byte");
        match field.reads {
            Reads::Bytes(wanted) => {
                ensure!(self.pointee(id).is_none(), "it is a pointer");
                let there = self.size(id).context("its size is not known")?;
                ensure!(
                    there >= wanted,
                    "it has {there} bytes, and {wanted} are read"
                );
            }
            Reads::Pointer(wanted) => {
                let target = self.pointee(id).context("it is no pointer")?;
                ensure!(
                    wanted.is_empty() || self.struct_name(target) == wanted.as_bytes(),
                    "it points to something else than a {wanted}"
                );
            }
        }
        Ok(bits / 8)
    }

    /// Offsets of all fields that the programs read, in their order.
    ///
    /// # Errors
    /// If one cannot be resolved.
    pub fn layout(&self, fields: &[Field; COUNT]) -> Result<[u32; COUNT]> {
        let mut layout = [0; COUNT];
        for (offset, field) in layout.iter_mut().zip(fields) {
            *offset = self.offset(field)?;
        }
        Ok(layout)
    }
}

#[cfg(test)]
mod tests;
