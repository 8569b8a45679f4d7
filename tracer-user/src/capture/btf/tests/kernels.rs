//! The facts of other kernels, checked in: what is resolved from each kernel's BTF is
//! compared with what the C compiler and bpftool make of it (`cargo xtask layouts` writes
//! both).

use std::collections::BTreeMap;
use std::path::Path;

use tracer_ebpf::layout::{COUNT, Field, aarch64, x86_64};

use super::super::Types;
use super::super::arguments::{Argument, TAKES};
use crate::capture::calls;
use crate::capture::hooks::{By, OF_BACKEND, OF_NGINX, WAYS};

const FOLDER: &str = "../tests/fixtures/layouts";

/// A kernel's BTF, cut down, and what others say of it.
pub(super) struct Kernel {
    /// Its file's name.
    pub(super) name: String,
    pub(super) blob: Vec<u8>,
    pub(super) fields: &'static [Field; COUNT],
    facts: Vec<String>,
}

impl Kernel {
    /// The words of the fact of this kind and name, if the kernel has the thing.
    #[track_caller]
    fn fact(&self, kind: &str, name: &str) -> Option<&str> {
        let start = format!("{kind} {name} ");
        let fact = self.facts.iter().find_map(|fact| fact.strip_prefix(&start));
        let fact = fact.unwrap_or_else(|| {
            panic!(
                "{} says nothing of {kind} {name}: `cargo xtask layouts`",
                self.name
            )
        });
        (fact != "absent").then_some(fact)
    }

    /// The types of a tracepoint's arguments, as C has them.
    #[track_caller]
    pub(super) fn tracepoint(&self, name: &str) -> Option<Vec<String>> {
        let inner = self.fact("tracepoint", name)?;
        let inner = inner
            .strip_prefix("(void *")
            .unwrap()
            .strip_suffix(')')
            .unwrap();
        let words = |text: &str| text.trim().trim_start_matches("const ").to_owned();
        Some(inner.split(',').skip(1).map(words).collect())
    }
}

/// All kernels that are checked in.
pub(super) fn all() -> Vec<Kernel> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
    let mut kernels: Vec<Kernel> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|file| Some(file.strip_suffix(".btf.zst")?.to_owned()))
        .map(|name| {
            let read = |ending: &str| std::fs::read(folder.join(format!("{name}.{ending}")));
            let facts = String::from_utf8(read("txt").unwrap()).unwrap();
            Kernel {
                blob: zstd::decode_all(&read("btf.zst").unwrap()[..]).unwrap(),
                fields: match name.rsplit_once('.').unwrap().1 {
                    "amd64" => x86_64::FIELDS,
                    "arm64" => aarch64::FIELDS,
                    other => panic!("{name}: which fields has {other}?"),
                },
                facts: facts.lines().map(str::to_owned).collect(),
                name,
            }
        })
        .collect();
    kernels.sort_by(|a, b| a.name.cmp(&b.name));
    kernels
}

#[test]
fn there_are_a_dozen_kernels_and_two_architectures() {
    let kernels = all();
    let count = |architecture: &str| {
        let of = |kernel: &&Kernel| kernel.name.ends_with(architecture);
        kernels.iter().filter(of).count()
    };
    assert!(count(".amd64") >= 12, "{}", count(".amd64"));
    assert!(count(".arm64") >= 3, "{}", count(".arm64"));
}

#[test]
fn every_field_of_every_kernel_is_where_the_c_compiler_puts_it() {
    for kernel in all() {
        let types = Types::parse(&kernel.blob).unwrap();
        let layout = types.layout(kernel.fields).unwrap();
        for (field, offset) in kernel.fields.iter().zip(layout) {
            let name = format!("{}.{}", field.structure, field.path.join("."));
            let fact = kernel.fact("field", &name).unwrap();
            let expected: u32 = fact.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(offset, expected, "{name} of {}", kernel.name);
        }
    }
}

#[test]
fn every_size_is_the_c_compilers() {
    for kernel in all() {
        let types = Types::parse(&kernel.blob).unwrap();
        for field in kernel.fields {
            let name = format!("{}.{}", field.structure, field.path.join("."));
            let fact = kernel.fact("field", &name).unwrap();
            let expected: u32 = fact.split(' ').nth(1).unwrap().parse().unwrap();
            let structure = types.structs(field.structure)[0];
            let target = field.path.iter().fold(structure, |id, member| {
                types.member(id, member).unwrap().target
            });
            assert_eq!(
                types.size(target),
                Some(expected),
                "{name} of {}",
                kernel.name
            );
        }
    }
}

/// Whether what bpftool prints for an argument is what a program takes.
fn is_so(argument: Argument, printed: &str) -> bool {
    match argument {
        Argument::Any => true,
        Argument::Pointer(name) => printed == format!("struct {name} *"),
        Argument::Integer(bytes) => {
            let sizes = BTreeMap::from([("int", 4), ("unsigned int", 4), ("long int", 8)]);
            sizes.get(printed) == Some(&bytes)
        }
        Argument::Enum(name) => printed == format!("enum {name}"),
    }
}

#[test]
fn every_program_suits_exactly_the_kernels_whose_tracepoints_have_its_arguments() {
    for kernel in all() {
        let types = Types::parse(&kernel.blob).unwrap();
        let unsuited = types.unsuited();
        for (program, tracepoint, takes) in TAKES {
            let has = kernel.tracepoint(tracepoint);
            let fits = has.as_ref().is_some_and(|has| {
                takes.len() <= has.len()
                    && takes.iter().zip(has).all(|(takes, has)| is_so(*takes, has))
            });
            let checked = types.check(tracepoint, takes);
            let what = format!("{program} on {}: {has:?}, {checked:?}", kernel.name);
            assert_eq!(checked.is_ok(), fits, "{what}");
            let is_refused = has.is_some() && !fits;
            assert_eq!(unsuited.contains_key(program), is_refused, "{what}");
        }
    }
}

#[test]
fn the_reason_of_a_reset_is_taken_where_there_is_one() {
    for kernel in all() {
        let types = Types::parse(&kernel.blob).unwrap();
        // It came as the third argument, by 6.10.
        let is_old = kernel
            .tracepoint("tcp_send_reset")
            .is_some_and(|arguments| arguments.len() < 3);
        let refused: Vec<&str> = types.unsuited().into_keys().collect();
        let expected: &[&str] = if is_old {
            &["whoclosed_b_rr", "whoclosed_rst_r"]
        } else {
            &[]
        };
        assert_eq!(refused, expected, "{}", kernel.name);
    }
}

#[test]
fn the_parameters_of_functions_are_those_that_bpftool_lists() {
    let mut seen = 0;
    for kernel in all() {
        let types = Types::parse(&kernel.blob).unwrap();
        for function in ["tcp_sendmsg", "tcp_sendpage", "tcp_recvmsg"] {
            let expected = kernel.fact("function", function);
            let found = types
                .parameters(function)
                .unwrap()
                .map(|names| names.join(" "));
            assert_eq!(found.as_deref(), expected, "{function} of {}", kernel.name);
            seen += usize::from(found.is_some());
        }
        assert_eq!(types.parameters("tcp_unheard_of").unwrap(), None);
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn every_program_on_a_tracepoint_says_what_it_takes() {
    let of = |tracepoints: &'static [crate::capture::hooks::Tracepoint]| {
        tracepoints.iter().flat_map(|it| {
            let instead = it.instead.map(|(instead, _)| (instead, it.tracepoint));
            [Some((it.program, it.tracepoint)), instead]
        })
    };
    let tracepoints = WAYS.iter().filter(|way| way.by == By::Tracepoints);
    let calls = tracepoints.flat_map(|way| way.programs);
    let calls = calls.map(|call| Some((call.program, call.target)));
    let mut seen = 0;
    for (program, tracepoint) in of(OF_NGINX).chain(of(OF_BACKEND)).chain(calls).flatten() {
        let is_it =
            |(name, target, _): &&(&str, &str, _)| (*name, *target) == (program, tracepoint);
        assert!(
            TAKES.iter().any(|takes| is_it(&takes)),
            "{program} on {tracepoint}"
        );
        seen += 1;
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn on_every_kernel_a_program_fits_each_function_that_sends_or_receives() {
    let functions = WAYS.iter().find(|way| way.by == By::Functions).unwrap();
    for kernel in all() {
        let types = Types::parse(&kernel.blob).unwrap();
        let found = calls::fitting(functions.programs, &types).unwrap();
        for function in ["tcp_sendmsg", "tcp_sendpage", "tcp_recvmsg"] {
            let what = format!("{function} of {}", kernel.name);
            let parameters: Option<Vec<&str>> = kernel
                .fact("function", function)
                .map(|names| names.split(' ').collect());
            let fitting: Vec<_> = found.iter().filter(|it| it.target == function).collect();
            assert_eq!(fitting.len(), usize::from(parameters.is_some()), "{what}");
            for (call, parameters) in fitting.iter().zip(parameters) {
                // The return value follows the last parameter.
                assert_eq!(call.parameters.len(), parameters.len(), "{what}");
                for (taken, has) in call.parameters.iter().zip(parameters) {
                    assert!(taken.is_empty() || *taken == has, "{what}: {taken}, {has}");
                }
            }
        }
    }
}
