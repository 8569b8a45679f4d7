//! The command `whoclosed`: parses, dispatches, and prints errors in one place.

use std::io;
use std::process::ExitCode;

use clap::Parser as _;
use tracer_user::{cli, commands, stderr};

fn main() -> ExitCode {
    match commands::run(cli::Arguments::parse().verb) {
        Ok(status) => status,
        // The reader of our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(misused) = error.downcast_ref::<clap::Error>() {
                misused.exit();
            }
            stderr::line(format_args!("whoclosed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
