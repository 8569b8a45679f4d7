//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

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
    /// Error log to follow instead of those that nginx writes; can be repeated
    #[arg(long, value_name = "PATH")]
    pub error_log: Vec<PathBuf>,
    /// Watch only this nginx: pid of its master or of one of its workers
    #[arg(long, value_name = "PID")]
    pub nginx: Option<u32>,
    /// Names of nginx processes to look for [default: nginx,openresty,angie,tengine]; with
    /// --role backend, names of the processes whose listening ports count
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub process_name: Vec<String>,
    /// Whose side of the connections to watch
    #[arg(long, value_enum, default_value_t)]
    pub role: Role,
    /// With --role backend: record connections accepted at this port; can be repeated
    #[arg(long, value_name = "PORT", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Vec<u16>,
    /// Do not look at the backends' side of connections where it is on this host
    #[arg(long)]
    pub no_local_backends: bool,
    /// Form of the report
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Attach nothing to nginx's binary: lines are matched to connections by their order
    #[arg(long)]
    pub no_uprobe: bool,
    /// For tests: do without the tracepoints of sends and receives
    #[arg(long, hide = true)]
    pub no_io_tracepoints: bool,
    /// For tests: do without the ends of the kernel's functions
    #[arg(long, hide = true)]
    pub no_fentry: bool,
    /// For tests: do without links of uprobes
    #[arg(long, hide = true)]
    pub no_uprobe_links: bool,
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
    /// Options that go with the other role only.
    ///
    /// # Errors
    /// What does not fit, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        of_role(
            self.role,
            &[("--port", !self.port.is_empty())],
            &[
                ("--nginx", self.nginx.is_some()),
                ("--error-log", !self.error_log.is_empty()),
                ("--no-uprobe", self.no_uprobe),
                ("--no-io-tracepoints", self.no_io_tracepoints),
                ("--no-fentry", self.no_fentry),
                ("--no-uprobe-links", self.no_uprobe_links),
                ("--no-local-backends", self.no_local_backends),
            ],
        )
    }

    /// The names of nginx's processes.
    #[must_use]
    pub fn nginx_names(&self) -> Vec<String> {
        nginx_names(&self.process_name)
    }
}

/// The names of nginx's processes, if these are given.
#[must_use]
pub fn nginx_names(given: &[String]) -> Vec<String> {
    if given.is_empty() {
        DEFAULT_NAMES.map(str::to_owned).to_vec()
    } else {
        given.to_vec()
    }
}

/// Refuses options of the other role that are given.
fn of_role(
    role: Role,
    of_backend: &[(&str, bool)],
    of_nginx: &[(&str, bool)],
) -> Result<(), String> {
    let (given, other) = match role {
        Role::Nginx => (of_backend, "--role backend"),
        Role::Backend => (of_nginx, "--role nginx"),
    };
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(format!("{option} goes with {other} only")),
        None => Ok(()),
    }
}

/// `whoclosed doctor`
#[derive(Clone, Debug, clap::Args)]
pub struct Doctor {
    /// Look only at this nginx: pid of its master or of one of its workers
    #[arg(long, value_name = "PID")]
    pub nginx: Option<u32>,
    /// Error log that the capture would follow instead of those that nginx writes; can be
    /// repeated
    #[arg(long, value_name = "PATH")]
    pub error_log: Vec<PathBuf>,
    /// Names of processes to look for, as for `capture`
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub process_name: Vec<String>,
    /// Whose side of connections the capture would watch
    #[arg(long, value_enum, default_value_t)]
    pub role: Role,
    /// With --role backend: port whose connections it would record; can be repeated
    #[arg(long, value_name = "PORT", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Vec<u16>,
    /// Leave the tracepoints of sends and receives out, to test what takes their place
    #[arg(long, hide = true)]
    pub no_io_tracepoints: bool,
    /// Leave the ends of kernel functions out, likewise
    #[arg(long, hide = true)]
    pub no_fentry: bool,
    /// Leave links of uprobes out, likewise
    #[arg(long, hide = true)]
    pub no_uprobe_links: bool,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t)]
    pub format: DoctorFormat,
}

impl Doctor {
    /// Options that go with the other role only.
    ///
    /// # Errors
    /// What does not fit, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        of_role(
            self.role,
            &[("--port", !self.port.is_empty())],
            &[
                ("--nginx", self.nginx.is_some()),
                ("--error-log", !self.error_log.is_empty()),
            ],
        )
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
    /// File to write it to instead of the terminal
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Exit with status 1 if there is an incident of this cause; can be repeated
    #[arg(long, value_name = "CAUSE", value_parser = cause)]
    pub fail_on: Vec<Cause>,
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
    #[arg(value_name = "INCIDENT")]
    pub incident: u64,
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
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_of_the_other_role_are_refused() {
        let check = |line: &str| {
            let words = ["whoclosed", "capture"].into_iter();
            let parsed = Arguments::try_parse_from(words.chain(line.split_whitespace()));
            let Verb::Capture(capture) = parsed.unwrap().verb else {
                unreachable!()
            };
            capture.check()
        };
        assert_eq!(check("--role backend --port 80,81"), Ok(()));
        assert_eq!(check("--nginx 1"), Ok(()));
        assert!(check("--port 80").unwrap_err().contains("--role backend"));
        assert!(check("--role backend --nginx 1").is_err());
    }

    #[test]
    fn durations_are_read_and_bounded() {
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("15"), Ok(Duration::from_secs(15)));
        for wrong in [
            "0", "0s", "-5s", "-5", "25h", "1e30", "NaN", "inf", "soon", "",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
