//! The diagnosis for people: the answer first, then what to do, then the facts.
//!
//! Names and paths of nginx's are escaped as in a report.

use std::fmt::{self, Write};

use super::Diagnosis;
use super::found::{Capability, Found, Nginx};
use super::statements::{Statement, Weight};
use crate::report::escape::escape;
use crate::report::page::{BAD, DIM, GOOD, PLAIN, Page, TextOptions, WARNING};
use crate::report::words::counted;
use crate::trace::record::{Hook, Role};

/// Longest sentence that is shown whole.
const SENTENCE: usize = 900;
/// The same of a list of facts.
const LIST: usize = 4000;
const NAME: usize = 200;

/// Writes a diagnosis.
///
/// # Errors
/// If `out` fails.
pub fn render(diagnosis: &Diagnosis, options: &TextOptions, out: &mut impl Write) -> fmt::Result {
    let mut page = Page::new(out, *options);
    let (style, answer) = match (diagnosis.possible, diagnosis.full) {
        (false, _) => (BAD, "No capture is possible here."),
        (true, false) => (WARNING, "A capture would run here, but not tell all."),
        (true, true) => (GOOD, "A capture here gives full verdicts."),
    };
    page.line(&[(style, answer)])?;
    list(&mut page, diagnosis, Weight::Prevents, "Why")?;
    list(
        &mut page,
        diagnosis,
        Weight::Limits,
        "What it would not tell",
    )?;
    if !diagnosis.can.is_empty() {
        page.heading("What it would tell")?;
        for sentence in &diagnosis.can {
            page.labelled(PLAIN, "  - ", PLAIN, &escape(sentence, SENTENCE))?;
        }
    }
    list(&mut page, diagnosis, Weight::Note, "Good to know")?;
    page.heading("What was found")?;
    facts(&mut page, &diagnosis.found)
}

fn list<W: Write>(
    page: &mut Page<'_, W>,
    diagnosis: &Diagnosis,
    weight: Weight,
    heading: &str,
) -> fmt::Result {
    let said: Vec<&Statement> = diagnosis
        .statements
        .iter()
        .filter(|said| said.weight == weight)
        .collect();
    if said.is_empty() {
        return Ok(());
    }
    page.heading(heading)?;
    for said in said {
        page.labelled(PLAIN, "  - ", PLAIN, &escape(&said.text, SENTENCE))?;
        if let Some(remedy) = &said.remedy {
            page.labelled(DIM, "    do: ", PLAIN, &escape(remedy, SENTENCE))?;
        }
    }
    Ok(())
}

fn facts<W: Write>(page: &mut Page<'_, W>, found: &Found) -> fmt::Result {
    let mut fact = |label: &str, text: &str| {
        page.labelled(DIM, &format!("  {label:<8}  "), PLAIN, &escape(text, LIST))
    };
    fact("kernel", &kernel(found))?;
    fact("process", &process(found))?;
    for (number, capability) in found.process.capabilities.iter().enumerate() {
        fact(if number == 0 { "rights" } else { "" }, &right(capability))?;
    }
    fact("memory", &memory(found))?;
    for (label, text) in ["hooks", ""].into_iter().zip(hooks(found)) {
        fact(label, &text)?;
    }
    if found.role == Role::Nginx && found.nginx.is_empty() {
        fact("nginx", "none looked at")?;
    }
    for nginx in &found.nginx {
        for line in instance(nginx) {
            fact("nginx", &line)?;
        }
    }
    if let Some(listening) = &found.listening {
        fact("listening", listening)?;
    }
    Ok(())
}

fn kernel(found: &Found) -> String {
    let kernel = &found.kernel;
    let mut parts = vec![
        format!("Linux {} {}", kernel.release, kernel.machine),
        match kernel.type_information {
            true => "type information (BTF) read".to_owned(),
            false => "no usable type information (BTF)".to_owned(),
        },
        kernel
            .lockdown
            .as_ref()
            .map_or("not locked down".to_owned(), |mode| {
                format!("locked down ({mode})")
            }),
    ];
    if !kernel.security_modules.is_empty() {
        parts.push(format!(
            "security modules {}",
            kernel.security_modules.join(" ")
        ));
    }
    if let Some(clock) = &kernel.clock_source {
        parts.push(format!("clock {clock}"));
    }
    parts.join(", ")
}

fn process(found: &Found) -> String {
    let process = &found.process;
    let mut parts = vec![format!("user {}", process.uid)];
    if !process.pids_of_the_host {
        parts.push("in a pid namespace of its own".to_owned());
    }
    if process.seccomp {
        parts.push("under a filter of system calls".to_owned());
    }
    parts.join(", ")
}

fn right(capability: &Capability) -> String {
    format!(
        "{} {}, {}: to {}",
        if capability.held { "has" } else { "lacks" },
        capability.name,
        if capability.required {
            "required"
        } else {
            "optional"
        },
        capability.purpose
    )
}

fn memory(found: &Found) -> String {
    let memory = &found.memory;
    let mebibytes = |bytes: u64| bytes >> 20;
    let mut text = format!(
        "{} MiB at most, {} of them the ring buffer",
        memory.needed_bytes.div_ceil(1 << 20),
        mebibytes(memory.ring_buffer_bytes)
    );
    if let (Some(free), Some(by)) = (memory.free_bytes, &memory.limited_by) {
        text.push_str(&format!("; {by} has {} MiB free", mebibytes(free)));
    }
    text
}

/// Those that are attached, each that is by a fallback with what took its place; then those
/// that are not, of which the statements say why.
fn hooks(found: &Found) -> Vec<String> {
    if found.hooks.is_empty() {
        return vec!["none tried".to_owned()];
    }
    let (attached, missing): (Vec<_>, Vec<_>) = found.hooks.iter().partition(|hook| hook.attached);
    let named = |hook: &&Hook| match &hook.by {
        Some(by) => format!("{} by {by}", hook.name),
        None => hook.name.clone(),
    };
    let list = |hooks: &[&Hook]| hooks.iter().map(named).collect::<Vec<_>>().join(", ");
    let fallbacks = attached.iter().filter(|hook| hook.by.is_some()).count();
    let mut text = format!("{} of {} attached", attached.len(), found.hooks.len());
    if fallbacks > 0 {
        text.push_str(&format!(", {fallbacks} of them by a fallback"));
    }
    if !attached.is_empty() {
        text.push_str(&format!(": {}", list(&attached)));
    }
    let mut lines = vec![text];
    if !missing.is_empty() {
        lines.push(format!("not attached: {}", list(&missing)));
    }
    lines
}

fn instance(nginx: &Nginx) -> Vec<String> {
    let name = |text: &str| escape(text, NAME);
    let version = nginx.version.as_deref().unwrap_or(&nginx.binary);
    let mut parts = vec![
        format!("{} (master {})", name(version), nginx.master_pid),
        counted(nginx.workers as u64, "worker", "workers"),
        match nginx.exports_log_function {
            true => "names ngx_log_error_core".to_owned(),
            false => "does not name ngx_log_error_core".to_owned(),
        },
    ];
    let path = name(&nginx.configuration_path);
    parts.push(match nginx.configuration_read {
        true => format!("configuration {path}"),
        false => format!("configuration {path} not read"),
    });
    for log in &nginx.error_logs {
        let level = log.level.as_deref().unwrap_or("level not known");
        parts.push(format!("error log {} ({})", name(&log.path), name(level)));
    }
    vec![parts.join(", ")]
}
