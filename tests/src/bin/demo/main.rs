//! `whoclosed-demo`: a real nginx before backends that misbehave, and the real
//! command beside it, which says who closed what and why. `cargo xtask demo` builds
//! both and runs this.

mod attached;
mod check;
mod scene;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use attached::Ended;
use scene::Scene;

/// How long the command captures.
const DURATION: Duration = Duration::from_secs(15);
/// How long faults are made: what happens must also end, and be logged, in time.
const LOAD: Duration = Duration::from_secs(11);

/// Shows whoclosed on a real nginx whose backends misbehave on purpose.
#[derive(Debug, Parser)]
#[command(name = "whoclosed-demo")]
struct Arguments {
    /// Where to leave the trace [default: target/demo/demo.trace, replaced each time]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Compare every verdict with what the backends recorded; fail unless all are right
    #[arg(long)]
    check: bool,
    /// Runs of the programs that the kernel skipped are told and no failure
    #[arg(long, requires = "check")]
    runs_may_be_missed: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("whoclosed-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let tool = lab::tool::binary()?;
    let interrupted = attached::Interrupted::watch()?;
    let (output, replace) = match &arguments.output {
        Some(output) => (output.clone(), false),
        None => (PathBuf::from("target/demo/demo.trace"), true),
    };
    if let Some(folder) = output
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let scene = Scene::start()?;
    eprintln!("{scene}");
    let mut command = lab::processes::bound_to_us(&tool);
    command
        .arg("capture")
        .arg("--duration")
        .arg(format!("{}s", DURATION.as_secs()));
    command
        .arg("--nginx")
        .arg(scene.nginx().master_pid().to_string());
    command.arg("--output").arg(&output);
    if replace {
        command.arg("--force");
    }
    if arguments.check {
        command.args(["--format", "json"]);
    }
    let bell = scene::Bell::default();
    let ended = std::thread::scope(|scope| {
        let mut load = None;
        let ended = attached::run(&mut command, arguments.check, &interrupted, || {
            load = Some(scope.spawn(|| scene.play(LOAD, &bell)));
        });
        // A capture that ended early needs no more faults.
        bell.ring();
        let played = load.map(std::thread::ScopedJoinHandle::join);
        ended.map(|ended| (ended, played))
    });
    let (
        Ended {
            status,
            stdout,
            interrupted,
        },
        played,
    ) = ended?;
    if !status.success() {
        anyhow::bail!("the capture failed ({status})");
    }
    let right = match played {
        Some(Ok(truth)) if arguments.check && !interrupted => {
            check::check(&scene, &truth?, &stdout, arguments.runs_may_be_missed)?
        }
        Some(Err(_)) => anyhow::bail!("a part of the demo panicked"),
        None => anyhow::bail!("the capture ended before it said that it captures"),
        Some(Ok(truth)) => truth.map(|_| true)?,
    };
    let (tool, trace) = (tool.display(), output.display());
    eprintln!("\nThe trace is {trace}; it needs neither nginx nor root to be looked at again:");
    eprintln!("  {tool} report {trace}");
    eprintln!("  {tool} show {trace} 1");
    eprintln!("  {tool} report {trace} --format json");
    Ok(right)
}
