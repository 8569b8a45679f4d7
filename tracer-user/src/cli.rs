//! The command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use tracer_ebpf::settings::{NAME_BYTES, NAMES};

use crate::capture::Withheld;
use crate::capture::accepting::Asked;
use crate::nginx::processes::DEFAULT_NAMES;
use crate::report::model::Cause;

/// The longest capture: it is bounded by intention.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const SHORTEST: Duration = Duration::from_millis(100);

/// Says for every nginx upstream error line who closed the connection, how and why.
#[derive(Clone, Debug, Parser)]
#[command(name = "whoclosed", version, about, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What the command can do.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Watch this host's nginx for a while, write a trace, print the report (as root)
    Capture(Capture),
    /// Print the report of a trace, anywhere
    Report(Report),
    /// Print one incident's timeline, event by event
    Show(Show),
    /// Say what a capture on this host would tell, what not, and what to do about it
    Doctor(Doctor),
}

/// Form of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: schema whoclosed.report/1.
    Json,
}

/// Form of the doctor's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DoctorFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: schema whoclosed.doctor/1.
    Json,
}

/// Whose side of connections a capture watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// nginx's, on the host where it runs.
    #[default]
    Nginx,
    /// The accepting one, on a backend's host; `report` puts both traces together.
    Backend,
}

/// `whoclosed capture`
#[derive(Clone, Debug, clap::Args)]
pub struct Capture {
    /// How long to watch: 60s, 5m, 1h30m
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME",
          allow_hyphen_values = true)]
    pub duration: Duration,
    /// Trace file to write [default: whoclosed-DATE-TIME.trace in this directory]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the trace file if it exists
    #[arg(long)]
    pub force: bool,
    /// Whose connections.
    #[command(flatten)]
    pub watched: Watched,
    /// Do not look at the backends' side of connections where it is on this host
    #[arg(long)]
    pub no_local_backends: bool,
    /// Form of the report
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Attach nothing to nginx's binary: lines are matched to connections by their order
    #[arg(long)]
    pub no_uprobe: bool,
    /// For tests: miss so many of a hundred sends and receives, as the kernel may
    #[arg(long, hide = true, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(..=100))]
    pub miss_calls: u32,
    /// For tests: attach second programs at once, not when the kernel has skipped a first
    #[arg(long, hide = true)]
    pub twins: bool,
    /// Show no progress and no verdicts on the way
    #[arg(long, short)]
    pub quiet: bool,
    /// Bytes of the ring buffer: for tests that make it overflow
    #[arg(long, hide = true, value_name = "BYTES", value_parser = ring_bytes)]
    pub ring_bytes: Option<u32>,
    /// Show the kernel programs' own diagnostics
    #[arg(long)]
    pub log: bool,
}

impl Capture {
    /// What clap cannot see: options that do not go together.
    ///
    /// # Errors
    /// What does not fit, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        if self.output.as_deref().is_some_and(is_dash) {
            return Err(
                "a trace is no text and goes to a file: give --output a name; the report \
                        goes to stdout"
                    .to_owned(),
            );
        }
        self.watched.check(&[
            ("--no-uprobe", self.no_uprobe),
            ("--no-local-backends", self.no_local_backends),
            ("--miss-calls", self.miss_calls > 0),
        ])
    }
}

/// Whose connections a capture watches: the options that `capture` and `doctor` share.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Watched {
    /// Error log to follow instead of those that nginx writes; can be repeated
    #[arg(long, value_name = "PATH")]
    pub error_log: Vec<PathBuf>,
    /// Watch only this nginx: pid of its master or of one of its workers
    #[arg(long, value_name = "PID", value_parser = pid, allow_hyphen_values = true)]
    pub nginx: Option<u32>,
    /// Names of nginx processes to look for [default: nginx,openresty,angie,tengine]; with
    /// --role backend, names of the processes whose listening ports count
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub process_name: Vec<String>,
    /// Whose side of the connections to watch
    #[arg(long, value_enum, default_value_t)]
    pub role: Role,
    /// With --role backend: record connections accepted at this port; can be repeated
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = port)]
    pub port: Vec<u16>,
    /// For tests: do without the tracepoints of sends and receives
    #[arg(long, hide = true)]
    pub no_io_tracepoints: bool,
    /// For tests: do without the ends of the kernel's functions
    #[arg(long, hide = true)]
    pub no_fentry: bool,
    /// For tests: do without links of uprobes
    #[arg(long, hide = true)]
    pub no_uprobe_links: bool,
    /// For tests: do without a task's registers
    #[arg(long, hide = true)]
    pub no_task_registers: bool,
}

impl Watched {
    /// The names of nginx's processes.
    #[must_use]
    pub fn nginx_names(&self) -> Vec<String> {
        if self.process_name.is_empty() {
            DEFAULT_NAMES.map(str::to_owned).to_vec()
        } else {
            self.process_name.clone()
        }
    }

    /// The connections of a backend's host that are asked for.
    #[must_use]
    pub fn asked(&self) -> Asked {
        Asked {
            ports: self.port.iter().copied().collect(),
            names: self.process_name.clone(),
        }
    }

    /// Hooks to do without.
    #[must_use]
    pub const fn withheld(&self) -> Withheld {
        Withheld {
            io_tracepoints: self.no_io_tracepoints,
            fentry: self.no_fentry,
            uprobe_links: self.no_uprobe_links,
            task_registers: self.no_task_registers,
            calls: 0,
        }
    }

    /// Refuses options of the other role, and names that no process can have. `of_nginx`
    /// are options beside these that go with nginx's role only, and whether they are given.
    fn check(&self, of_nginx: &[(&str, bool)]) -> Result<(), String> {
        let shared = [
            ("--nginx", self.nginx.is_some()),
            ("--error-log", !self.error_log.is_empty()),
            ("--no-io-tracepoints", self.no_io_tracepoints),
            ("--no-fentry", self.no_fentry),
            ("--no-uprobe-links", self.no_uprobe_links),
        ];
        let (of_the_other, other) = match self.role {
            Role::Nginx => (vec![("--port", !self.port.is_empty())], "--role backend"),
            Role::Backend => ([&shared, of_nginx].concat(), "--role nginx"),
        };
        if let Some((option, _)) = of_the_other.iter().find(|(_, given)| *given) {
            return Err(format!("{option} goes with {other} only"));
        }
        if self.process_name.iter().any(String::is_empty) {
            return Err("--process-name needs a name".to_owned());
        }
        if self.role == Role::Backend {
            return Ok(());
        }
        // The kernel programs compare the kernel's own names of processes.
        if let Some(long) = (self.process_name.iter()).find(|name| name.len() >= NAME_BYTES) {
            let known = String::from_utf8_lossy(&long.as_bytes()[..NAME_BYTES - 1]);
            return Err(format!(
                "no process has the name {long:?}: the kernel keeps the first {} bytes only; give \
                 {known:?}",
                NAME_BYTES - 1,
            ));
        }
        if self.process_name.len() > NAMES {
            return Err(format!("--process-name takes up to {NAMES} names"));
        }
        Ok(())
    }
}

/// `whoclosed doctor`
#[derive(Clone, Debug, clap::Args)]
pub struct Doctor {
    /// Whose connections the capture would watch.
    #[command(flatten)]
    pub watched: Watched,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t)]
    pub format: DoctorFormat,
}

impl Doctor {
    /// As [`Capture::check`].
    ///
    /// # Errors
    /// What does not fit, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        self.watched.check(&[])
    }
}

/// An error of usage that clap cannot find itself, as clap prints its own of this verb.
#[must_use]
pub fn misused(verb: &str, problem: impl std::fmt::Display) -> clap::Error {
    let mut command = Arguments::command();
    command.build();
    match command.find_subcommand_mut(verb) {
        Some(verb) => verb.error(ErrorKind::ArgumentConflict, problem),
        None => command.error(ErrorKind::ArgumentConflict, problem),
    }
}

/// `whoclosed report`
#[derive(Clone, Debug, clap::Args)]
pub struct Report {
    /// Traces that captures wrote; each of an nginx gets a report of its own, joined with
    /// those of backends' hosts that are given
    #[arg(required = true, value_name = "TRACE")]
    pub traces: Vec<PathBuf>,
    /// Form of the report
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// File to write it to instead of the terminal; - is stdout
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace that file if it exists
    #[arg(long, requires = "output")]
    pub force: bool,
    /// Exit with status 1 if there is an incident of this cause; can be repeated
    #[arg(long, value_name = "CAUSE", value_parser = cause)]
    pub fail_on: Vec<Cause>,
}

impl Report {
    /// What clap cannot see.
    ///
    /// # Errors
    /// What does not fit, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        are_files(&self.traces)
    }
}

/// `whoclosed show`
#[derive(Clone, Debug, clap::Args)]
pub struct Show {
    /// Trace that a capture wrote
    #[arg(value_name = "TRACE")]
    pub trace: PathBuf,
    /// Trace of a backend's host to join with it, as for the report; can be repeated
    #[arg(long, value_name = "TRACE")]
    pub backend: Vec<PathBuf>,
    /// Number of the incident in the report
    #[arg(value_name = "INCIDENT", value_parser = incident)]
    pub incident: u64,
}

impl Show {
    /// As [`Report::check`].
    ///
    /// # Errors
    /// What does not fit, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        are_files(std::slice::from_ref(&self.trace))?;
        are_files(&self.backend)
    }
}

/// `-`, by which many programs mean stdin or stdout.
pub(crate) fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn are_files(traces: &[PathBuf]) -> Result<(), String> {
    if traces.iter().any(|trace| is_dash(trace)) {
        return Err(
            "traces are read from files, more than once: write this one to a file first".to_owned(),
        );
    }
    Ok(())
}

fn pid(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("give the pid of a process, a number such as 4711".to_owned()),
        Ok(pid) => Ok(pid),
    }
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("give a port, a number from 1 to 65535".to_owned()),
        Ok(port) => Ok(port),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_range| ()),
        Err(_no_number) => text
            .parse::<jiff::SignedDuration>()
            .map_err(|_syntax| ())
            .and_then(|found| Duration::try_from(found).map_err(|_negative| ())),
    };
    match parsed {
        Err(()) => Err("give a time above zero such as 60s, 5m or 1h30m".to_owned()),
        Ok(found) if found < SHORTEST => Err("the shortest capture is 100ms".to_owned()),
        Ok(found) if found > LONGEST => {
            Err("the longest capture is 24h; start another one afterwards".to_owned())
        }
        Ok(found) => Ok(found),
    }
}

fn incident(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(
            "give the number of an incident of the report, from 1 on, after the trace".to_owned(),
        ),
        Ok(number) => Ok(number),
    }
}

/// The kernel wants whole pages and a power of two.
fn ring_bytes(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(bytes) if bytes.is_power_of_two() && bytes >= 4096 => Ok(bytes),
        _ => Err("give a power of two from 4096 on".to_owned()),
    }
}

fn cause(text: &str) -> Result<Cause, String> {
    Cause::ALL
        .iter()
        .copied()
        .find(|cause| cause.word() == text)
        .ok_or_else(|| {
            let words: Vec<&str> = Cause::ALL.iter().map(|cause| cause.word()).collect();
            format!("one of {}", words.join(", "))
        })
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
