//! Trace files, judged and joined, and how reports are printed.

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cli::Format;
use crate::join::{self, Join};
use crate::judge::{Judge, Judged};
use crate::report::accepting::{self, Accepting, Gathering};
use crate::report::model::Report;
use crate::report::text::TextOptions;
use crate::report::{json, text};
use crate::trace::reader::Trace;
use crate::trace::record::{Record, Role};

/// Columns of a report that goes to no terminal, and the most on one: longer lines are
/// hard to read.
const WIDTH: u16 = 100;

/// Whose side a trace has, by its first records.
///
/// # Errors
/// If it is no trace, cannot be read or holds nothing.
pub(super) fn role(path: &Path) -> Result<Role> {
    for record in Trace::open(path)? {
        match record? {
            Record::Trace(_) => {}
            Record::Capture(capture) => return Ok(capture.role),
            // Its beginning is missing; the report says so.
            _ => return Ok(Role::Nginx),
        }
    }
    bail!(
        "{} holds nothing yet but the words that make it a trace: it was cut off before anything \
         was recorded, or its capture has just begun",
        path.display()
    )
}

/// Reads the traces of backends' hosts.
///
/// # Errors
/// If one is none, or cannot be read.
pub(super) fn backends(paths: &[PathBuf]) -> Result<Vec<join::Backend>> {
    let mut backends = Vec::with_capacity(paths.len());
    for path in paths {
        if role(path)? != Role::Backend {
            bail!(
                "{} was not captured with --role backend: only such a trace can be joined with \
                 nginx's",
                path.display()
            );
        }
        let mut backend = join::Backend::new(path.display().to_string());
        for record in Trace::open(path)? {
            backend.push(record?);
        }
        backends.push(backend);
    }
    Ok(backends)
}

/// Reads and judges a trace of nginx's host, joined with those of backends' hosts.
///
/// # Errors
/// If it is no trace or cannot be read.
pub(super) fn judge(path: &Path, backends: &[join::Backend]) -> Result<Judged> {
    let mut join = Join::default();
    if !backends.is_empty() {
        let mut nginx = join::Nginx::default();
        for record in Trace::open(path)? {
            nginx.push(&record?);
        }
        join = join::join(&nginx, backends);
    }
    let mut trace = Trace::open(path)?;
    let mut judge = Judge::joined(
        std::mem::take(&mut join.unwatched),
        std::mem::take(&mut join.sides_lost),
    );
    for record in &mut trace {
        join.around(record?, |record| judge.push(record));
    }
    join.rest(|record| judge.push(record));
    let (whole, mut notes) = said_of(&trace);
    notes.append(&mut join.notes);
    let mut judged = judge.finish(notes);
    judged.report.capture.complete &= whole;
    judged.report.joined = join.summaries;
    Ok(judged)
}

/// Reads a trace made on a backend's host, by itself.
///
/// # Errors
/// If it is no trace or cannot be read.
pub(super) fn accepting(path: &Path) -> Result<Accepting> {
    let mut trace = Trace::open(path)?;
    let mut gathering = Gathering::default();
    for record in &mut trace {
        gathering.push(&record?);
    }
    let (whole, notes) = said_of(&trace);
    let mut report = gathering.finish(notes);
    report.capture.complete &= whole;
    Ok(report)
}

/// Whether a trace that was read is whole, and what is to be said of the file.
fn said_of<R: io::Read>(trace: &Trace<R>) -> (bool, Vec<String>) {
    let cut_off = trace.cut_off();
    let whole = cut_off.is_none();
    let mut notes = Vec::from_iter(cut_off);
    if trace.undecodable() > 0 {
        notes.push(format!(
            "{} records of the trace could not be read",
            trace.undecodable()
        ));
    }
    if trace.unknown() > 0 {
        notes.push(format!(
            "{} records are of kinds that this version does not know",
            trace.unknown()
        ));
    }
    (whole, notes)
}

/// How text goes to this output.
pub(super) fn text_options(to_terminal: bool) -> TextOptions {
    let colour =
        to_terminal && anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
    let columns = if to_terminal {
        let size = rustix::termios::tcgetwinsize(io::stdout());
        // A serial line does not know.
        size.ok()
            .map(|size| size.ws_col)
            .filter(|columns| *columns > 0)
    } else {
        // For whoever pages through it, or prints it.
        let asked = std::env::var("COLUMNS").ok();
        asked
            .and_then(|columns| columns.parse().ok())
            .filter(|columns| *columns > 0)
    };
    TextOptions {
        colour,
        width: columns.map_or(WIDTH, |columns| columns.min(WIDTH)),
    }
}

/// A report of either kind.
#[derive(Debug)]
pub(super) enum Page {
    /// Of nginx's host.
    Nginx(Box<Report>),
    /// Of a backend's host by itself.
    Accepting(Box<Accepting>),
}

/// Writes a report.
///
/// # Errors
/// If the output fails.
pub(super) fn write(
    page: &Page,
    format: Format,
    to_terminal: bool,
    out: &mut impl Write,
) -> Result<()> {
    match format {
        Format::Json => match page {
            Page::Nginx(report) => json::render(&**report, true, out)?,
            Page::Accepting(report) => json::render(&**report, true, out)?,
        },
        Format::Text => {
            let mut lines = String::new();
            let options = text_options(to_terminal);
            match page {
                Page::Nginx(report) => text::render(report, &options, &mut lines)?,
                Page::Accepting(report) => accepting::render(report, &options, &mut lines)?,
            }
            out.write_all(lines.as_bytes())?;
        }
    }
    Ok(out.flush()?)
}

/// Prints a report on stdout.
///
/// # Errors
/// If stdout fails.
pub(super) fn print(page: &Page, format: Format) -> Result<()> {
    let stdout = io::stdout();
    let to_terminal = stdout.is_terminal();
    write(
        page,
        format,
        to_terminal,
        &mut io::BufWriter::new(stdout.lock()),
    )
    .context("cannot write the report")
}
