//! `whoclosed capture`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::judged::{self, Page};
use crate::capture::accepting;
use crate::capture::{self, Request};
use crate::cli::{Capture, Role, misused};

pub(super) fn run(arguments: &Capture) -> Result<ExitCode> {
    arguments
        .check()
        .map_err(|problem| misused("capture", problem))?;
    let watched = &arguments.watched;
    let output = arguments.output.clone().unwrap_or_else(default_output);
    if watched.role == Role::Backend {
        return of_a_backends_host(arguments, output);
    }
    capture::run(&Request {
        duration: arguments.duration,
        output: output.clone(),
        force: arguments.force,
        error_logs: watched.error_log.clone(),
        names: watched.nginx_names(),
        nginx: watched.nginx,
        no_local_backends: arguments.no_local_backends,
        no_uprobe: arguments.no_uprobe,
        withheld: capture::Withheld {
            calls: arguments.miss_calls,
            ..watched.withheld()
        },
        ring_bytes: arguments.ring_bytes,
        twins_at_once: arguments.twins,
        quiet: arguments.quiet,
        diagnostics: arguments.log,
    })?;
    let judged = judged::judge(&output, &[]).context("the capture is over, but not its report")?;
    let incidents = judged.report.incidents.len();
    let page = Page::Nginx(Box::new(judged.report));
    let printed = judged::print(&page, arguments.format);
    if !arguments.quiet {
        let path = output.display();
        crate::stderr::line(format_args!(
            "\nTrace: {path}\nThis report again: whoclosed report {path}"
        ));
        if incidents > 0 {
            crate::stderr::line(format_args!(
                "One incident, event by event: whoclosed show {path} NUMBER"
            ));
        }
    }
    printed?;
    Ok(ExitCode::SUCCESS)
}

fn of_a_backends_host(arguments: &Capture, output: PathBuf) -> Result<ExitCode> {
    let asked = arguments.watched.asked();
    if asked.is_empty() {
        return Err(misused("capture", nothing_asked()).into());
    }
    accepting::run(&accepting::Request {
        duration: arguments.duration,
        output: output.clone(),
        force: arguments.force,
        asked,
        ring_bytes: arguments.ring_bytes,
        quiet: arguments.quiet,
        diagnostics: arguments.log,
    })?;
    let report = judged::accepting(&output).context("the capture is over, but not its report")?;
    let page = Page::Accepting(Box::new(report));
    let printed = judged::print(&page, arguments.format);
    if !arguments.quiet {
        let path = output.display();
        crate::stderr::line(format_args!(
            "\nTrace: {path}\nTogether with the trace of nginx's host: whoclosed report \
             NGINX.trace {path}"
        ));
    }
    printed?;
    Ok(ExitCode::SUCCESS)
}

/// That it has to be said whose connections are meant, and what there is to choose from,
/// if that can be seen.
fn nothing_asked() -> String {
    let mut problem = "--role backend needs to know whose connections to record: give --port PORT \
                       or --process-name NAME"
        .to_owned();
    if let Ok(listening) = accepting::listening(&accepting::Asked::default(), &mut Vec::new()) {
        problem.push_str(&format!("\nlistening here: {listening}"));
    }
    problem
}

fn default_output() -> PathBuf {
    let now = jiff::Zoned::now();
    PathBuf::from(format!("whoclosed-{}.trace", now.strftime("%Y%m%d-%H%M%S")))
}
