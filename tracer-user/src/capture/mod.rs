//! Captures: loads and attaches the kernel programs, follows the error logs, and
//! writes all that they give to a trace. Judges nothing; the verdicts shown on the way
//! come from [`crate::judge`], fed with the very records that are written.

mod abilities;
pub mod accepting;
mod backends;
mod bpf_calls;
pub mod btf;
mod calls;
pub mod checks;
pub mod clock;
pub mod convert;
pub mod counters;
mod course;
mod diagnostics;
mod hooks;
pub mod host;
mod listeners;
mod looks;
mod mid_life;
mod missed_runs;
mod open_connections;
mod privileges;
pub mod programs;
mod progress;
pub mod refusals;
pub mod rehearsal;
mod reloads;
mod session;
mod strangers;
mod twins;
mod uprobe_links;
mod uprobes;
mod write_calls;
mod written;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use self::calls::Withheld;
use self::course::Signals;
use self::host::Host;
use self::listeners::Listeners;
use self::looks::Looks;
use self::programs::{Options, Programs};
use self::progress::Progress;
use self::session::Session;
use self::write_calls::WriteCalls;
use crate::doctor::found::Found;
use crate::doctor::{self, look};
use crate::judge::Judge;
use crate::report::words::counted;
use crate::trace::record::{Capture, ErrorLog, Record, Role};
use crate::trace::writer::Writer;

/// What to capture.
#[derive(Clone, Debug)]
pub struct Request {
    /// How long.
    pub duration: Duration,
    /// The trace file.
    pub output: PathBuf,
    /// Replace it if it exists.
    pub force: bool,
    /// Error logs to follow instead of those in force.
    pub error_logs: Vec<PathBuf>,
    /// Names of nginx processes.
    pub names: Vec<String>,
    /// Only the instance that this process belongs to.
    pub nginx: Option<u32>,
    /// Leave backends' sides of connections on this host alone.
    pub no_local_backends: bool,
    /// Attach nothing to nginx's binary.
    pub no_uprobe: bool,
    /// Hooks to do without, for tests.
    pub withheld: Withheld,
    /// Attach all second programs at the start, for tests.
    pub twins_at_once: bool,
    /// Show nothing on stderr but errors.
    pub quiet: bool,
    /// Bytes of the ring buffer, if not the usual.
    pub ring_bytes: Option<u32>,
    /// Show the kernel programs' own diagnostics.
    pub diagnostics: bool,
}

/// Runs a capture from start to end. The trace is at [`Request::output`] afterwards.
///
/// # Errors
/// If something that a capture cannot do without is missing, or the trace cannot be
/// written; what was written before stays readable.
pub fn run(request: &Request) -> Result<()> {
    checks::before_capture(Role::Nginx)?;
    let mut host = host::find(&request.names, request.nginx)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    // From before there is a file to leave behind: whoever has read that it captures
    // may end it at once, and gets a report.
    let signals = {
        let _entered = runtime.enter();
        Signals::install()?
    };
    let mut writer = Writer::create(&request.output, request.force)?;
    let prepared = prepare(request, &mut host, &mut writer);
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            // Nothing was captured: leave no empty trace behind.
            drop(writer);
            remove_unused(&request.output);
            return Err(error);
        }
    };
    let mut session = Session::new(host, prepared, writer)?;
    session.give_up_privileges();
    runtime.block_on(session.run(request, signals))
}

/// Removes the trace of a capture that did not begin.
fn remove_unused(output: &Path) {
    if let Err(problem) = std::fs::remove_file(output) {
        crate::stderr::line(format_args!(
            "whoclosed: cannot remove {}: {problem}",
            output.display()
        ));
    }
}

/// What a session begins with.
struct Prepared {
    /// Uprobes are wanted in the binaries of instances that come later, too.
    uprobes: bool,
    programs: Programs,
    write_calls: WriteCalls,
    listeners: Listeners,
    losses: Looks,
    progress: Progress,
    /// Has taken the records that the trace begins with.
    judge: Judge,
}

fn prepare(request: &Request, host: &mut Host, writer: &mut Writer) -> Result<Prepared> {
    let losses = Looks::begin(clock::monotonic_ns());
    let memory = look::free_memory(request.ring_bytes.unwrap_or(programs::RING_BYTES));
    let mut programs = checks::load(&Options {
        no_local_backends: request.no_local_backends,
        ring_bytes: request.ring_bytes,
        diagnostics: request.diagnostics,
        withheld: request.withheld,
        twins_at_once: request.twins_at_once,
        ..options_of(Some(host), &request.names, request.nginx)
    })?;
    let sees_log_calls = uprobes::attach(host, &mut programs, request.no_uprobe)?;
    programs.take_over(Role::Nginx);
    let followed = host.follow(&request.error_logs)?;
    let write_calls = WriteCalls::start(host, &mut programs)?;
    let start_ns = clock::monotonic_ns();

    let capture = Capture {
        role: Role::Nginx,
        boot_id: boot_id(),
        ports: Vec::new(),
        no_local_backends: request.no_local_backends,
        host: host_name(),
        kernel: kernel(),
        start_ns,
        duration_ns: u64::try_from(request.duration.as_nanos()).unwrap_or(u64::MAX),
        nginx: host
            .watched
            .iter_mut()
            .zip(followed.iter().zip(&sees_log_calls))
            .map(|(watched, (logs, seen))| watched.record(logs, *seen))
            .collect(),
        hooks: programs.hooks.clone(),
        gaps_noticed: true,
    };
    let mut judge = Judge::default();
    for record in [
        Record::Capture(Box::new(capture)),
        Record::Anchor(clock::anchor()),
    ] {
        judge.push(&record);
        writer.write(&record)?;
    }
    writer.flush()?;

    let progress = Progress::new(request.duration, request.quiet);
    let listeners = listeners_of(request, host);
    let instances = host
        .watched
        .iter()
        .zip(followed.iter().zip(&sees_log_calls));
    let found = Found {
        nginx: instances
            .map(|(watched, (logs, seen))| look::instance(watched, logs, *seen))
            .collect(),
        hooks: programs.hooks.clone(),
        warnings: [
            checks::warnings(Role::Nginx),
            std::mem::take(&mut host.warnings),
        ]
        .concat(),
        ..look::here(Role::Nginx, memory, true)
    };
    for warning in doctor::warnings(&found) {
        progress.say(&format!("warning: {warning}"));
    }
    progress.say(&announcement(request, host, &followed));
    Ok(Prepared {
        uprobes: !request.no_uprobe,
        programs,
        write_calls,
        listeners,
        losses,
        progress,
        judge,
    })
}

/// The listening sockets of backends that may be on this host.
fn listeners_of(request: &Request, host: &mut Host) -> Listeners {
    if request.no_local_backends {
        return Listeners::default();
    }
    let watched = host.watched.iter();
    let masters: Vec<u32> = watched.map(|one| one.instance.master_pid).collect();
    Listeners::open(&masters, &mut host.warnings)
}

/// What the programs are told of nginx.
fn options_of(host: Option<&Host>, names: &[String], only: Option<u32>) -> Options {
    let watched = host.map_or(&[][..], |host| &host.watched);
    let first = watched.first().map(|watched| watched.instance.master_pid);
    Options {
        role: Role::Nginx,
        names: names.to_vec(),
        master: only.and(first),
        log_has_file_name: watched.iter().any(host::Watched::log_has_file_name),
        ..Options::default()
    }
}

pub(crate) fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

fn kernel() -> String {
    let uname = rustix::system::uname();
    format!(
        "{} {}",
        uname.release().to_string_lossy(),
        uname.machine().to_string_lossy()
    )
}

fn announcement(request: &Request, host: &Host, followed: &[Vec<ErrorLog>]) -> String {
    let instances: Vec<String> = host
        .watched
        .iter()
        .map(|watched| {
            format!(
                "{} (master {}, {})",
                watched
                    .binary
                    .version
                    .as_deref()
                    .unwrap_or(&watched.instance.binary),
                watched.instance.master_pid,
                counted(watched.instance.workers.len() as u64, "worker", "workers")
            )
        })
        .collect();
    let logs: Vec<&str> = followed
        .iter()
        .flatten()
        .map(|log| log.path.as_str())
        .collect();
    format!(
        "capturing for {:?}: {}; error log {}; Ctrl-C ends it early",
        request.duration,
        instances.join(", "),
        logs.join(", ")
    )
}
