//! The reader itself: indexes a blob and follows its references.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};

const MAGIC: u16 = 0xeb9f;

// Kinds of include/uapi/linux/btf.h that this reader looks into.
const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FORWARD: u32 = 7;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const FLOAT: u32 = 16;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// How deep types may lie in one another: far more than the kernel's do.
const DEPTH: u32 = 32;
/// Bytes of a pointer: only 64-bit kernels are read.
const POINTER_BYTES: u32 = 8;

/// The types of one BTF blob.
#[derive(Debug)]
pub struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Position of each type id in `types`; id 0 is void.
    positions: Vec<u32>,
    /// Ids of the structs of each name.
    structs: HashMap<&'a [u8], Vec<u32>>,
    /// Ids of functions and typedefs by name.
    functions: HashMap<&'a [u8], Vec<u32>>,
    typedefs: HashMap<&'a [u8], u32>,
}

/// A member of a struct, with those of anonymous structs in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) bits: u32,
    /// Id of its type.
    pub(super) target: u32,
    pub(super) is_bit_field: bool,
}

/// A parameter of a function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter<'a> {
    pub(super) name: &'a [u8],
    /// Id of its type.
    pub(super) target: u32,
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
    bit_fields: bool,
    /// The type that it is made of, or its size.
    target: u32,
    /// Where what follows begins.
    tail: usize,
}

fn head(types: &[u8], at: usize) -> Option<Head> {
    let info = u32_at(types, at + 4)?;
    Some(Head {
        name: u32_at(types, at)?,
        kind: (info >> 24) & 0x1f,
        members: usize::try_from(info & 0xffff).ok()?,
        bit_fields: info >> 31 == 1,
        target: u32_at(types, at + 8)?,
        tail: at + 12,
    })
}

/// Bytes after the header; none for a kind that is not known, whose length is not either.
fn tail_bytes(head: &Head) -> Option<usize> {
    match head.kind {
        INT | VAR | DECL_TAG => Some(4),
        ARRAY => Some(12),
        STRUCT | UNION | DATASEC | ENUM64 => Some(head.members * 12),
        ENUM | FUNC_PROTO => Some(head.members * 8),
        PTR | FORWARD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | FLOAT | TYPE_TAG => Some(0),
        _ => None,
    }
}

impl<'a> Types<'a> {
    /// Indexes a BTF blob.
    ///
    /// # Errors
    /// If it is not little-endian BTF, has a kind of type that is not known, or ends in the
    /// middle of a type.
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
            functions: HashMap::new(),
            typedefs: HashMap::new(),
        };
        let mut at = 0;
        while at < types.len() {
            let head = head(types, at).context("BTF ends in the middle of a type")?;
            let id = u32::try_from(this.positions.len())?;
            let tail = tail_bytes(&head).with_context(|| {
                format!("type {id} is of a kind that is not known: {}", head.kind)
            })?;
            this.positions.push(u32::try_from(at)?);
            let name = this.string(head.name);
            match head.kind {
                _ if name.is_empty() => {}
                STRUCT => this.structs.entry(name).or_default().push(id),
                FUNC => this.functions.entry(name).or_default().push(id),
                TYPEDEF => {
                    this.typedefs.entry(name).or_insert(id);
                }
                _ => {}
            }
            at = head.tail + tail;
        }
        ensure!(at == types.len(), "BTF ends in the middle of a type");
        Ok(this)
    }

    fn string(&self, offset: u32) -> &'a [u8] {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|start| self.strings.get(start..));
        rest.and_then(|rest| rest.split(|byte| *byte == 0).next())
            .unwrap_or_default()
    }

    fn head(&self, id: u32) -> Option<Head> {
        if id == 0 {
            return None;
        }
        let position = self.positions.get(usize::try_from(id).ok()?)?;
        head(self.types, usize::try_from(*position).ok()?)
    }

    fn word(&self, at: usize) -> Option<u32> {
        u32_at(self.types, at)
    }

    /// Follows typedefs and qualifiers to the type they stand for; none for void.
    fn resolved(&self, mut id: u32) -> Option<(u32, Head)> {
        for _ in 0..DEPTH {
            let head = self.head(id)?;
            if !matches!(head.kind, TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG) {
                return Some((id, head));
            }
            id = head.target;
        }
        None
    }

    /// Ids of the structs of a name.
    pub(super) fn structs(&self, name: &str) -> &[u32] {
        self.structs
            .get(name.as_bytes())
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// A member of a struct or union; looks through anonymous ones in it.
    pub(super) fn member(&self, id: u32, name: &str) -> Option<Member> {
        self.member_within(id, name, DEPTH)
    }

    fn member_within(&self, id: u32, name: &str, depth: u32) -> Option<Member> {
        let (_, outer) = self.resolved(id)?;
        if !matches!(outer.kind, STRUCT | UNION) {
            return None;
        }
        for index in 0..outer.members {
            let entry = outer.tail + index * 12;
            let member_name = self.string(self.word(entry)?);
            let target = self.word(entry + 4)?;
            let raw = self.word(entry + 8)?;
            let (bits, width) = if outer.bit_fields {
                (raw & 0x00ff_ffff, raw >> 24)
            } else {
                (raw, 0)
            };
            if member_name == name.as_bytes() {
                return Some(Member {
                    bits,
                    target,
                    is_bit_field: width != 0 || self.is_part_of_int(target),
                });
            }
            if member_name.is_empty()
                && depth > 0
                && let Some(inner) = self.member_within(target, name, depth - 1)
            {
                return Some(Member {
                    bits: bits.checked_add(inner.bits)?,
                    ..inner
                });
            }
        }
        None
    }

    /// Structs without the flag for bit fields have those as integers of fewer bits than
    /// their bytes.
    fn is_part_of_int(&self, id: u32) -> bool {
        let Some((_, int)) = self.resolved(id).filter(|(_, head)| head.kind == INT) else {
            return false;
        };
        let encoding = self.word(int.tail).unwrap_or_default();
        let (bits, offset) = (encoding & 0xff, (encoding >> 16) & 0xff);
        offset != 0 || bits != int.target.saturating_mul(8)
    }

    /// Bytes of a type.
    pub(super) fn size(&self, id: u32) -> Option<u32> {
        self.size_within(id, DEPTH)
    }

    fn size_within(&self, id: u32, depth: u32) -> Option<u32> {
        let (_, head) = self.resolved(id)?;
        match head.kind {
            INT | FLOAT | ENUM | ENUM64 | STRUCT | UNION => Some(head.target),
            PTR => Some(POINTER_BYTES),
            ARRAY if depth > 0 => {
                let element = self.size_within(self.word(head.tail)?, depth - 1)?;
                element.checked_mul(self.word(head.tail + 8)?)
            }
            _ => None,
        }
    }

    /// Whether a type is an integer or an enumeration.
    pub(super) fn is_integer(&self, id: u32) -> bool {
        self.resolved(id)
            .is_some_and(|(_, head)| matches!(head.kind, INT | ENUM | ENUM64))
    }

    /// The name of an enumeration.
    pub(super) fn enum_name(&self, id: u32) -> &'a [u8] {
        match self.resolved(id) {
            Some((_, head)) if matches!(head.kind, ENUM | ENUM64) => self.string(head.name),
            _ => b"",
        }
    }

    /// What a pointer points to; id 0 is void.
    pub(super) fn pointee(&self, id: u32) -> Option<u32> {
        let (_, head) = self.resolved(id)?;
        (head.kind == PTR).then_some(head.target)
    }

    /// The name of a struct, also of one that is only declared.
    pub(super) fn struct_name(&self, id: u32) -> &'a [u8] {
        match self.resolved(id) {
            Some((_, head)) if matches!(head.kind, STRUCT | FORWARD) => self.string(head.name),
            _ => b"",
        }
    }

    /// The parameters of a function; none if there is no such function.
    ///
    /// # Errors
    /// If several of the name disagree: which is meant cannot be told.
    pub(super) fn function(&self, name: &str) -> Result<Option<Vec<Parameter<'a>>>> {
        let Some(functions) = self.functions.get(name.as_bytes()) else {
            return Ok(None);
        };
        let mut prototypes = functions
            .iter()
            .map(|id| self.head(*id).map(|head| head.target));
        let one = prototypes.next().flatten();
        ensure!(
            prototypes.all(|other| other == one),
            "this kernel has several functions {name} that disagree"
        );
        let parameters = one.and_then(|one| self.prototype(one));
        let parameters = parameters.with_context(|| format!("the types of {name} are cut off"))?;
        Ok(Some(parameters))
    }

    /// The parameters of the functions that a typedef's pointer points to.
    pub(super) fn function_type(&self, name: &str) -> Option<Vec<Parameter<'a>>> {
        let id = self.typedefs.get(name.as_bytes())?;
        self.prototype(self.pointee(*id)?)
    }

    fn prototype(&self, id: u32) -> Option<Vec<Parameter<'a>>> {
        let (_, head) = self.resolved(id)?;
        if head.kind != FUNC_PROTO {
            return None;
        }
        (0..head.members)
            .map(|index| {
                Some(Parameter {
                    name: self.string(self.word(head.tail + index * 8)?),
                    target: self.word(head.tail + index * 8 + 4)?,
                })
            })
            .collect()
    }
}
