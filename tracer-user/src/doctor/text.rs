//! The diagnosis for people: the answer first, then what to do, then the facts.
//!
//! Names and paths of nginx's are escaped as in a report.

use std::fmt::{self, Write};

use super::Diagnosis;
use super::found::{Found, Nginx};
use super::statements::{Statement, Weight};
use crate::report::escape::escape;
use crate::report::page::{BAD, DIM, GOOD, PLAIN, Page, TextOptions, WARNING};
use crate::report::words::counted;
use crate::trace::record::Role;

/// Longest sentence that is shown whole.
const SENTENCE: usize = 900;
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
        page.labelled(
            DIM,
            &format!("  {label:<8}  "),
            PLAIN,
            &escape(text, SENTENCE),
        )
    };
    fact("kernel", &kernel(found))?;
    fact("process", &process(found))?;
    fact("memory", &memory(found))?;
    fact("hooks", &hooks(found))?;
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
    let names = |held: bool| -> Vec<&str> {
        process
            .capabilities
            .iter()
            .filter(|capability| capability.held == held)
            .map(|capability| capability.name.as_str())
            .collect()
    };
    let mut parts = vec![format!("user {}", process.uid)];
    for (held, word) in [(true, "with"), (false, "without")] {
        let names = names(held);
        if !names.is_empty() {
            parts.push(format!("{word} {}", names.join(" ")));
        }
    }
    if !process.pids_of_the_host {
        parts.push("in a pid namespace of its own".to_owned());
    }
    if process.seccomp {
        parts.push("under a filter of system calls".to_owned());
    }
    parts.join(", ")
}

fn memory(found: &Found) -> String {
    let memory = &found.memory;
    let mebibytes = |bytes: u64| bytes >> 20;
    let mut text = format!(
        "{} MiB at most, {} of them the ring buffer",
        mebibytes(memory.needed_bytes),
        mebibytes(memory.ring_buffer_bytes)
    );
    if let (Some(free), Some(by)) = (memory.free_bytes, &memory.limited_by) {
        text.push_str(&format!("; {by} has {} MiB free", mebibytes(free)));
    }
    text
}

fn hooks(found: &Found) -> String {
    if found.hooks.is_empty() {
        return "none tried".to_owned();
    }
    let (attached, missing): (Vec<_>, Vec<_>) = found.hooks.iter().partition(|hook| hook.attached);
    let mut text = format!("{} of {} attached", attached.len(), found.hooks.len());
    let by: Vec<String> = (attached.iter())
        .filter_map(|hook| Some(format!("{} for {}", hook.by.as_ref()?, hook.name)))
        .collect();
    if !by.is_empty() {
        text.push_str(&format!(
            ", {} of them by a fallback: {}",
            by.len(),
            by.join("; ")
        ));
    }
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|hook| hook.name.as_str()).collect();
        text.push_str(&format!("; not attached: {}", names.join(", ")));
    }
    text
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
