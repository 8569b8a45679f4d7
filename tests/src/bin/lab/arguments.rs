//! The lab's command line.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::Parser;
use lab::nginx;
use lab::scenario::Scenario;
use lab::scenarios::ALL;

/// Causes failures through a real nginx and scores every verdict against the truth.
#[derive(Debug, Parser)]
#[command(name = "whoclosed-lab")]
pub(crate) struct Arguments {
    /// Scenarios to run [default: all]
    pub(crate) scenarios: Vec<String>,
    /// Where all parameters are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Every seed from the first to the last, summed up
    #[arg(long, value_name = "FIRST..LAST", conflicts_with = "seed")]
    seeds: Option<Seeds>,
    /// Run those that can share an nginx at once, on one, with good traffic beside
    #[arg(long)]
    pub(crate) mixed: bool,
    /// Run what is mixed so many times with each seed, each time with other parameters
    #[arg(long, value_name = "TIMES", default_value_t = 1)]
    pub(crate) repeat: u32,
    /// Good traffic beside scenarios that run singly, too
    #[arg(long)]
    pub(crate) traffic: bool,
    /// Binary of the nginx to run; may be repeated [default: WHOCLOSED_NGINX]
    #[arg(long, value_name = "FILE")]
    nginx: Vec<PathBuf>,
    /// Captures attach nothing to nginx's binary: lines are matched by their order
    #[arg(long, conflicts_with_all = ["real", "fixtures"])]
    pub(crate) no_uprobe: bool,
    /// Captures do without the tracepoints of sends and receives
    #[arg(long, conflicts_with_all = ["real", "fixtures", "write"])]
    pub(crate) no_io_tracepoints: bool,
    /// Captures do without the ends of the kernel's functions
    #[arg(long, conflicts_with_all = ["real", "fixtures", "write"])]
    pub(crate) no_fentry: bool,
    /// Busy senders beside, which have nothing to do with nginx; the kernel may then skip
    /// runs of the programs
    #[arg(long, value_name = "N", conflicts_with_all = ["real", "fixtures", "write"])]
    pub(crate) crowd: Option<u32>,
    /// Runs of the programs that the kernel skipped are told and no failure
    #[arg(long, conflicts_with_all = ["real", "fixtures", "write"])]
    pub(crate) runs_may_be_missed: bool,
    /// Captures miss so many of a hundred sends and receives, as they may on a busy host
    #[arg(long, value_name = "PERCENT", default_value_t = 0, conflicts_with_all = ["real", "fixtures", "write"])]
    pub(crate) miss_calls: u32,
    /// Worker processes of nginx, where a scenario does not need a number of its own
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<u16>,
    /// Keep what each run left, its trace and what really happened, below this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) save: Option<PathBuf>,
    /// Record each scenario as a fixture below this folder, anew
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["mixed", "seeds", "traffic"])]
    pub(crate) fixtures: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the page about the accuracy to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// File with what the page says about numbers that were not reached
    #[arg(long, value_name = "FILE", requires = "write")]
    notes: Option<PathBuf>,
    /// How the page says that it was made
    #[arg(long, value_name = "TEXT", requires = "write")]
    command: Option<String>,
    /// Real servers instead, all at once; names are theirs
    #[arg(long, conflicts_with_all = ["mixed", "traffic", "seeds"])]
    pub(crate) real: bool,
    /// List the scenarios and run none
    #[arg(long)]
    pub(crate) list: bool,
}

impl Arguments {
    pub(crate) fn seeds(&self) -> Result<Seeds> {
        let seeds = self.seeds.unwrap_or(Seeds {
            first: self.seed,
            last: self.seed,
        });
        if seeds.first > seeds.last {
            bail!("the seeds {seeds} are none");
        }
        Ok(seeds)
    }

    pub(crate) fn nginx(&self) -> Result<Vec<PathBuf>> {
        if self.nginx.is_empty() {
            return Ok(vec![nginx::binary()?]);
        }
        Ok(self.nginx.clone())
    }

    /// The scenarios, in the order of the list where none is named.
    pub(crate) fn chosen(&self) -> Result<Vec<Scenario>> {
        if self.scenarios.is_empty() {
            return Ok(ALL.to_vec());
        }
        self.scenarios
            .iter()
            .map(|name| {
                let found = ALL.iter().find(|scenario| scenario.name == *name).copied();
                found.with_context(|| format!("no scenario {name:?}; --list names them"))
            })
            .collect()
    }

    pub(crate) fn command(&self) -> String {
        match &self.command {
            Some(command) => command.clone(),
            None => std::env::args().collect::<Vec<_>>().join(" "),
        }
    }

    pub(crate) fn notes(&self) -> Result<String> {
        match &self.notes {
            Some(file) => {
                fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
            }
            None => Ok(String::new()),
        }
    }
}

/// Seeds in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeds {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl FromStr for Seeds {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (first, last) = text
            .split_once("..")
            .context("seeds are given as FIRST..LAST")?;
        Ok(Self {
            first: first.parse()?,
            last: last.parse()?,
        })
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}..{}", self.first, self.last)
        }
    }
}
