//! `whoclosed capture`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::judged::{self, Page};
use crate::capture::accepting;
use crate::capture::{self, Request};
use crate::cli::{Arguments, Capture, Role};

pub(super) fn run(arguments: &Capture) -> Result<ExitCode> {
    if let Err(problem) = arguments.check() {
        let mut command = Arguments::command();
        command.error(ErrorKind::ArgumentConflict, problem).exit();
    }
    let output = arguments.output.clone().unwrap_or_else(default_output);
    if arguments.role == Role::Backend {
        return of_a_backends_host(arguments, output);
    }
    capture::run(&Request {
        duration: arguments.duration,
        output: output.clone(),
        force: arguments.force,
        error_logs: arguments.error_log.clone(),
        names: arguments.nginx_names(),
        nginx: arguments.nginx,
        no_local_backends: arguments.no_local_backends,
        no_uprobe: arguments.no_uprobe,
        withheld: capture::Withheld {
            io_tracepoints: arguments.no_io_tracepoints,
            fentry: arguments.no_fentry,
            uprobe_links: arguments.no_uprobe_links,
        },
        ring_bytes: arguments.ring_bytes,
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
    accepting::run(&accepting::Request {
        duration: arguments.duration,
        output: output.clone(),
        force: arguments.force,
        asked: accepting::Asked {
            ports: arguments.port.iter().copied().collect(),
            names: arguments.process_name.clone(),
        },
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

fn default_output() -> PathBuf {
    let now = jiff::Zoned::now();
    PathBuf::from(format!("whoclosed-{}.trace", now.strftime("%Y%m%d-%H%M%S")))
}
