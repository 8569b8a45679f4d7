//! The reader of BTF: on blobs made by hand here, on kernels' own in the modules.

mod damaged;
mod kernels;

use super::*;

const MAGIC: u16 = 0xeb9f;
const INT: u32 = 1;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const TYPEDEF: u32 = 8;

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
    types.extend([int, INT << 24, 4, 32]); // 1
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
    Types::parse(&sample()).unwrap().offset(&Field {
        structure,
        path,
        reads: Reads::Bytes(4),
    })
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
        let facts = Facts::read(Path::new(KERNEL_BTF)).unwrap();
        assert_ne!(facts.layout[tracer_ebpf::layout::REMOTE_PORT], 0);
    }
}
