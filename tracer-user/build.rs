//! Embeds the kernel programs: `WHOCLOSED_PROGRAMS` names the object that
//! `cargo xtask build` made. Without it the agent is built without its programs and
//! says so when asked to capture.

use std::path::PathBuf;
use std::{env, fs, process};

use object::build::elf::{Builder, SectionData};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(programs_embedded)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=WHOCLOSED_PROGRAMS");
    let Some(object) = env::var_os("WHOCLOSED_PROGRAMS").filter(|value| !value.is_empty()) else {
        return;
    };
    let object = PathBuf::from(object);
    println!("cargo::rerun-if-changed={}", object.display());
    if let Err(problem) = embed(&object) {
        println!(
            "cargo::error=WHOCLOSED_PROGRAMS={}: {problem}",
            object.display()
        );
        process::exit(1);
    }
    println!("cargo::rustc-cfg=programs_embedded");
}

fn embed(object: &PathBuf) -> Result<(), String> {
    // An ELF file begins with its magic number; at byte 18 stands the machine, 247 for BPF.
    let bytes = fs::read(object).map_err(|error| error.to_string())?;
    if !bytes.starts_with(b"\x7fELF") || bytes.get(18..20) != Some(&[247, 0]) {
        return Err("is not a BPF object; `cargo xtask build` makes it".to_owned());
    }
    let bytes = without_dwarf(&bytes).map_err(|error| error.to_string())?;
    let folder = env::var_os("OUT_DIR").ok_or("cargo set no OUT_DIR")?;
    fs::write(PathBuf::from(folder).join("programs.o"), bytes).map_err(|error| error.to_string())
}

/// The object without its debug information, three quarters of it. What the kernel wants
/// of that, BTF, was made from it by the linker and stays.
fn without_dwarf(bytes: &[u8]) -> Result<Vec<u8>, object::build::Error> {
    let mut object = Builder::read(bytes)?;
    for section in &mut object.sections {
        let name = section.name.strip_prefix(b".rel").unwrap_or(&section.name);
        section.delete = name.starts_with(b".debug_");
    }
    // The symbols that only these use.
    object.delete_orphans();
    // LLVM puts sections' names beside the symbols'; here they want a table of their own.
    let names = object.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    object.write(&mut stripped)?;
    Ok(stripped)
}
