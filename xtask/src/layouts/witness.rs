//! What others say of a kernel's types, for the tests to compare with: bpftool turns all
//! of its BTF into a C header, the C compiler says where the fields are, and prototypes
//! stand there as bpftool prints them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Wanted;
use crate::workspace;

/// One fact a line: `field NAME OFFSET BYTES`, `tracepoint NAME PROTOTYPE`,
/// `function NAME PARAMETER..`; `absent` in place of what this kernel has not.
pub(super) fn of(blob: &[u8], wanted: &Wanted) -> Result<String> {
    let folder = workspace::target()?.join(format!("layouts.{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let facts = facts(&folder, blob, wanted);
    let _ = fs::remove_dir_all(&folder);
    facts
}

fn facts(folder: &Path, blob: &[u8], wanted: &Wanted) -> Result<String> {
    let file = folder.join("btf");
    fs::write(&file, blob).with_context(|| format!("cannot write {}", file.display()))?;
    let header = bpftool(&file, &["format", "c"])?;
    let list = bpftool(&file, &[])?;
    let mut facts = fields(folder, &header, wanted)?;
    for tracepoint in wanted.tracepoints {
        let start = format!("typedef void (*btf_trace_{tracepoint})");
        let found = header.lines().find(|line| line.starts_with(&start));
        let prototype = found.map_or("absent", |line| line[start.len()..].trim_end_matches(';'));
        writeln!(facts, "tracepoint {tracepoint} {prototype}")?;
    }
    for function in wanted.functions {
        let parameters = parameters(&list, function)?.unwrap_or_else(|| "absent".to_owned());
        writeln!(facts, "function {function} {parameters}")?;
    }
    Ok(facts)
}

fn bpftool(file: &Path, arguments: &[&str]) -> Result<String> {
    let program = workspace::find_program("bpftool").context("bpftool is not installed")?;
    let output = Command::new(program)
        .args(["btf", "dump", "file"])
        .arg(file)
        .args(arguments)
        .output()
        .context("cannot start bpftool")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("bpftool cannot read this BTF: {}", said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where the C compiler puts the fields, all of which must be there.
fn fields(folder: &Path, header: &str, wanted: &Wanted) -> Result<String> {
    let mut source = header.to_owned();
    source.push_str("\nint printf(const char *, ...);\nint main(void)\n{\n");
    for field in wanted.fields {
        let (structure, path) = (field.structure, field.path.join("."));
        writeln!(
            source,
            "printf(\"field {structure}.{path} %lu %lu\\n\", \
             (unsigned long)__builtin_offsetof(struct {structure}, {path}), \
             (unsigned long)sizeof(((struct {structure} *)0)->{path}));"
        )?;
    }
    source.push_str("return 0;\n}\n");
    let (file, program) = (folder.join("fields.c"), folder.join("fields"));
    fs::write(&file, source).with_context(|| format!("cannot write {}", file.display()))?;
    let output = Command::new("cc")
        // C23's keywords are names of the kernel's own types.
        .args(["-std=gnu11", "-w", "-o"])
        .args([&program, &file])
        .output()
        .context("cannot start the C compiler")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().find(|line| line.contains("error"));
        bail!("the C compiler: {}", first.unwrap_or("it failed"));
    }
    let output = Command::new(&program)
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The names of a function's parameters in bpftool's list of types.
fn parameters(list: &str, function: &str) -> Result<Option<String>> {
    let named = format!(" FUNC '{function}' type_id=");
    let Some(found) = list.lines().find_map(|line| line.split_once(&named)) else {
        return Ok(None);
    };
    let id = found.1.split(' ').next().unwrap_or_default();
    let start = format!("[{id}] FUNC_PROTO ");
    let mut lines = list.lines().skip_while(|line| !line.starts_with(&start));
    lines
        .next()
        .with_context(|| format!("bpftool lists no type {id}"))?;
    let names: Vec<&str> = lines
        .take_while(|line| line.starts_with('\t'))
        .filter_map(|line| line.split('\'').nth(1))
        .collect();
    Ok(Some(names.join(" ")))
}
