//! `whoclosed report`

use std::collections::BTreeMap;
use std::fs::{self, File, FileType};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow};

use super::judged::{self, Page};
use crate::cli::{Format, Report, is_dash, misused};
use crate::private_file::{self, Refused};
use crate::report::escape::escape;
use crate::report::model::Cause;
use crate::report::words::counted;
use crate::trace::record::Role;

/// Longest name of a trace above its report.
const LONGEST_NAME: usize = 400;

pub(super) fn run(arguments: &Report) -> Result<ExitCode> {
    let misused = |problem| Err(misused("report", problem).into());
    if let Err(problem) = arguments.check() {
        return misused(problem);
    }
    if let Some(twice) = twice(&arguments.traces) {
        return misused(format!("the trace {} is given twice", twice.display()));
    }
    let mut of_nginx = Vec::new();
    let mut of_backends = Vec::new();
    for trace in &arguments.traces {
        match judged::role(trace)? {
            Role::Nginx => of_nginx.push(trace),
            Role::Backend => of_backends.push(trace.clone()),
        }
    }
    if of_nginx.is_empty() && !arguments.fail_on.is_empty() {
        let problem = "--fail-on looks for incidents, and only a trace of nginx's host has any";
        return misused(problem.to_owned());
    }
    let output = arguments.output.as_deref().filter(|path| !is_dash(path));
    if let Some(path) = output
        && let Some(trace) = (arguments.traces.iter()).find(|trace| are_one_file(trace, path))
    {
        let problem = format!(
            "the report would replace the trace {}: give another --output",
            trace.display()
        );
        return misused(problem);
    }
    let mut found: BTreeMap<Cause, u64> = BTreeMap::new();
    let mut reports = Vec::new();
    if of_nginx.is_empty() {
        for trace in &of_backends {
            let report = judged::accepting(trace)?;
            reports.push((trace, Page::Accepting(Box::new(report))));
        }
    }
    let backends = judged::backends(if of_nginx.is_empty() {
        &[]
    } else {
        &of_backends
    })?;
    for trace in of_nginx {
        let report = judged::judge(trace, &backends)?.report;
        for incident in &report.incidents {
            if arguments.fail_on.contains(&incident.cause) {
                *found.entry(incident.cause).or_default() += 1;
            }
        }
        reports.push((trace, Page::Nginx(Box::new(report))));
    }
    match output {
        Some(path) => {
            let mut file = BufWriter::new(create(path, arguments.force)?);
            write(&reports, arguments.format, false, &mut file)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => {
            let stdout = io::stdout();
            let to_terminal = stdout.is_terminal();
            let mut stdout = BufWriter::new(stdout.lock());
            write(&reports, arguments.format, to_terminal, &mut stdout)
                .context("cannot write the report")?;
        }
    }
    for (cause, number) in &found {
        let incidents = counted(*number, "incident", "incidents");
        crate::stderr::line(format_args!("{cause}: {incidents} (--fail-on)"));
    }
    Ok(if found.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Writes all reports; of several as text each has its trace's name above.
fn write(
    reports: &[(&PathBuf, Page)],
    format: Format,
    to_terminal: bool,
    out: &mut impl Write,
) -> Result<()> {
    for (number, (trace, report)) in reports.iter().enumerate() {
        if format == Format::Text && reports.len() > 1 {
            let gap = if number > 0 { "\n" } else { "" };
            let name = escape(&trace.display().to_string(), LONGEST_NAME);
            writeln!(out, "{gap}{name}:\n")?;
        }
        judged::write(report, format, to_terminal, out)?;
    }
    Ok(())
}

/// A file for reports: they hold parts of the error log, as traces do.
fn create(path: &Path, force: bool) -> Result<File> {
    // Nothing is replaced by what goes into these.
    let passes_on = |kind: FileType| kind.is_char_device() || kind.is_fifo();
    if fs::metadata(path).is_ok_and(|found| passes_on(found.file_type())) {
        return File::options()
            .write(true)
            .open(path)
            .with_context(|| format!("cannot write {}", path.display()));
    }
    private_file::create(path, force).map_err(|refused| {
        let path = path.display();
        match refused {
            Refused::Exists => anyhow!(
                "the file {path} exists already: choose another name, or replace it with --force"
            ),
            Refused::NotRegular => {
                anyhow!("{path} is not a regular file, so --force does not replace it")
            }
            Refused::Failed(error) => {
                anyhow::Error::new(error).context(format!("cannot create {path}"))
            }
        }
    })
}

/// The first of these that is there a second time, by whatever name.
fn twice(traces: &[PathBuf]) -> Option<&PathBuf> {
    let mut rest = traces;
    while let [first, others @ ..] = rest {
        rest = others;
        if let Some(found) = others.iter().find(|other| are_one_file(first, other)) {
            return Some(found);
        }
    }
    None
}

/// Both paths lead to one file that exists.
fn are_one_file(one: &Path, other: &Path) -> bool {
    let place = |path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    place(one).is_some_and(|found| place(other) == Some(found))
}
