//! `--real`: real servers, and what the tool infers of them.

use std::fs;

use anyhow::{Context, Result, bail};
use lab::real::section::HEADING;
use lab::real::{self, Outcome, REAL, Server};
use lab::score::section;

use crate::arguments::Arguments;
use crate::runs;

pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        for server in REAL {
            println!("{:<24} {}", server.name, server.description);
        }
        return Ok(true);
    }
    let servers = chosen(&arguments.scenarios)?;
    let seeds = arguments.seeds()?;
    let mut outcomes: Vec<(String, Outcome)> = Vec::new();
    for nginx in arguments.nginx()? {
        let version = runs::version(&nginx)?;
        eprintln!("nginx {version}, real servers, seed {seeds}");
        let save = arguments.save.as_ref();
        let save = save.map(|folder| folder.join(format!("{version}-{seeds}-real-0")));
        let outcome = real::run(&servers, &nginx, seeds.first, save)?;
        outcomes.push((version, outcome));
    }
    let holds = outcomes.iter().all(|(_, outcome)| outcome.holds());
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&outcomes)?);
    } else {
        for (version, outcome) in &outcomes {
            print!("nginx {version}\n\n{}\n{}", outcome.table(), outcome.score);
        }
        let verdict = if holds { "nothing wrong" } else { "WRONG" };
        println!("real servers, seed {seeds}: {verdict}");
    }
    if let Some(file) = &arguments.write {
        let page = fs::read_to_string(file).unwrap_or_default();
        let text = real::section::text(&outcomes, &arguments.command());
        fs::write(file, section::replaced(&page, HEADING, &text))
            .with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("wrote {}", file.display());
    }
    Ok(holds)
}

fn chosen(names: &[String]) -> Result<Vec<Server>> {
    if names.is_empty() {
        return Ok(REAL.to_vec());
    }
    names
        .iter()
        .map(
            |name| match REAL.iter().find(|server| server.name == *name) {
                Some(server) => Ok(*server),
                None => bail!("no server {name:?}; --real --list names them"),
            },
        )
        .collect()
}
