//! Cuts BTF (Documentation/bpf/btf.rst) down to the structs, functions and tracepoints
//! that are looked up in it. Structs that are looked into stay whole, so that a further
//! field of theirs can be looked up; of what their members are, only name and size stay.
//!
//! `capture/btf/types.rs` of the agent reads the same format, and the two share no line: what
//! this leaves are the fixtures that the agent's reader is tested on. Cut by that reader they
//! would lack whatever it overlooks, and its tests could not show it.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};

use super::Wanted;

const MAGIC: [u8; 3] = [0x9f, 0xeb, 1];
const HEADER: usize = 24;

// Kinds of include/uapi/linux/btf.h.
const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FORWARD: u32 = 7;
const TYPEDEF: u32 = 8;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const FLOAT: u32 = 16;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// The largest BTF in a file, wherever it lies: kernels carry one of their own, and some
/// have small ones of programs that they load themselves.
pub(super) fn find(image: &[u8]) -> Option<&[u8]> {
    let starts = image
        .windows(MAGIC.len())
        .enumerate()
        .filter(|(_, window)| *window == MAGIC)
        .map(|(at, _)| &image[at..]);
    starts.filter_map(whole).max_by_key(|blob| blob.len())
}

/// The blob at the beginning of these bytes, if one fits.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let header = word(bytes, 4)?;
    let end = |at: usize| word(bytes, at)?.checked_add(word(bytes, at + 4)?);
    let length = header.checked_add(end(8)?.max(end(16)?))?;
    (header >= HEADER).then(|| bytes.get(..length))?
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(word32(bytes, at)?).ok()
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A type: its header and the words after it.
struct Type {
    name: String,
    info: u32,
    target: u32,
    tail: Vec<u32>,
}

impl Type {
    fn kind(&self) -> u32 {
        (self.info >> 24) & 0x1f
    }

    fn has_members(&self) -> bool {
        matches!(self.kind(), STRUCT | UNION)
    }

    /// Words of each entry of the tail that are names, and those that are types.
    fn entries(&self) -> (usize, Option<usize>, Option<usize>) {
        match self.kind() {
            STRUCT | UNION => (3, Some(0), Some(1)),
            FUNC_PROTO => (2, Some(0), Some(1)),
            ENUM => (2, Some(0), None),
            ENUM64 => (3, Some(0), None),
            _ => (1, None, None),
        }
    }

    /// Whether `target` is a type and not a size.
    fn refers(&self) -> bool {
        matches!(
            self.kind(),
            PTR | TYPEDEF | 9..=11 | FUNC | FUNC_PROTO | VAR | DECL_TAG | TYPE_TAG
        )
    }
}

/// A kernel's types.
pub(super) struct Blob<'a> {
    /// By id; what stands for void is empty.
    types: Vec<Type>,
    strings: &'a [u8],
}

impl<'a> Blob<'a> {
    pub(super) fn parse(blob: &'a [u8]) -> Result<Self> {
        let parsed = || {
            let header = word(blob, 4)?;
            let section = |at: usize| {
                let start = header.checked_add(word(blob, at)?)?;
                blob.get(start..start.checked_add(word(blob, at + 4)?)?)
            };
            let (types, strings) = (section(8)?, section(16)?);
            let mut this = Self {
                types: vec![Type {
                    name: String::new(),
                    info: 0,
                    target: 0,
                    tail: Vec::new(),
                }],
                strings,
            };
            let mut at = 0;
            while at < types.len() {
                let info = word32(types, at + 4)?;
                let count = usize::try_from(info & 0xffff).ok()?;
                let words = match (info >> 24) & 0x1f {
                    INT | VAR | DECL_TAG => 1,
                    ARRAY => 3,
                    STRUCT | UNION | DATASEC | ENUM64 => count * 3,
                    ENUM | FUNC_PROTO => count * 2,
                    PTR | FORWARD..=FUNC | FLOAT | TYPE_TAG => 0,
                    _ => return None,
                };
                let tail: Option<Vec<u32>> = (0..words)
                    .map(|index| word32(types, at + 12 + index * 4))
                    .collect();
                this.types.push(Type {
                    name: this.string(word32(types, at)?),
                    info,
                    target: word32(types, at + 8)?,
                    tail: tail?,
                });
                at += 12 + words * 4;
            }
            Some(this)
        };
        parsed().context("it is cut off, or has a kind of type that is not known here")
    }

    fn string(&self, offset: u32) -> String {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|start| self.strings.get(start..))
            .unwrap_or_default();
        let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }

    fn get(&self, id: u32) -> &Type {
        let index = usize::try_from(id).unwrap_or_default();
        self.types.get(index).unwrap_or(&self.types[0])
    }

    fn ids(&self) -> impl Iterator<Item = (u32, &Type)> {
        (0..).zip(&self.types).skip(1)
    }

    fn named<'b>(&'b self, kind: u32, name: &'b str) -> impl Iterator<Item = u32> + 'b {
        self.ids()
            .filter(move |(_, it)| it.kind() == kind && it.name == name)
            .map(|(id, _)| id)
    }

    /// Through typedefs and qualifiers.
    fn plain(&self, mut id: u32) -> u32 {
        while matches!(self.get(id).kind(), TYPEDEF | 9..=11 | TYPE_TAG) {
            id = self.get(id).target;
        }
        id
    }

    /// The type of a member, looked for through anonymous structs.
    fn member(&self, id: u32, name: &str) -> Option<u32> {
        let outer = self.get(id);
        if !outer.has_members() {
            return None;
        }
        outer.tail.chunks(3).find_map(|entry| {
            let target = self.plain(entry[1]);
            match self.string(entry[0]) {
                found if found == name => Some(target),
                found if found.is_empty() => self.member(target, name),
                _ => None,
            }
        })
    }

    /// A blob with what is wanted and no more.
    pub(super) fn cut(&self, wanted: &Wanted) -> Vec<u8> {
        let mut whole = HashSet::new();
        for field in wanted.fields {
            for structure in self.named(STRUCT, field.structure) {
                let mut at = Some(structure);
                for name in field.path {
                    whole.extend(at.filter(|id| self.get(*id).has_members()));
                    at = at.and_then(|id| self.member(id, name));
                }
            }
        }
        let mut roots: Vec<u32> = whole.iter().copied().collect();
        roots.sort_unstable();
        for function in wanted.functions {
            roots.extend(self.named(FUNC, function));
        }
        for tracepoint in wanted.tracepoints {
            let typedef = format!("btf_trace_{tracepoint}");
            roots.extend(self.named(TYPEDEF, &typedef));
        }
        for root in &roots {
            whole.extend(self.prototype(*root));
        }
        Cut::new(self, whole).write(&roots)
    }

    /// The prototype of a function, or of what a typedef's pointer points to.
    fn prototype(&self, root: u32) -> Option<u32> {
        let mut id = root;
        for _ in 0..3 {
            match self.get(id).kind() {
                FUNC_PROTO => return Some(id),
                FUNC | TYPEDEF | PTR => id = self.get(id).target,
                _ => return None,
            }
        }
        None
    }
}

/// The types that are kept, with new ids in the order in which they are met.
struct Cut<'a> {
    blob: &'a Blob<'a>,
    /// Those whose entries are kept.
    whole: HashSet<u32>,
    order: Vec<u32>,
    ids: HashMap<u32, u32>,
    strings: Vec<u8>,
    offsets: HashMap<String, u32>,
}

impl<'a> Cut<'a> {
    fn new(blob: &'a Blob<'a>, whole: HashSet<u32>) -> Self {
        Self {
            blob,
            whole,
            order: Vec::new(),
            ids: HashMap::from([(0, 0)]),
            strings: vec![0],
            offsets: HashMap::from([(String::new(), 0)]),
        }
    }

    /// The words of a type's tail that are kept.
    fn tail(&self, id: u32) -> &'a [u32] {
        let it = self.blob.get(id);
        let is_anonymous = it.has_members() && it.name.is_empty();
        let (width, _, _) = it.entries();
        if width == 1 || is_anonymous || self.whole.contains(&id) {
            &it.tail
        } else {
            &[]
        }
    }

    fn visit(&mut self, root: u32) {
        let mut waiting = vec![root];
        while let Some(id) = waiting.pop() {
            if self.ids.contains_key(&id) {
                continue;
            }
            self.order.push(id);
            let new = u32::try_from(self.order.len()).unwrap_or_default();
            self.ids.insert(id, new);
            let it = self.blob.get(id);
            let is_cut_prototype = it.kind() == FUNC_PROTO && !self.whole.contains(&id);
            if it.refers() && !is_cut_prototype {
                waiting.push(it.target);
            }
            if it.kind() == ARRAY {
                waiting.extend(&it.tail[..2]);
            }
            if let (width, _, Some(place)) = it.entries() {
                waiting.extend(self.tail(id).chunks(width).map(|entry| entry[place]));
            }
        }
    }

    fn name(&mut self, name: &str) -> u32 {
        if let Some(offset) = self.offsets.get(name) {
            return *offset;
        }
        let offset = u32::try_from(self.strings.len()).unwrap_or_default();
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        self.offsets.insert(name.to_owned(), offset);
        offset
    }

    fn write(mut self, roots: &[u32]) -> Vec<u8> {
        for root in roots {
            self.visit(*root);
        }
        let mut words = Vec::new();
        for id in self.order.clone() {
            let it = self.blob.get(id);
            let tail = self.tail(id);
            let (width, name_at, type_at) = it.entries();
            let count = if width == 1 {
                it.info & 0xffff
            } else {
                u32::try_from(tail.len() / width).unwrap_or_default()
            };
            words.push(self.name(&it.name));
            words.push(it.info & !0xffff | count);
            words.push(if it.refers() {
                self.ids.get(&it.target).copied().unwrap_or_default()
            } else {
                it.target
            });
            for (index, word) in tail.iter().enumerate() {
                let place = Some(index % width);
                let is_type = place == type_at || it.kind() == ARRAY && index < 2;
                words.push(if place == name_at {
                    let name = self.blob.string(*word);
                    self.name(&name)
                } else if is_type {
                    self.ids.get(word).copied().unwrap_or_default()
                } else {
                    *word
                });
            }
        }
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or_default();
        let types = length(words.len() * 4);
        let mut blob = MAGIC.to_vec();
        blob.push(0);
        for word in [24, 0, types, types, length(self.strings.len())] {
            blob.extend(word.to_le_bytes());
        }
        blob.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        blob.extend(self.strings);
        blob
    }
}
