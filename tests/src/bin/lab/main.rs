//! `whoclosed-lab`: makes every failure on purpose and scores what the command says of
//! it. `cargo xtask lab` builds both and runs this.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use lab::experiment;
use lab::scenario::Scenario;
use lab::scenarios::ALL;
use lab::score::Score;

/// Causes failures through a real nginx and scores every verdict against the truth.
#[derive(Debug, Parser)]
#[command(name = "whoclosed-lab")]
struct Arguments {
    /// Scenarios to run [default: all]
    scenarios: Vec<String>,
    /// Where all parameters are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run those that can share an nginx at once, on one
    #[arg(long)]
    mixed: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// List the scenarios and run none
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("whoclosed-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        for scenario in ALL {
            println!("{:<20} {}", scenario.name, scenario.description);
        }
        return Ok(true);
    }
    let mut runs: Vec<(String, Vec<Scenario>)> = Vec::new();
    let (together, single): (Vec<_>, Vec<_>) = chosen(&arguments.scenarios)?
        .into_iter()
        .partition(|scenario| arguments.mixed && !scenario.alone);
    if !together.is_empty() {
        runs.push(("mixed".to_owned(), together));
    }
    runs.extend(
        single
            .into_iter()
            .map(|one| (one.name.to_owned(), vec![one])),
    );
    let mut total = Score::default();
    for (name, scenarios) in runs {
        eprintln!("{name}, seed {}", arguments.seed);
        let score = experiment::run(&scenarios, arguments.seed)
            .with_context(|| format!("the run of {name} failed"))?;
        total.add(&name, score);
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&total)?);
    } else {
        print!("{total}");
        let verdict = if total.holds() {
            "nothing wrong"
        } else {
            "WRONG"
        };
        println!("seed {}: {verdict}", arguments.seed);
    }
    Ok(total.holds())
}

fn chosen(names: &[String]) -> Result<Vec<Scenario>> {
    if names.is_empty() {
        return Ok(ALL.to_vec());
    }
    names
        .iter()
        .map(
            |name| match ALL.iter().find(|scenario| scenario.name == *name) {
                Some(scenario) => Ok(*scenario),
                None => bail!("no scenario {name:?}; --list names them"),
            },
        )
        .collect()
}
