//! `whoclosed report`

use std::fs::File;
use std::io::BufWriter;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::judged;
use crate::cli::Report;

pub(super) fn run(arguments: &Report) -> Result<ExitCode> {
    let mut failed = false;
    let mut reports = Vec::new();
    for trace in &arguments.traces {
        let report = judged::judge(trace)?.report;
        failed |= report
            .incidents
            .iter()
            .any(|incident| arguments.fail_on.contains(&incident.cause));
        reports.push(report);
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
