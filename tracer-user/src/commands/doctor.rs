//! `whoclosed doctor`

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::judged;
use crate::capture::rehearsal::Request;
use crate::cli::{Doctor, DoctorFormat, Role, misused};
use crate::doctor::{Diagnosis, look, text};
use crate::report::json;
use crate::trace::record;

pub(super) fn run(arguments: &Doctor) -> Result<ExitCode> {
    arguments
        .check()
        .map_err(|problem| misused("doctor", problem))?;
    let watched = &arguments.watched;
    let role = match watched.role {
        Role::Nginx => record::Role::Nginx,
        Role::Backend => record::Role::Backend,
    };
    let diagnosis = Diagnosis::of(look::look(&Request {
        role,
        error_logs: watched.error_log.clone(),
        names: watched.nginx_names(),
        nginx: watched.nginx,
        asked: watched.asked(),
        withheld: watched.withheld(),
    }));
    print(&diagnosis, arguments.format).context("cannot write the diagnosis")?;
    Ok(if diagnosis.full {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(diagnosis: &Diagnosis, format: DoctorFormat) -> Result<()> {
    let stdout = io::stdout();
    let to_terminal = stdout.is_terminal();
    let mut out = stdout.lock();
    match format {
        DoctorFormat::Json => json::render(diagnosis, true, &mut out)?,
        DoctorFormat::Text => {
            let mut lines = String::new();
            text::render(diagnosis, &judged::text_options(to_terminal), &mut lines)?;
            out.write_all(lines.as_bytes())?;
        }
    }
    Ok(out.flush()?)
}
