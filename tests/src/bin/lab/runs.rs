//! Which runs the arguments ask for, one after the other.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use lab::experiment::{self, Setting};
use lab::scenario::Scenario;
use lab::score::Score;
use lab::tool;

use crate::arguments::Arguments;

/// All runs with this nginx, added up. A run that comes to no end fails the whole, but
/// the others still have their say.
pub(crate) fn all(arguments: &Arguments, nginx: &Path, version: &str) -> Result<Score> {
    let (together, single): (Vec<Scenario>, Vec<Scenario>) = arguments
        .chosen()?
        .into_iter()
        .partition(|scenario| arguments.mixed && !scenario.alone);
    let mut total = Score::default();
    let seeds = arguments.seeds()?;
    for seed in seeds.first..=seeds.last {
        let setting = |round, name: &str, traffic| {
            let save = arguments.save.as_ref();
            Setting {
                nginx: nginx.to_owned(),
                seed,
                round,
                traffic,
                no_uprobe: arguments.no_uprobe,
                no_io_tracepoints: arguments.no_io_tracepoints,
                no_fentry: arguments.no_fentry,
                crowd: arguments.crowd,
                runs_may_be_missed: arguments.runs_may_be_missed,
                miss_calls: arguments.miss_calls,
                workers: arguments.workers,
                save: save.map(|folder| folder.join(format!("{version}-{seed}-{name}-{round}"))),
                fixtures: arguments.fixtures.clone(),
            }
        };
        for round in 0..arguments.repeat {
            if !together.is_empty() {
                one(
                    &mut total,
                    "mixed",
                    version,
                    &together,
                    &setting(round, "mixed", true),
                );
            }
        }
        for scenario in &single {
            let traffic = arguments.traffic && !scenario.alone;
            let setting = setting(0, scenario.name, traffic);
            one(&mut total, scenario.name, version, &[*scenario], &setting);
        }
    }
    Ok(total)
}

fn one(total: &mut Score, name: &str, version: &str, scenarios: &[Scenario], setting: &Setting) {
    let round = match setting.round {
        0 => String::new(),
        round => format!(" again ({round})"),
    };
    let name = format!("{name}, seed {}{round}", setting.seed);
    eprint!("nginx {version}, {name}: ");
    let began = Instant::now();
    let score = experiment::run(scenarios, setting)
        .unwrap_or_else(|error| Score::broken(&format!("{error:#}")));
    let lines: usize = score.causes.values().map(|row| row.lines).sum();
    let right: usize = score.causes.values().map(|row| row.right_cause).sum();
    eprintln!(
        "{right} of {lines} causes right, {:.1} s{}",
        began.elapsed().as_secs_f64(),
        if score.holds() { "" } else { ", WRONG" }
    );
    total.add(&name, score);
}

/// `1.22.1`, as the binary says.
pub(crate) fn version(nginx: &Path) -> Result<String> {
    let said = tool::finish(Command::new(nginx).arg("-v"))?.succeeded()?;
    let version = said.stderr.trim().rsplit('/').next().unwrap_or_default();
    let version = version.split_whitespace().next();
    version
        .map(str::to_owned)
        .with_context(|| format!("{} -v names no version", nginx.display()))
}
