//! The verbs: each reads its arguments, does its work through the library and prints.

mod capture;
mod doctor;
mod judged;
mod report;
mod show;

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::Verb;

/// Runs a verb.
///
/// # Errors
/// What the user has to be told; the caller prints it.
pub fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Capture(arguments) => capture::run(&arguments),
        Verb::Report(arguments) => report::run(&arguments),
        Verb::Doctor(arguments) => doctor::run(&arguments),
        Verb::Show(arguments) => show::run(&arguments),
    }
}
