//! `whoclosed doctor`

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::judged;
use crate::capture::Withheld;
use crate::capture::accepting::Asked;
use crate::capture::rehearsal::Request;
use crate::cli::{Arguments, Doctor, DoctorFormat, Role, nginx_names};
use crate::doctor::{Diagnosis, look, text};
use crate::report::json;
use crate::trace::record;

pub(super) fn run(arguments: &Doctor) -> Result<ExitCode> {
    if let Err(problem) = arguments.check() {
        let mut command = Arguments::command();
        command.error(ErrorKind::ArgumentConflict, problem).exit();
    }
    let role = match arguments.role {
        Role::Nginx => record::Role::Nginx,
        Role::Backend => record::Role::Backend,
    };
    let diagnosis = Diagnosis::of(look::look(&Request {
        role,
        error_logs: arguments.error_log.clone(),
        names: nginx_names(&arguments.process_name),
        nginx: arguments.nginx,
        asked: Asked {
            ports: arguments.port.iter().copied().collect(),
            names: arguments.process_name.clone(),
        },
        withheld: Withheld {
            io_tracepoints: arguments.no_io_tracepoints,
            fentry: arguments.no_fentry,
            uprobe_links: arguments.no_uprobe_links,
        },
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
