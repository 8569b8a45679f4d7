//! `whoclosed capture`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::judged;
use crate::capture::{self, Request};
use crate::cli::Capture;

pub(super) fn run(arguments: &Capture) -> Result<ExitCode> {
    let output = arguments.output.clone().unwrap_or_else(default_output);
    capture::run(&Request {
        duration: arguments.duration,
        output: output.clone(),
        force: arguments.force,
        error_logs: arguments.error_log.clone(),
        names: arguments.process_name.clone(),
        nginx: arguments.nginx,
        no_uprobe: arguments.no_uprobe,
        quiet: arguments.quiet,
        diagnostics: arguments.log,
    })?;
    let judged = judged::judge(&output).context("the capture is over, but not its report")?;
    let printed = judged::print(&judged.report, arguments.format);
    if !arguments.quiet {
        let path = output.display();
        crate::stderr::line(format_args!(
            "\nTrace: {path}\nThis report again: whoclosed report {path}"
        ));
        if !judged.report.incidents.is_empty() {
            crate::stderr::line(format_args!(
                "One incident, event by event: whoclosed show {path} NUMBER"
            ));
        }
    }
    printed?;
    Ok(ExitCode::SUCCESS)
}

fn default_output() -> PathBuf {
    let now = jiff::Zoned::now();
    PathBuf::from(format!("whoclosed-{}.trace", now.strftime("%Y%m%d-%H%M%S")))
}
