//! A capture while it runs: a few times a second it takes the records out of the ring
//! buffer and the new lines out of the logs, once a second the counters, and writes
//! them all.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Result;
use aya::maps::{MapData, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};
use tracer_ebpf::written::Written;

use super::backends::Backends;
use super::counters::Readings;
use super::course::{self, Capturing, Signals, TICKS_A_SECOND};
use super::diagnostics::Diagnostics;
use super::host::{Host, Watched};
use super::listeners::Listeners;
use super::looks::Looks;
use super::programs::Programs;
use super::progress::{Counts, Progress};
use super::strangers::Strangers;
use super::write_calls::WriteCalls;
use super::{Prepared, Request, clock, convert, privileges, uprobes};
use crate::judge::Judge;
use crate::trace::record::{Continuation, ErrorLog, Instance, Line, Loss, Record};
use crate::trace::writer::Writer;

/// Logs are looked at every so many ticks.
const TICKS_A_LOG_POLL: u32 = 2;
/// A burst that was not read at the end is read in so many polls at most.
const MOST_LAST_POLLS: u32 = 256;
/// Logs are looked at no sooner after what happened in their directories.
const EVENT_PAUSE: Duration = Duration::from_millis(5);

/// Wakes when a rotation begins: the file that a path leads to may be gone soon.
struct LogEvents {
    descriptor: Option<AsyncFd<OwnedFd>>,
    last: Instant,
}

impl LogEvents {
    /// Without them the logs are looked at by time alone.
    fn open(host: &Host) -> Self {
        let descriptor = host.log_events().and_then(|descriptor| {
            // SAFETY: an `OwnedFd` is open until it is dropped, always the same, and it is
            // given away here.
            let registered =
                unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
            registered.ok()
        });
        Self {
            descriptor,
            last: Instant::now(),
        }
    }

    async fn next(&mut self) {
        let Some(events) = &self.descriptor else {
            return std::future::pending().await;
        };
        match events.readable().await {
            // Whoever waits for this reads all of them.
            Ok(mut ready) => ready.clear_ready(),
            Err(_) => self.descriptor = None,
        }
        // A directory in which much else happens must not keep the capture busy.
        sleep_until(self.last + EVENT_PAUSE).await;
        self.last = Instant::now();
    }
}

/// A running capture.
pub(super) struct Session {
    host: Host,
    programs: Programs,
    write_calls: WriteCalls,
    strangers: Strangers,
    records: RingBuf<MapData>,
    diagnostics: Option<Diagnostics>,
    writer: Writer,
    judge: Judge,
    progress: Progress,
    counts: Counts,
    readings: Readings,
    backends: Backends,
    listeners: Listeners,
    /// Attached to binaries of instances that come later, too.
    uprobes: bool,
    lines: Vec<Line>,
    /// The last continuation recorded of each worker thread.
    continuations: HashMap<u32, u64>,
    log_losses: HashMap<&'static str, u64>,
    log_events: Option<LogEvents>,
    losses: Looks,
    undecodable: u64,
    ticks: u32,
}

impl Session {
    pub(super) fn new(host: Host, prepared: Prepared, writer: Writer) -> Result<Self> {
        let Prepared {
            mut programs,
            write_calls,
            listeners,
            losses,
            progress,
            judge,
            uprobes,
        } = prepared;
        let records = programs.take_records()?;
        Ok(Self {
            strangers: Strangers::new(&host),
            host,
            programs,
            write_calls,
            records,
            diagnostics: None,
            writer,
            judge,
            progress,
            counts: Counts::default(),
            readings: Readings::default(),
            backends: Backends::default(),
            listeners,
            uprobes,
            lines: Vec::new(),
            continuations: HashMap::new(),
            log_losses: HashMap::new(),
            log_events: None,
            losses,
            undecodable: 0,
            ticks: 0,
        })
    }

    /// All that needs them is attached and open.
    pub(super) fn give_up_privileges(&mut self) {
        let programs = &mut self.programs;
        let uprobes = self.uprobes && programs.uprobes_need_capabilities();
        let works = || programs.upstreams().is_ok() && programs.open_connections().is_ok();
        let progress = &self.progress;
        privileges::give_up(uprobes, works, |why| {
            progress.say(&format!("warning: {why}"));
        });
    }

    /// Runs to its end.
    pub(super) async fn run(mut self, request: &Request, mut signals: Signals) -> Result<()> {
        if request.diagnostics {
            self.diagnostics = Some(Diagnostics::start(&mut self.programs)?);
        }
        self.log_events = Some(LogEvents::open(&self.host));
        let ended = course::run(&mut self, request.duration, &mut signals).await;
        self.progress.finish();
        ended
    }

    fn take_records(&mut self) -> Result<()> {
        while let Some(bytes) = self.records.next() {
            if let Ok((written, text)) = Written::decode(&bytes) {
                let line = self.host.written.line(&written, text);
                drop(bytes);
                if let Some(line) = line {
                    self.counts.lines += 1;
                    let record = Record::Line(line);
                    self.strangers.record(&record);
                    self.judge.push(&record);
                    self.writer.write(&record)?;
                }
                continue;
            }
            let Some(record) = convert::record(&bytes) else {
                self.undecodable += 1;
                continue;
            };
            drop(bytes);
            match &record {
                Record::Connection(_) => self.counts.connections += 1,
                Record::Continuation(continuation) => {
                    let known = self
                        .continuations
                        .insert(continuation.tid, continuation.failed_cookie);
                    if known == Some(continuation.failed_cookie) {
                        // Read from the thread's slot before.
                        continue;
                    }
                }
                _ => {}
            }
            self.strangers.record(&record);
            self.judge.push(&record);
            self.writer.write(&record)?;
        }
        self.look_at_strangers()
    }

    fn poll_logs(&mut self) -> Result<()> {
        self.host.poll_logs(&mut self.lines);
        for line in &self.lines {
            self.strangers.line(line);
        }
        self.look_at_strangers()?;
        self.write_lines()
    }

    fn write_lines(&mut self) -> Result<()> {
        for line in std::mem::take(&mut self.lines) {
            self.counts.lines += 1;
            self.record(&Record::Line(line))?;
        }
        Ok(())
    }

    fn every_second(&mut self) -> Result<()> {
        let ns = clock::monotonic_ns();
        self.watch_instances(ns)?;
        let upstreams = self.programs.upstreams()?;
        for (key, counters) in upstreams.values() {
            if let Some(change) = self.readings.since_last(ns, key, counters) {
                self.record(&Record::Upstream(change))?;
            }
        }
        let keys = upstreams.into_iter().map(|(slot, (key, _))| (slot, key));
        let processes = self.programs.backend_processes()?;
        for process in self.backends.changed(&processes, &keys.collect()) {
            self.record(&Record::BackendProcess(process))?;
        }
        for listener in self.listeners.full(ns, &mut self.host.warnings) {
            self.record(&Record::Listener(listener))?;
        }
        for continuation in self.finished_continuations() {
            self.record(&Record::Continuation(continuation))?;
        }
        self.losses()
    }

    /// A worker that nobody has seen has shown itself: what it says is the master's whose
    /// child it is.
    fn look_at_strangers(&mut self) -> Result<()> {
        if self.strangers.came() {
            self.watch_instances(clock::monotonic_ns())?;
        }
        Ok(())
    }

    /// Workers that started or ended, instances that appeared, configurations that were
    /// loaded anew.
    fn watch_instances(&mut self, ns: u64) -> Result<()> {
        let changes = self.host.worker_changes(ns);
        let mut masters: Vec<u32> = changes
            .iter()
            .filter(|process| process.started)
            .map(|process| process.master_pid)
            .collect();
        masters.dedup();
        for process in changes {
            self.strangers.process(&process);
            self.record(&Record::Process(process))?;
        }
        let mut instances = Vec::new();
        for (index, logs) in self.host.new_instances() {
            let seen = uprobes::attach_later(&self.host, index, &mut self.programs, self.uprobes);
            instances.push((index, logs, seen));
        }
        let reloaded = self.host.reloaded(&masters, ns);
        self.write_calls.follow(&mut self.host, &mut self.programs);
        for (index, logs, seen) in instances {
            self.tell(ns, None, index, &logs, Some(seen))?;
        }
        for reloaded in reloaded {
            let since_ns = Some(reloaded.since_ns).filter(|since| *since < ns);
            self.tell(ns, since_ns, reloaded.index, &reloaded.logs, None)?;
        }
        Ok(())
    }

    /// Records what an instance is like from now on.
    fn tell(
        &mut self,
        ns: u64,
        since_ns: Option<u64>,
        index: usize,
        logs: &[ErrorLog],
        seen: Option<bool>,
    ) -> Result<()> {
        let Some(watched) = self.host.watched.get_mut(index) else {
            return Ok(());
        };
        let seen = seen.unwrap_or_else(|| watched.sees_log_calls());
        let nginx = watched.record(logs, seen);
        self.record(&Record::Instance(Box::new(Instance {
            ns,
            since_ns,
            nginx,
        })))
    }

    /// What workers did after their last failure, as far as it has happened and was
    /// not sent by the kernel yet.
    fn finished_continuations(&mut self) -> Vec<Continuation> {
        let workers = self
            .host
            .watched
            .iter()
            .flat_map(|watched| &watched.instance.workers);
        let tids: Vec<u32> = workers.map(|worker| worker.pid).collect();
        let mut found = Vec::new();
        for tid in tids {
            let Some(continuation) = self
                .programs
                .continuation(tid)
                .as_ref()
                .and_then(convert::continuation)
            else {
                continue;
            };
            let cookie = continuation.failed_cookie;
            if self.continuations.insert(tid, cookie) != Some(cookie) {
                found.push(continuation);
            }
        }
        found
    }

    fn losses(&mut self) -> Result<()> {
        let (span, mut losses) = self.losses.look(clock::monotonic_ns, || {
            course::new_losses(&mut self.programs, &mut self.undecodable)
        })?;
        self.host.warnings.append(&mut self.programs.warnings());
        for (what, total) in self.host.log_losses() {
            let told = self.log_losses.insert(what, total).unwrap_or(0);
            if total > told {
                losses.push((what.to_owned(), total - told));
            }
        }
        for (what, count) in losses {
            self.counts.lost += count;
            self.record(&Record::Loss(Loss {
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
        self.host.look_at_cycles();
        self.take_records()?;
        if self.ticks.is_multiple_of(TICKS_A_LOG_POLL) || self.host.logs_are_behind() {
            self.poll_logs()?;
        }
        if self.ticks.is_multiple_of(TICKS_A_SECOND) {
            self.record(&Record::Anchor(clock::anchor()))?;
            self.every_second()?;
            self.writer.flush()?;
        }
        for incident in self.judge.fresh() {
            self.counts.incidents += 1;
            self.progress.verdict(&incident);
        }
        self.progress.update(self.counts);
        if let Some(diagnostics) = &mut self.diagnostics {
            diagnostics.print();
        }
        Ok(())
    }

    async fn event(&mut self) {
        match &mut self.log_events {
            Some(events) => events.next().await,
            None => std::future::pending().await,
        }
    }

    fn happened(&mut self) -> Result<()> {
        self.poll_logs()
    }

    fn rest(&mut self) -> Result<()> {
        for _ in 0..MOST_LAST_POLLS {
            if !self.host.logs_are_behind() {
                break;
            }
            self.take_records()?;
            self.poll_logs()?;
        }
        self.host.finish_logs(&mut self.lines);
        self.take_records()?;
        self.write_lines()?;
        self.every_second()?;
        for index in self.host.changed_files() {
            if let Some(logs) = self.host.watched.get(index).map(Watched::told_logs) {
                self.tell(clock::monotonic_ns(), None, index, &logs, None)?;
            }
        }
        match self.programs.open_connections() {
            Ok(open) => {
                let now = clock::monotonic_ns();
                for connection in open {
                    let connection = convert::connection(&connection, now);
                    self.record(&Record::Connection(Box::new(connection)))?;
                }
            }
            Err(error) => self.progress.say(&format!("warning: {error:#}")),
        }
        for incident in self.judge.fresh() {
            self.progress.verdict(&incident);
        }
        for warning in std::mem::take(&mut self.host.warnings) {
            self.progress.say(&format!("warning: {warning}"));
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Result<()> {
        self.judge.push(record);
        self.writer.write(record)?;
        Ok(())
    }

    fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }
}
