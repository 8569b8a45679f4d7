//! Where the running kernel keeps the struct fields that the programs read: a
//! one-pass reader of BTF, the kernel's own description of its types
//! (Documentation/bpf/btf.rst). Only what is needed to find a member's offset.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use tracer_ebpf::layout::{COUNT, FIELDS, Field};

/// Where kernels with CONFIG_DEBUG_INFO_BTF put theirs.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;

// Kinds of include/uapi/linux/btf.h that this reader looks into.
const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// The types of one BTF blob.
#[derive(Debug)]
pub struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Position of each type id in `types`; id 0 is void.
    positions: Vec<u32>,
    /// Position of each named struct.
    structs: HashMap<&'a [u8], u32>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A type's three header words, and how many bytes follow them.
struct Head {
    name: u32,
    kind: u32,
    members: usize,
    bitfields: bool,
    target: u32,
}

fn head(types: &[u8], at: usize) -> Option<Head> {
    let info = u32_at(types, at + 4)?;
    Some(Head {
        name: u32_at(types, at)?,
        kind: (info >> 24) & 0x1f,
        members: usize::try_from(info & 0xffff).ok()?,
        bitfields: info >> 31 == 1,
        target: u32_at(types, at + 8)?,
    })
}

fn tail_bytes(head: &Head) -> usize {
    match head.kind {
        INT | VAR | DECL_TAG => 4,
        ARRAY => 12,
        STRUCT | UNION | DATASEC | ENUM64 => head.members * 12,
        ENUM | FUNC_PROTO => head.members * 8,
        _ => 0,
    }
}

impl<'a> Types<'a> {
    /// Indexes a BTF blob.
    ///
    /// # Errors
    /// If it is not little-endian BTF or ends in the middle of a type.
    pub fn parse(blob: &'a [u8]) -> Result<Self> {
        ensure!(
            u16_at(blob, 0) == Some(MAGIC),
            "this is not BTF (wrong magic number)"
        );
        let word = |at: usize| -> Result<usize> {
            Ok(usize::try_from(
                u32_at(blob, at).context("BTF header is cut off")?,
            )?)
        };
        let header = word(4)?;
        let section = |offset: usize, length: usize| {
            let start = header.checked_add(offset)?;
            blob.get(start..start.checked_add(length)?)
        };
        let types = section(word(8)?, word(12)?).context("BTF type section is cut off")?;
        let strings = section(word(16)?, word(20)?).context("BTF string section is cut off")?;
        let mut this = Self {
            types,
            strings,
            positions: vec![0],
            structs: HashMap::new(),
        };
        let mut at = 0;
        while at < types.len() {
            let head = head(types, at).context("BTF ends in the middle of a type")?;
            let position = u32::try_from(at)?;
            this.positions.push(position);
            if head.kind == STRUCT && head.name != 0 {
                this.structs
                    .entry(this.string(head.name))
                    .or_insert(position);
            }
            at += 12 + tail_bytes(&head);
        }
        Ok(this)
    }

    fn string(&self, offset: u32) -> &'a [u8] {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|start| self.strings.get(start..));
        rest.and_then(|rest| rest.split(|byte| *byte == 0).next())
            .unwrap_or_default()
    }

    fn position(&self, id: u32) -> Option<usize> {
        let position = self.positions.get(usize::try_from(id).ok()?)?;
        usize::try_from(*position).ok()
    }

    /// Follows typedefs and qualifiers to the type they stand for.
    fn resolved(&self, mut id: u32) -> Option<usize> {
        for _ in 0..32 {
            let at = self.position(id)?;
            let head = head(self.types, at)?;
            if !matches!(head.kind, TYPEDEF | VOLATILE | CONST | TYPE_TAG | PTR) {
                return Some(at);
            }
            if head.kind == PTR {
                return None;
            }
            id = head.target;
        }
        None
    }

    /// Bit offset of a member and the id of its type; looks through anonymous
    /// structs and unions.
    fn member(&self, at: usize, name: &str) -> Option<(u32, u32)> {
        let outer = head(self.types, at)?;
        if !matches!(outer.kind, STRUCT | UNION) {
            return None;
        }
        for index in 0..outer.members {
            let entry = at + 12 + index * 12;
            let member_name = self.string(u32_at(self.types, entry)?);
            let type_id = u32_at(self.types, entry + 4)?;
            let raw = u32_at(self.types, entry + 8)?;
            let (bits, width) = if outer.bitfields {
                (raw & 0x00ff_ffff, raw >> 24)
            } else {
                (raw, 0)
            };
            if member_name == name.as_bytes() {
                return (width == 0).then_some((bits, type_id));
            }
            if member_name.is_empty()
                && let Some((inner, found)) = self
                    .resolved(type_id)
                    .and_then(|inner| self.member(inner, name))
            {
                return Some((bits + inner, found));
            }
        }
        None
    }

    /// Byte offset of a field.
    ///
    /// # Errors
    /// If this kernel has no such struct or member, or it is a bit field: the error
    /// names it.
    pub fn offset(&self, field: &Field) -> Result<u32> {
        let name = || format!("{}.{}", field.structure, field.path.join("."));
        let Some(start) = self.structs.get(field.structure.as_bytes()) else {
            bail!(
                "this kernel's BTF has no struct {} (needed for {})",
                field.structure,
                name()
            );
        };
        let mut at = Some(usize::try_from(*start)?);
        let mut bits = 0;
        for member in field.path {
            let here = at.with_context(|| format!("{} is not reached by structs alone", name()))?;
            let (offset, type_id) = self
                .member(here, member)
                .with_context(|| format!("this kernel's BTF has no plain member {}", name()))?;
            bits += offset;
            at = self.resolved(type_id);
        }
        ensure!(bits % 8 == 0, "{} does not begin at a byte", name());
        Ok(bits / 8)
    }

    /// Names of a function's parameters; none if this kernel has no such function.
    #[must_use]
    pub fn parameters(&self, function: &str) -> Option<Vec<String>> {
        let at = self.positions.iter().skip(1).find_map(|position| {
            let at = usize::try_from(*position).ok()?;
            let head = head(self.types, at)?;
            let named = head.kind == FUNC && self.string(head.name) == function.as_bytes();
            named.then(|| self.position(head.target))?
        })?;
        let prototype = head(self.types, at)?;
        (0..prototype.members)
            .map(|index| {
                let name = self.string(u32_at(self.types, at + 12 + index * 8)?);
                Some(String::from_utf8_lossy(name).into_owned())
            })
            .collect()
    }

    /// Offsets of all fields that the programs read, in the order of [`FIELDS`].
    ///
    /// # Errors
    /// If one cannot be resolved.
    pub fn layout(&self) -> Result<[u32; COUNT]> {
        let mut layout = [0; COUNT];
        for (offset, field) in layout.iter_mut().zip(FIELDS) {
            *offset = self.offset(field)?;
        }
        Ok(layout)
    }
}

/// Offsets of all fields, from a BTF file.
///
/// # Errors
/// If the file cannot be read or a field cannot be resolved.
pub fn layout_of(path: &Path) -> Result<[u32; COUNT]> {
    let blob = std::fs::read(path).with_context(|| {
        format!(
            "cannot read {}: whoclosed needs a kernel built with CONFIG_DEBUG_INFO_BTF \
             to know its structs",
            path.display()
        )
    })?;
    Types::parse(&blob)
        .and_then(|types| types.layout())
        .with_context(|| {
            format!(
                "cannot use the kernel's type information in {}",
                path.display()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BTF blob with `struct outer { int first; union { struct { int a; int b; };
    /// long c; }; inner_t named; }` and its parts.
    fn sample() -> Vec<u8> {
        let mut strings = vec![0u8];
        let mut name = |text: &str| {
            let at = u32::try_from(strings.len()).unwrap();
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            at
        };
        let (int, outer, first, a, b, c, named, inner, x) = (
            name("int"),
            name("outer"),
            name("first"),
            name("a"),
            name("b"),
            name("c"),
            name("named"),
            name("inner"),
            name("x"),
        );
        let mut types: Vec<u32> = Vec::new();
        types.extend([int, INT << 24, 4, 0]); // 1
        types.extend([0, (STRUCT << 24) | 2, 8, a, 1, 0, b, 1, 32]); // 2
        types.extend([0, (UNION << 24) | 2, 8, 0, 2, 0, c, 1, 0]); // 3
        types.extend([inner, (STRUCT << 24) | 1, 8, x, 1, 32]); // 4
        types.extend([inner, TYPEDEF << 24, 4]); // 5
        types.extend([
            outer,
            (STRUCT << 24) | 3,
            24,
            first,
            1,
            0,
            0,
            3,
            64,
            named,
            5,
            128,
        ]); // 6
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut blob = Vec::new();
        blob.extend(MAGIC.to_le_bytes());
        blob.extend([1, 0]);
        let lengths = [types.len(), types.len(), strings.len()].map(|n| u32::try_from(n).unwrap());
        for word in [24, 0, lengths[0], lengths[1], lengths[2]] {
            blob.extend(word.to_le_bytes());
        }
        blob.extend(&types);
        blob.extend(&strings);
        blob
    }

    fn offset(structure: &'static str, path: &'static [&'static str]) -> Result<u32> {
        Types::parse(&sample())
            .unwrap()
            .offset(&Field { structure, path })
    }

    #[test]
    fn a_member_is_found_through_anonymous_structs_and_typedefs() {
        assert_eq!(offset("outer", &["first"]).unwrap(), 0);
        assert_eq!(offset("outer", &["b"]).unwrap(), 12);
        assert_eq!(offset("outer", &["c"]).unwrap(), 8);
        assert_eq!(offset("outer", &["named", "x"]).unwrap(), 20);
    }

    #[test]
    fn an_unknown_member_is_named_in_the_error() {
        let error = offset("outer", &["named", "y"]).unwrap_err();
        assert!(error.to_string().contains("outer.named.y"), "{error}");
        let error = offset("absent", &["y"]).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
    }

    #[test]
    fn a_blob_cut_anywhere_is_an_error_and_no_panic() {
        let blob = sample();
        for length in 0..blob.len() {
            assert!(Types::parse(&blob[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn the_running_kernels_fields_resolve_where_it_has_btf() {
        if Path::new(KERNEL_BTF).exists() {
            let layout = layout_of(Path::new(KERNEL_BTF)).unwrap();
            assert_ne!(layout[tracer_ebpf::layout::REMOTE_PORT], 0);
        }
    }
}
