//! A capture on a backend's host (`--role backend`): the accepting side of connections at
//! the ports asked for, and the ends of the processes there. Needs no nginx on this host
//! and reads no log; [`crate::join`] puts its trace beside that of nginx's host.

mod ports;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};

use self::ports::{Host, Ports};
use super::course::{self, Capturing, Signals, TICKS_A_SECOND};
use super::diagnostics::Diagnostics;
use super::looks::Looks;
use super::programs::{self, Options, Programs};
use super::progress::Progress;
use super::{boot_id, checks, clock, convert, host_name, kernel, privileges, remove_unused};
use crate::doctor::found::{Found, Memory};
use crate::doctor::{self, look};
use crate::report::words::counted;
use crate::trace::record::{AcceptedEnd, Capture, Loss, Record, Role};
use crate::trace::writer::Writer;

pub use self::ports::Asked;

/// Processes that were asked for by name are looked for again every so many seconds.
const SECONDS_A_SEARCH: u32 = 5;

/// What to capture.
#[derive(Clone, Debug)]
pub struct Request {
    /// How long.
    pub duration: Duration,
    /// The trace file.
    pub output: PathBuf,
    /// Replace it if it exists.
    pub force: bool,
    /// Which ports.
    pub asked: Asked,
    /// Bytes of the ring buffer, if not the usual.
    pub ring_bytes: Option<u32>,
    /// Show nothing on stderr but errors.
    pub quiet: bool,
    /// Show the kernel programs' own diagnostics.
    pub diagnostics: bool,
}

/// Runs a capture from start to end. The trace is at [`Request::output`] afterwards.
///
/// # Errors
/// As [`super::run`]; also if nobody listens where connections are to be recorded.
pub fn run(request: &Request) -> Result<()> {
    checks::before_capture(Role::Backend)?;
    let mut warnings = checks::warnings(Role::Backend);
    let mut host = Host::open(&mut warnings)?;
    let ports = host.asked(&request.asked, &mut warnings)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let signals = {
        let _entered = runtime.enter();
        Signals::install()?
    };
    let writer = Writer::create(&request.output, request.force)?;
    match Session::start(request, host, ports, warnings, writer) {
        Ok(session) => runtime.block_on(session.run(request, signals)),
        Err(error) => {
            remove_unused(&request.output);
            Err(error)
        }
    }
}

/// Who listens where, of what was asked for or of all: as text.
///
/// # Errors
/// If it cannot be seen, or nobody listens where connections are to be recorded.
pub fn listening(asked: &Asked, warnings: &mut Vec<String>) -> Result<String> {
    let mut host = Host::open(warnings)?;
    let ports = if asked.is_empty() {
        host.listening(warnings)?
    } else {
        host.asked(asked, warnings)?
    };
    Ok(ports::list(&ports))
}

/// How many connections have ended, for the display.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    connections: u64,
    by_process: u64,
    exits: u64,
    lost: u64,
}

/// A running capture.
struct Session {
    host: Host,
    asked: Asked,
    ports: Ports,
    warnings: Vec<String>,
    programs: Programs,
    records: RingBuf<MapData>,
    diagnostics: Option<Diagnostics>,
    writer: Writer,
    progress: Progress,
    counts: Counts,
    losses: Looks,
    undecodable: u64,
    ticks: u32,
}

impl Session {
    fn start(
        request: &Request,
        host: Host,
        ports: Ports,
        warnings: Vec<String>,
        writer: Writer,
    ) -> Result<Self> {
        let losses = Looks::begin(clock::monotonic_ns());
        let memory = look::free_memory(request.ring_bytes.unwrap_or(programs::RING_BYTES));
        let mut programs = checks::load(&Options {
            role: Role::Backend,
            ring_bytes: request.ring_bytes,
            diagnostics: request.diagnostics,
            ..Options::default()
        })?;
        let records = programs.take_records()?;
        let mut session = Self {
            host,
            asked: request.asked.clone(),
            ports: Ports::new(),
            warnings,
            programs,
            records,
            diagnostics: None,
            writer,
            progress: Progress::new(request.duration, request.quiet),
            counts: Counts::default(),
            losses,
            undecodable: 0,
            ticks: 0,
        };
        session.watch_these(ports)?;
        session.programs.take_over(Role::Backend);
        session.begin(request, memory)?;
        session.give_up_privileges();
        Ok(session)
    }

    /// All that needs them is attached and open.
    fn give_up_privileges(&mut self) {
        let programs = &mut self.programs;
        let works = || programs.open_accepted().is_ok();
        let progress = &self.progress;
        privileges::give_up(false, works, |why| {
            progress.say(&format!("warning: {why}"));
        });
    }

    fn begin(&mut self, request: &Request, memory: Memory) -> Result<()> {
        let capture = Capture {
            role: Role::Backend,
            boot_id: boot_id(),
            ports: self.ports.keys().copied().collect(),
            host: host_name(),
            kernel: kernel(),
            start_ns: clock::monotonic_ns(),
            duration_ns: u64::try_from(request.duration.as_nanos()).unwrap_or(u64::MAX),
            hooks: self.programs.hooks.clone(),
            ..Capture::default()
        };
        self.writer.write(&Record::Capture(Box::new(capture)))?;
        self.writer.write(&Record::Anchor(clock::anchor()))?;
        self.writer.flush()?;
        let found = Found {
            hooks: self.programs.hooks.clone(),
            warnings: std::mem::take(&mut self.warnings),
            ..look::here(Role::Backend, memory, true)
        };
        for warning in doctor::warnings(&found) {
            self.progress.say(&format!("warning: {warning}"));
        }
        self.progress.say(&format!(
            "capturing for {:?}: connections accepted at {}; Ctrl-C ends it early",
            request.duration,
            ports::list(&self.ports)
        ));
        Ok(())
    }

    fn warn(&mut self) {
        for warning in std::mem::take(&mut self.warnings) {
            self.progress.say(&format!("warning: {warning}"));
        }
    }

    /// Ports never stop counting: what listened there may come back.
    fn watch_these(&mut self, found: Ports) -> Result<()> {
        let exits: BTreeSet<u32> = found
            .values()
            .flat_map(|servers| servers.processes.keys())
            .copied()
            .collect();
        self.programs.watch_exits(&exits)?;
        let known = self.ports.len();
        self.ports.extend(found);
        if self.ports.len() > known {
            self.programs
                .watch_ports(&self.ports.keys().copied().collect())?;
        }
        Ok(())
    }

    async fn run(mut self, request: &Request, mut signals: Signals) -> Result<()> {
        if request.diagnostics {
            self.diagnostics = Some(Diagnostics::start(&mut self.programs)?);
        }
        let ended = course::run(&mut self, request.duration, &mut signals).await;
        self.progress.finish();
        ended
    }

    fn take_records(&mut self) -> Result<()> {
        while let Some(bytes) = self.records.next() {
            let Some(record) = convert::record(&bytes) else {
                self.undecodable += 1;
                continue;
            };
            drop(bytes);
            match &record {
                Record::Accepted(accepted) => {
                    self.counts.connections += 1;
                    let here =
                        accepted.end == AcceptedEnd::Closed && accepted.fin_received_ns.is_none();
                    self.counts.by_process += u64::from(here);
                }
                Record::BackendExit(_) => self.counts.exits += 1,
                _ => {}
            }
            self.writer.write(&record)?;
        }
        Ok(())
    }

    fn every_second(&mut self) -> Result<()> {
        let ns = clock::monotonic_ns();
        let full = self.host.listeners.full(ns, &mut self.warnings);
        for listener in full {
            if self.ports.contains_key(&listener.port) {
                self.writer.write(&Record::Listener(listener))?;
            }
        }
        let (span, losses) = self.losses.look(clock::monotonic_ns, || {
            course::new_losses(&mut self.programs, &mut self.undecodable)
        })?;
        self.warnings.append(&mut self.programs.warnings());
        for (what, count) in losses {
            self.counts.lost += count;
            self.writer.write(&Record::Loss(Loss {
                ns: span.until_ns,
                since_ns: Some(span.since_ns),
                what,
                count,
            }))?;
        }
        Ok(())
    }
}

impl Capturing for Session {
    fn tick(&mut self) -> Result<()> {
        self.ticks = self.ticks.wrapping_add(1);
        self.programs.look_at_changes_of_state();
        self.take_records()?;
        if self.ticks.is_multiple_of(TICKS_A_SECOND) {
            self.writer.write(&Record::Anchor(clock::anchor()))?;
            self.every_second()?;
            self.writer.flush()?;
        }
        if self.ticks.is_multiple_of(TICKS_A_SECOND * SECONDS_A_SEARCH)
            && !self.asked.names.is_empty()
        {
            // That a server is down for a moment is no reason to stop.
            if let Ok(found) = self.host.asked(&self.asked, &mut Vec::new()) {
                self.watch_these(found)?;
            }
        }
        let Counts {
            connections,
            by_process,
            exits,
            lost,
        } = self.counts;
        self.progress.show(&format!(
            "{} ended, {by_process} of them here, {} ended, {lost} lost",
            counted(connections, "connection", "connections"),
            counted(exits, "process", "processes")
        ));
        if let Some(diagnostics) = &mut self.diagnostics {
            diagnostics.print();
        }
        Ok(())
    }

    fn rest(&mut self) -> Result<()> {
        self.take_records()?;
        self.every_second()?;
        match self.programs.open_accepted() {
            Ok(open) => {
                let now = clock::monotonic_ns();
                for accepted in open {
                    let accepted = convert::accepted(&accepted, now);
                    self.writer.write(&Record::Accepted(Box::new(accepted)))?;
                }
            }
            Err(error) => self.progress.say(&format!("warning: {error:#}")),
        }
        self.warn();
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Result<()> {
        Ok(self.writer.write(record)?)
    }

    fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }
}
