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
use lab::real::section::HEADING;
use lab::scenarios::ALL;
use lab::score::page::{Page, Version};
use lab::score::{Score, section, without_uprobe};

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
        let old = fs::read_to_string(file).unwrap_or_default();
        fs::write(file, page(arguments, versions, &old)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("wrote {}", file.display());
    }
    Ok(total.holds())
}

/// The page about the accuracy; what other kinds of runs wrote there stays.
fn page(arguments: &Arguments, versions: Vec<Version>, old: &str) -> Result<String> {
    let seeds = arguments.seeds()?.to_string();
    if arguments.no_uprobe {
        let text = without_uprobe::text(&versions, &seeds, &arguments.command());
        return Ok(section::replaced(old, without_uprobe::HEADING, &text));
    }
    let page = Page {
        versions,
        seeds,
        command: arguments.command(),
        notes: arguments.notes()?,
    };
    let others = [HEADING, without_uprobe::HEADING];
    let others = others.map(|heading| section::of(old, heading).unwrap_or_default());
    Ok(page.text()? + &others.concat())
}
