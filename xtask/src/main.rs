//! whoclosed's development commands, called as `cargo xtask VERB`.
//!
//! This file parses and dispatches; each verb has a file of its own. Every verb sets
//! up what it needs first, so each works alone on a fresh machine.

mod apt;
mod bench_log;
mod build;
mod compiler;
mod cross;
mod demo;
mod foreign;
mod fuzz;
mod kernels;
mod lab;
mod layouts;
mod linker;
mod machine;
mod nginx;
mod servers;
mod setup;
mod step;
mod test;
mod tidy;
mod toolchain;
mod transcript;
mod unpacked;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser, Debug)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Find or install what building and testing need
    Setup(setup::Options),
    /// Build the kernel programs and the agent that embeds them
    Build(build::Options),
    /// Build, then run every test; the end-to-end tests need root
    Test(test::Options),
    /// Build, then capture a real nginx before backends that misbehave; needs root
    Demo(demo::Options),
    /// Build, then cause failures on purpose and score every verdict; needs root
    Lab(lab::Options),
    /// Write what other kernels' types are like, for the unit tests
    Layouts(layouts::Options),
    /// Build, then boot other kernels and run the lab's scenarios on each
    Kernels(kernels::Options),
    /// Measure how fast the error log is read, beside `grep -c`
    BenchLog(bench_log::Options),
    /// Look for lines of the error log that break its grammar, with cargo-fuzz
    Fuzz(fuzz::Options),
    /// Check what clippy cannot: headers, lints, comments, README transcripts
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Setup(options) => setup::verb(&options),
        Verb::Build(options) => build::verb(&options),
        Verb::Test(options) => test::verb(&options),
        Verb::Demo(options) => demo::verb(&options),
        Verb::Lab(options) => lab::verb(&options),
        Verb::Layouts(options) => layouts::verb(&options),
        Verb::Kernels(options) => kernels::verb(&options),
        Verb::BenchLog(options) => bench_log::verb(&options),
        Verb::Fuzz(options) => fuzz::verb(&options),
        Verb::Tidy => tidy::verb(),
    };
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {error:#}");
    ExitCode::from(
        error
            .downcast_ref::<step::Failed>()
            .map_or(1, step::Failed::code),
    )
}
