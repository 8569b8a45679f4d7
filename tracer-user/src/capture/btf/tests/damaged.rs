//! Kernels whose types are not as the programs need them: each needed member of the
//! checked-in kernels is damaged in turn, and the error must name it.

use anyhow::Result;
use tracer_ebpf::layout::{Field, Reads};

use super::super::Types;
use super::super::arguments::{Argument, TAKES};
use super::kernels::{self, Kernel};
use crate::capture::calls;
use crate::capture::hooks::{By, WAYS};

const HEADER: usize = 24;
const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const BIT_FIELDS: u32 = 1 << 31;

/// A blob that can be changed: its types' positions by id.
#[derive(Clone)]
struct Draft {
    blob: Vec<u8>,
    positions: Vec<usize>,
    strings: usize,
}

impl Draft {
    fn of(blob: &[u8]) -> Self {
        let mut this = Self {
            blob: blob.to_vec(),
            positions: vec![0],
            strings: 0,
        };
        let end = HEADER + usize::try_from(this.word(12)).unwrap();
        this.strings = end;
        let mut at = HEADER;
        while at < end {
            this.positions.push(at);
            let info = this.word(at + 4);
            let count = usize::try_from(info & 0xffff).unwrap();
            at += 12
                + match (info >> 24) & 0x1f {
                    INT | 14 | 17 => 4,
                    ARRAY => 12,
                    STRUCT | UNION | 15 | 19 => count * 12,
                    6 | FUNC_PROTO => count * 8,
                    _ => 0,
                };
        }
        this
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(*self.blob[at..].first_chunk().unwrap())
    }

    fn set(&mut self, at: usize, word: u32) {
        self.blob[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }

    /// One more type.
    fn append(&mut self, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let added = u32::try_from(bytes.len()).unwrap();
        self.blob.splice(self.strings..self.strings, bytes);
        self.set(12, self.word(12) + added);
        self.set(16, self.word(16) + added);
        self.strings += usize::try_from(added).unwrap();
    }

    fn kind(&self, id: u32) -> u32 {
        (self.word(self.at(id) + 4) >> 24) & 0x1f
    }

    fn at(&self, id: u32) -> usize {
        self.positions[usize::try_from(id).unwrap()]
    }

    fn name(&self, at: usize) -> &str {
        let start = self.strings + usize::try_from(self.word(at)).unwrap();
        let end = self.blob[start..]
            .iter()
            .position(|byte| *byte == 0)
            .unwrap();
        std::str::from_utf8(&self.blob[start..start + end]).unwrap()
    }

    fn ids(&self) -> impl Iterator<Item = u32> {
        1..u32::try_from(self.positions.len()).unwrap()
    }

    /// Through typedefs and qualifiers.
    fn plain(&self, mut id: u32) -> u32 {
        while matches!(self.kind(id), 8..=11 | 18) {
            id = self.word(self.at(id) + 8);
        }
        id
    }

    /// The struct or union that has the member itself, and where its entry is.
    fn member(&self, id: u32, name: &str) -> Option<(u32, usize)> {
        let id = self.plain(id);
        if !matches!(self.kind(id), STRUCT | UNION) {
            return None;
        }
        let at = self.at(id);
        let count = usize::try_from(self.word(at + 4) & 0xffff).unwrap();
        (0..count)
            .map(|index| at + 12 + index * 12)
            .find_map(|entry| match self.name(entry) {
                found if found == name => Some((id, entry)),
                "" => self.member(self.word(entry + 4), name),
                _ => None,
            })
    }

    /// Entries of a field's members, outermost first, with the structs that they are in.
    fn path(&self, field: &Field) -> (usize, Vec<(u32, usize)>) {
        let is_it =
            |id: &u32| self.kind(*id) == STRUCT && self.name(self.at(*id)) == field.structure;
        let found: Vec<u32> = self.ids().filter(is_it).collect();
        assert_eq!(found.len(), 1, "structs {}", field.structure);
        let mut id = found[0];
        let mut entries = Vec::new();
        for name in field.path {
            let (owner, entry) = self.member(id, name).unwrap();
            entries.push((owner, entry));
            id = self.word(entry + 4);
        }
        (self.at(found[0]), entries)
    }

    /// A type of this kind and size.
    fn find(&self, kind: u32, size: Option<u32>) -> u32 {
        let fits = |id: &u32| {
            self.kind(*id) == kind && size.is_none_or(|size| self.word(self.at(*id) + 8) == size)
        };
        self.ids().find(fits).unwrap()
    }

    /// A name that no struct and no member has.
    fn other_name(&mut self) -> u32 {
        let offset = u32::try_from(self.blob.len() - self.strings).unwrap();
        self.blob.extend_from_slice(b"unheard_of\0");
        let length = self.word(20) + 11;
        self.set(20, length);
        offset
    }

    fn offset(&self, field: &Field) -> Result<u32> {
        Types::parse(&self.blob)?.offset(field)
    }
}

fn name_of(field: &Field) -> String {
    format!("{}.{}", field.structure, field.path.join("."))
}

/// What is done to a field, and the outcome, for each field of each kernel.
#[track_caller]
fn every_field_is_named_after(damage: impl Fn(&mut Draft, &Field)) {
    for kernel in kernels::all() {
        let whole = Draft::of(&kernel.blob);
        for field in kernel.fields {
            let mut draft = whole.clone();
            damage(&mut draft, field);
            is_named(&kernel, field, &draft);
        }
    }
}

#[track_caller]
fn is_named(kernel: &Kernel, field: &Field, draft: &Draft) {
    let what = format!("{} of {}", name_of(field), kernel.name);
    let error = match draft.offset(field) {
        Err(error) => format!("{error:#}"),
        Ok(offset) => panic!("{what} was found at {offset}"),
    };
    assert!(error.contains(&name_of(field)), "{what}: {error}");
}

#[test]
fn a_missing_struct_is_named_for_every_field() {
    every_field_is_named_after(|draft, field| {
        let other = draft.other_name();
        let (structure, _) = draft.path(field);
        draft.set(structure, other);
    });
}

#[test]
fn a_renamed_member_is_named_for_every_field() {
    for depth in 0..2 {
        every_field_is_named_after(|draft, field| {
            let other = draft.other_name();
            let (_, entries) = draft.path(field);
            let (_, entry) = entries[depth.min(entries.len() - 1)];
            draft.set(entry, other);
        });
    }
}

#[test]
fn a_member_that_became_a_bit_field_is_named_for_every_field() {
    every_field_is_named_after(|draft, field| {
        let (_, entries) = draft.path(field);
        let (owner, entry) = *entries.last().unwrap();
        let info = draft.at(owner) + 4;
        draft.set(info, draft.word(info) | BIT_FIELDS);
        draft.set(entry + 8, draft.word(entry + 8) | 3 << 24);
    });
}

#[test]
fn a_member_that_became_or_ceased_to_be_a_pointer_is_named_for_every_field() {
    every_field_is_named_after(|draft, field| {
        let (_, entries) = draft.path(field);
        let (_, entry) = *entries.last().unwrap();
        let other = match field.reads {
            Reads::Bytes(_) => draft.find(PTR, None),
            Reads::Pointer(_) => draft.find(INT, Some(8)),
        };
        draft.set(entry + 4, other);
    });
}

#[test]
fn a_member_that_is_narrower_or_points_elsewhere_is_named() {
    let mut seen = 0;
    for kernel in kernels::all() {
        let whole = Draft::of(&kernel.blob);
        let is_stranger = |id: &u32| {
            let target = || whole.word(whole.at(*id) + 8);
            whole.kind(*id) == PTR && target() != 0 && whole.kind(whole.plain(target())) != STRUCT
        };
        let stranger = whole.ids().find(is_stranger).unwrap();
        for field in kernel.fields {
            let other = match field.reads {
                Reads::Bytes(1) | Reads::Pointer("") => continue,
                Reads::Bytes(bytes) => whole.find(INT, Some(bytes.min(8) / 2)),
                Reads::Pointer(_) => stranger,
            };
            let mut draft = whole.clone();
            let (_, entries) = draft.path(field);
            draft.set(entries.last().unwrap().1 + 4, other);
            is_named(&kernel, field, &draft);
            seen += 1;
        }
    }
    assert!(seen > 600, "{seen}");
}

#[test]
fn two_structs_of_a_name_that_disagree_are_an_error_and_two_that_agree_are_none() {
    let kernel = kernels::all().swap_remove(0);
    let field = kernel.fields[tracer_ebpf::layout::NET_INODE];
    for (shift, agrees) in [(0, true), (64, false)] {
        let mut draft = Draft::of(&kernel.blob);
        let (structure, entries) = draft.path(&field);
        let (_, entry) = entries[0];
        // The same struct with this member alone, once more.
        draft.append(&[
            draft.word(structure),
            STRUCT << 24 | 1,
            draft.word(structure + 8),
            draft.word(entry),
            draft.word(entry + 4),
            draft.word(entry + 8) + shift,
        ]);
        match draft.offset(&field) {
            Ok(_) => assert!(agrees),
            Err(error) => {
                assert!(!agrees, "{error:#}");
                assert!(error.to_string().contains(&name_of(&field)), "{error:#}");
            }
        }
    }
}

#[test]
fn an_argument_that_is_absent_or_another_is_named_for_every_program() {
    let mut seen = 0;
    for kernel in kernels::all() {
        let whole = Draft::of(&kernel.blob);
        let int = whole.find(INT, Some(1));
        for (program, tracepoint, takes) in TAKES {
            let types = Types::parse(&kernel.blob).unwrap();
            if types.check(tracepoint, takes).is_err() {
                continue;
            }
            let prototype = prototype(&whole, tracepoint);
            for (index, argument) in takes.iter().enumerate() {
                let place = format!("argument {} of the tracepoint {tracepoint}", index + 1);
                let mut shorter = whole.clone();
                let info = prototype + 4;
                let count = u32::try_from(index).unwrap() + 1;
                shorter.set(info, shorter.word(info) & !0xffff | count);
                let mut changed = whole.clone();
                changed.set(prototype + 12 + (index + 1) * 8 + 4, int);
                let mut damaged = vec![without(&whole, &shorter, prototype, index)];
                if *argument != Argument::Any {
                    damaged.push(changed);
                }
                for draft in damaged {
                    let types = Types::parse(&draft.blob).unwrap();
                    let error = types.check(tracepoint, takes).unwrap_err().to_string();
                    assert!(
                        error.contains(&place),
                        "{program}, {}: {error}",
                        kernel.name
                    );
                    let told = types.unsuited();
                    assert!(told[program].contains(&place), "{program}: {told:?}");
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 300, "{seen}");
}

/// Id of the prototype of a tracepoint.
fn prototype_id(draft: &Draft, tracepoint: &str) -> u32 {
    let name = format!("btf_trace_{tracepoint}");
    let is_it = |id: &u32| draft.kind(*id) == 8 && draft.name(draft.at(*id)) == name;
    let typedef = draft.ids().find(is_it).unwrap();
    let pointer = draft.word(draft.at(typedef) + 8);
    draft.word(draft.at(pointer) + 8)
}

/// Where the prototype of a tracepoint is.
fn prototype(draft: &Draft, tracepoint: &str) -> usize {
    draft.at(prototype_id(draft, tracepoint))
}

/// The draft without a prototype's arguments from `index` on.
fn without(whole: &Draft, shorter: &Draft, prototype: usize, index: usize) -> Draft {
    let count = usize::try_from(whole.word(prototype + 4) & 0xffff).unwrap();
    let (from, to) = (prototype + 12 + (index + 1) * 8, prototype + 12 + count * 8);
    let mut draft = shorter.clone();
    draft.blob.drain(from..to);
    let removed = u32::try_from(to - from).unwrap();
    draft.set(12, draft.word(12) - removed);
    draft.set(16, draft.word(16) - removed);
    draft
}

#[test]
fn a_function_whose_arguments_are_others_is_named_and_one_of_two_is_not_taken_for_absent() {
    let functions = WAYS.iter().find(|way| way.by == By::Functions).unwrap();
    let mut seen = 0;
    for kernel in kernels::all() {
        let whole = Draft::of(&kernel.blob);
        let int = whole.find(INT, Some(1));
        let fitting = |draft: &Draft| {
            let types = Types::parse(&draft.blob).unwrap();
            calls::fitting(functions.programs, &types)
        };
        for call in fitting(&whole).unwrap() {
            let is_it =
                |id: &u32| whole.kind(*id) == FUNC && whole.name(whole.at(*id)) == call.target;
            let function = whole.ids().find(is_it).unwrap();
            let prototype = whole.at(whole.word(whole.at(function) + 8));
            for (index, argument) in call.takes.iter().enumerate() {
                if *argument == Argument::Any {
                    continue;
                }
                let mut changed = whole.clone();
                changed.set(prototype + 12 + index * 8 + 4, int);
                let error = fitting(&changed).unwrap_err().to_string();
                let place = format!("argument {} of {}", index + 1, call.target);
                assert!(error.contains(&place), "{}: {error}", kernel.name);
                seen += 1;
            }
            // Another function of the name, with the arguments of a tracepoint's probe.
            let mut doubled = whole.clone();
            let at = whole.at(function);
            let other = prototype_id(&whole, "tcp_destroy_sock");
            doubled.append(&[whole.word(at), whole.word(at + 4), other]);
            let error = fitting(&doubled).unwrap_err().to_string();
            assert!(
                error.contains(call.target) && error.contains("disagree"),
                "{}: {error}",
                kernel.name
            );
        }
    }
    assert!(seen > 50, "{seen}");
}
