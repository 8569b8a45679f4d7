//! Embeds the kernel programs: `WHOCLOSED_PROGRAMS` names the object that
//! `cargo xtask build` made. Without it the agent is built without its programs and
//! says so when asked to capture.

use std::path::PathBuf;
use std::{env, fs, process};

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
    let folder = env::var_os("OUT_DIR").ok_or("cargo set no OUT_DIR")?;
    fs::write(PathBuf::from(folder).join("programs.o"), bytes).map_err(|error| error.to_string())
}
