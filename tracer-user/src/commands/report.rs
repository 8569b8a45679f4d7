//! `whoclosed report`

use std::fs::File;
use std::io::BufWriter;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::judged::{self, Page};
use crate::cli::Report;
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
