//! `whoclosed show`

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::judged;
use crate::cli::{Show, misused};
use crate::report::timeline;
use crate::trace::record::Role;

pub(super) fn run(arguments: &Show) -> Result<ExitCode> {
    arguments
        .check()
        .map_err(|problem| misused("show", problem))?;
    if judged::role(&arguments.trace)? == Role::Backend {
        bail!(
            "{} was captured with --role backend and has no incidents: give the trace of nginx's \
             host, and this one with --backend",
            arguments.trace.display()
        );
    }
    let judged = judged::judge(&arguments.trace, &judged::backends(&arguments.backend)?)?;
    let incidents = judged.report.incidents.len();
    let found = arguments
        .incident
        .checked_sub(1)
        .and_then(|index| usize::try_from(index).ok())
        .and_then(|index| {
            judged
                .report
                .incidents
                .get(index)
                .zip(judged.details.get(index))
        });
    let (incident, details) = found.with_context(|| match incidents {
        0 => "this trace has no incidents".to_owned(),
        _ => format!(
            "there is no incident {}: they are 1 to {incidents}",
            arguments.incident
        ),
    })?;
    let events = details
        .connection
        .as_ref()
        .map_or_else(Vec::new, |connection| {
            timeline::events_of(
                connection,
                details.logged.as_ref(),
                details.continuation.as_ref(),
                details.peer_close.as_ref(),
            )
        });
    let mut page = String::new();
    let stdout = io::stdout();
    timeline::render(
        incident,
        &events,
        &judged::text_options(stdout.is_terminal()),
        &mut page,
    )?;
    let mut out = stdout.lock();
    out.write_all(page.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot write the timeline")?;
    Ok(ExitCode::SUCCESS)
}
