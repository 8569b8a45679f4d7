//! `whoclosed-lab`: makes every failure on purpose and scores what the command says of
//! it. `cargo xtask lab` builds both and runs this.

mod arguments;
mod real;
mod runs;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use arguments::Arguments;
use clap::Parser;
use lab::real::section;
use lab::scenarios::ALL;
use lab::score::Score;
use lab::score::page::{Page, Version};

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
    if arguments.real {
        return real::run(arguments);
    }
    if arguments.list {
        for scenario in ALL {
            println!("{:<24} {}", scenario.name, scenario.description);
        }
        return Ok(true);
    }
    let mut total = Score::default();
    let mut versions = Vec::new();
    for nginx in arguments.nginx()? {
        let version = runs::version(&nginx)?;
        let score = runs::all(arguments, &nginx, &version)?;
        total.add(&version, score.clone());
        versions.push(Version { version, score });
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
        println!("seed {}: {verdict}", arguments.seeds()?);
    }
    if let Some(file) = &arguments.write {
        let page = Page {
            versions,
            seeds: arguments.seeds()?.to_string(),
            command: arguments.command(),
            notes: arguments.notes()?,
        };
        // What `--real` wrote there stays.
        let old = fs::read_to_string(file).unwrap_or_default();
        let text = page.text()? + section::of(&old).unwrap_or_default();
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("wrote {}", file.display());
    }
    Ok(total.holds())
}
