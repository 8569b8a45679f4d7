//! `whoclosed report`

use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::judged::{self, Page};
use crate::cli::{Report, misused};
use crate::trace::record::Role;

pub(super) fn run(arguments: &Report) -> Result<ExitCode> {
    let mut failed = false;
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
        return Err(misused("report", problem).into());
    }
    if let Some(path) = &arguments.output
        && let Some(trace) = (arguments.traces.iter()).find(|trace| are_one_file(trace, path))
    {
        let problem = format!(
            "the report would replace the trace {}: give another --output",
            trace.display()
        );
        return Err(misused("report", problem).into());
    }
    let mut reports = Vec::new();
    if of_nginx.is_empty() {
        for trace in &of_backends {
            reports.push(Page::Accepting(Box::new(judged::accepting(trace)?)));
        }
    }
    let backends = judged::backends(if of_nginx.is_empty() {
        &[]
    } else {
        &of_backends
    })?;
    for trace in of_nginx {
        let report = judged::judge(trace, &backends)?.report;
        failed |= report
            .incidents
            .iter()
            .any(|incident| arguments.fail_on.contains(&incident.cause));
        reports.push(Page::Nginx(Box::new(report)));
    }
    match &arguments.output {
        Some(path) => {
            let file =
                File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
            let mut file = BufWriter::new(file);
            for report in &reports {
                judged::write(report, arguments.format, false, &mut file)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        None => {
            for report in &reports {
                judged::print(report, arguments.format)?;
            }
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Both paths lead to one file that exists.
fn are_one_file(one: &Path, other: &Path) -> bool {
    let place = |path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    place(one).is_some_and(|found| place(other) == Some(found))
}
