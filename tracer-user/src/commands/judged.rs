//! A trace file, judged, and how reports are printed.

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::cli::Format;
use crate::judge::{Judge, Judged};
use crate::report::model::Report;
use crate::report::text::TextOptions;
use crate::report::{json, text};
use crate::trace::reader::Trace;

/// Columns of a report that goes to no terminal.
const WIDTH: u16 = 100;

/// Reads and judges a trace.
///
/// # Errors
/// If it is no trace or cannot be read.
pub(super) fn judge(path: &Path) -> Result<Judged> {
    let mut trace = Trace::open(path)?;
    let mut judge = Judge::default();
    for record in &mut trace {
        judge.push(&record?);
    }
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
    let mut judged = judge.finish(notes);
    judged.report.capture.complete &= whole;
    Ok(judged)
}

/// How text goes to this output.
pub(super) fn text_options(to_terminal: bool) -> TextOptions {
    let colour =
        to_terminal && anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
    TextOptions {
        colour,
        width: WIDTH,
    }
}

/// Writes a report.
///
/// # Errors
/// If the output fails.
pub(super) fn write(
    report: &Report,
    format: Format,
    to_terminal: bool,
    out: &mut impl Write,
) -> Result<()> {
    match format {
        Format::Json => {
            json::render(report, true, out)?;
            writeln!(out)?;
        }
        Format::Text => {
            let mut page = String::new();
            text::render(report, &text_options(to_terminal), &mut page)?;
            out.write_all(page.as_bytes())?;
        }
    }
    out.flush().context("cannot write the report")
}

/// Prints a report on stdout.
///
/// # Errors
/// If stdout fails.
pub(super) fn print(report: &Report, format: Format) -> Result<()> {
    let stdout = io::stdout();
    let to_terminal = stdout.is_terminal();
    write(
        report,
        format,
        to_terminal,
        &mut io::BufWriter::new(stdout.lock()),
    )
}
