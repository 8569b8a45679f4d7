//! The report of a trace made on a backend's host, by itself: which connections ended
//! there and how, which processes ended them, and how these ended. Who closed first as
//! nginx saw it, and why, only both traces together tell.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::net::IpAddr;

use serde::Serialize;

use super::escape::escape;
use super::model::CaptureSummary;
use super::page::{DIM, HEADING, PLAIN, Page, TextOptions, WARNING};
use super::words::{NAME, clock, count, counted, date_time, signal_name};
use crate::judge::clock::Clock;
use crate::trace::record::{Accepted, AcceptedEnd, BackendExit, Capture, Exit, Record};

/// Value of [`Accepting::schema`].
pub const SCHEMA: &str = "whoclosed.accepting/1";

/// Lines of a list in the text.
const MOST_LINES: usize = 40;

/// A whole report.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Accepting {
    /// [`SCHEMA`].
    pub schema: String,
    /// Where and when.
    pub capture: CaptureSummary,
    /// Ports asked for.
    pub ports: Vec<u16>,
    /// Connections accepted there.
    pub connections: Connections,
    /// From where they came, most first.
    pub clients: Vec<Client>,
    /// Processes that ended connections, or ended.
    pub processes: Vec<Server>,
    /// Times at which a listening socket's queue was found full.
    pub full_queues: u64,
    /// What limits this report.
    pub notes: Vec<String>,
}

/// Connections by how they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Connections {
    /// In all.
    pub seen: u64,
    /// Their process closed them before the other side did.
    pub closed_first: u64,
    /// Their process ended with them open, before the other side closed.
    pub ended_with_process: u64,
    /// The other side's FIN came first.
    pub other_side_first: u64,
    /// An RST of the other side's, or a timeout, ended them.
    pub broken: u64,
    /// Open when the capture ended.
    pub open: u64,
    /// Of those that the process ended: it had not read all that had come.
    pub unread: u64,
    /// The most bytes that it left so.
    pub unread_bytes_most: u64,
}

/// The other side's host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// Connections from there.
    pub connections: u64,
}

/// A process here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Its number on the host.
    pub pid: u32,
    /// Its parent's.
    pub parent_pid: u32,
    /// Name of its main thread.
    pub comm: String,
    /// Connections that it ended, whichever side began.
    pub connections: u64,
    /// Of these, it was the first to end.
    pub ended_first: u64,
    /// Of these, with bytes that it had not read.
    pub unread: u64,
    /// The most bytes left so.
    pub unread_bytes_most: u64,
    /// How it ended; null if it did not, or nobody saw.
    pub exit: Option<Exit>,
    /// When, RFC 3339.
    pub exit_time: Option<String>,
}

/// Gathers a report from a trace's records.
#[derive(Debug, Default)]
pub struct Gathering {
    report: Accepting,
    captured: Capture,
    wall: Clock,
    last_ns: u64,
    end_ns: Option<u64>,
    servers: BTreeMap<u32, (Server, Option<u64>)>,
    clients: BTreeMap<IpAddr, u64>,
}

impl Gathering {
    /// Takes a record, in the trace's order.
    pub fn push(&mut self, record: &Record) {
        match record {
            Record::Capture(capture) => self.captured = (**capture).clone(),
            Record::Anchor(anchor) => {
                self.wall.add(*anchor);
                self.last_ns = self.last_ns.max(anchor.monotonic_ns);
            }
            Record::Accepted(accepted) => self.accepted(accepted),
            Record::BackendExit(exit) => self.exit(exit),
            Record::Listener(_) => self.report.full_queues += 1,
            Record::Loss(loss) => {
                let lost = &mut self.report.capture.lost;
                *lost.entry(loss.what.clone()).or_default() += loss.count;
            }
            Record::End(end) => self.end_ns = Some(end.ns),
            _ => {}
        }
    }

    fn accepted(&mut self, accepted: &Accepted) {
        let connections = &mut self.report.connections;
        connections.seen += 1;
        *self
            .clients
            .entry(accepted.remote.ip().to_canonical())
            .or_default() += 1;
        let first = accepted.end == AcceptedEnd::Closed
            && accepted.fin_received_ns.is_none()
            && accepted.rst_received_ns.is_none();
        let unread = u64::from(accepted.unread_bytes);
        let counter = match accepted.end {
            AcceptedEnd::Open => &mut connections.open,
            AcceptedEnd::Broken => &mut connections.broken,
            AcceptedEnd::Closed if !first => &mut connections.other_side_first,
            AcceptedEnd::Closed if accepted.exit.is_some() => &mut connections.ended_with_process,
            AcceptedEnd::Closed => &mut connections.closed_first,
        };
        *counter += 1;
        if first && unread > 0 {
            connections.unread += 1;
            connections.unread_bytes_most = connections.unread_bytes_most.max(unread);
        }
        let (Some(pid), AcceptedEnd::Closed) = (accepted.pid, accepted.end) else {
            return;
        };
        let (server, ended) = self.servers.entry(pid).or_default();
        server.pid = pid;
        server.parent_pid = accepted.parent_pid;
        server.comm.clone_from(&accepted.comm);
        server.connections += 1;
        server.ended_first += u64::from(first);
        if first && unread > 0 {
            server.unread += 1;
            server.unread_bytes_most = server.unread_bytes_most.max(unread);
        }
        if accepted.exit.is_some() {
            server.exit = accepted.exit;
            *ended = ended.or(accepted.closed_ns);
        }
    }

    fn exit(&mut self, exit: &BackendExit) {
        let (server, ended) = self.servers.entry(exit.pid).or_default();
        server.pid = exit.pid;
        server.parent_pid = exit.parent_pid;
        server.comm.clone_from(&exit.comm);
        server.exit = Some(exit.exit);
        *ended = Some(exit.ns);
    }

    /// The report. `notes` are what the reader of the file has to say.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds shown as seconds")]
    pub fn finish(mut self, notes: Vec<String>) -> Accepting {
        let start_ns = self.captured.start_ns;
        let end_ns = self.end_ns.unwrap_or(self.last_ns);
        let seconds = end_ns.saturating_sub(start_ns) as f64 / 1e9;
        let mut report = self.report;
        SCHEMA.clone_into(&mut report.schema);
        report.capture = CaptureSummary {
            host: std::mem::take(&mut self.captured.host),
            kernel: std::mem::take(&mut self.captured.kernel),
            nginx: Vec::new(),
            start: self.wall.rfc3339(start_ns),
            end: self.wall.rfc3339(end_ns),
            duration_s: (seconds * 1000.0).round() / 1000.0,
            lost: report.capture.lost,
            complete: self.end_ns.is_some(),
            hooks: self.captured.hooks.clone(),
        };
        report.ports = self.captured.ports;
        report.clients = self
            .clients
            .into_iter()
            .map(|(address, connections)| Client {
                address,
                connections,
            })
            .collect();
        let most_first = |client: &Client| std::cmp::Reverse(client.connections);
        report.clients.sort_by_key(most_first);
        let wall = &self.wall;
        report.processes = self
            .servers
            .into_values()
            .map(|(server, ended)| Server {
                exit_time: ended.map(|ns| wall.rfc3339(ns)),
                ..server
            })
            .collect();
        report
            .processes
            .sort_by_key(|server| (server.exit.is_none(), std::cmp::Reverse(server.ended_first)));
        report.notes = notes;
        for hook in self.captured.hooks.iter().filter(|hook| !hook.attached) {
            let reason = hook.reason.as_deref().unwrap_or("no reason recorded");
            let note = format!("{} was not attached: {reason}", hook.name);
            report.notes.push(note);
        }
        report
    }
}

/// Writes a report for people.
///
/// # Errors
/// If `out` fails.
pub fn render(report: &Accepting, options: &TextOptions, out: &mut impl Write) -> fmt::Result {
    let mut page = Page::new(out, *options);
    let page = &mut page;
    let capture = &report.capture;
    let host = escape(&capture.host, NAME);
    let kernel = escape(&capture.kernel, NAME);
    let ports: Vec<String> = report.ports.iter().map(u16::to_string).collect();
    let text = format!("{host}, Linux {kernel}, accepting at {}", ports.join(", "));
    page.labelled(HEADING, "whoclosed  ", PLAIN, &text)?;
    let times = format!(
        "{} to {} UTC",
        date_time(&capture.start),
        clock(&capture.end)
    );
    page.paragraph("           ", DIM, &times)?;
    page.gap()?;
    let connections = &report.connections;
    let seen = counted(connections.seen, "connection", "connections");
    let text = format!("{seen} in {:.1} s on {host}.", capture.duration_s);
    page.paragraph("", HEADING, &text)?;
    let ends: Vec<String> = [
        (connections.closed_first, "closed here first"),
        (connections.ended_with_process, "ended with their process"),
        (
            connections.other_side_first,
            "closed by the other side first",
        ),
        (connections.broken, "broken by an RST or a timeout"),
        (connections.open, "open still"),
    ]
    .iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, how)| format!("{} {how}", count(*number)))
    .collect();
    if !ends.is_empty() {
        page.paragraph("Ended   ", PLAIN, &ends.join(", "))?;
    }
    if connections.unread > 0 {
        let text = format!(
            "{} with bytes that the process had not read, {} at most",
            count(connections.unread),
            count(connections.unread_bytes_most)
        );
        page.paragraph("Unread  ", PLAIN, &text)?;
    }
    if !report.clients.is_empty() {
        let clients: Vec<String> = report
            .clients
            .iter()
            .take(5)
            .map(|client| format!("{} {}", client.address, count(client.connections)))
            .collect();
        page.paragraph("From    ", PLAIN, &clients.join(", "))?;
    }
    limits(page, report)?;
    servers(page, report)?;
    page.gap()?;
    let text = "What nginx saw of them: `whoclosed report NGINX.trace THIS.trace`, with a trace \
                captured on nginx's host at the same time.";
    page.paragraph("", DIM, text)
}

fn servers<W: Write>(page: &mut Page<'_, W>, report: &Accepting) -> fmt::Result {
    if report.processes.is_empty() {
        return Ok(());
    }
    page.heading("Processes")?;
    for server in report.processes.iter().take(MOST_LINES) {
        let name = escape(&server.comm, NAME);
        let mut text = format!(
            "{} ({name}, child of {}) ended {}, {} of them first",
            server.pid,
            server.parent_pid,
            counted(server.connections, "connection", "connections"),
            count(server.ended_first)
        );
        if server.unread > 0 {
            text += &format!(
                ", {} with bytes unread ({} at most)",
                count(server.unread),
                count(server.unread_bytes_most)
            );
        }
        if let Some(exit) = server.exit {
            let when = server.exit_time.as_deref().map_or_else(String::new, clock);
            text += &format!("; {} at {when}", fate(exit));
        }
        page.paragraph("  ", PLAIN, &text)?;
    }
    let more = report.processes.len().saturating_sub(MOST_LINES);
    if more > 0 {
        page.paragraph(
            "  ",
            DIM,
            &format!("and {more} more: --format json has them"),
        )?;
    }
    Ok(())
}

fn fate(exit: Exit) -> String {
    match exit {
        Exit::Code(status) => format!("exited with status {status}"),
        Exit::Signal(number) => signal_name(number).map_or_else(
            || format!("was ended by signal {number}"),
            |name| format!("was ended by {name} ({number})"),
        ),
        Exit::OutOfMemory => "was killed because memory ran out".to_owned(),
    }
}

fn limits<W: Write>(page: &mut Page<'_, W>, report: &Accepting) -> fmt::Result {
    let mut limits = Vec::new();
    for (what, number) in &report.capture.lost {
        limits.push(format!("lost: {} {}", escape(what, NAME), count(*number)));
    }
    if !report.capture.complete {
        limits.push(
            "the trace has no end record: the capture was killed or is still running".to_owned(),
        );
    }
    if report.full_queues > 0 {
        limits.push(format!(
            "a listening socket's queue was full at {}",
            counted(report.full_queues, "look", "looks")
        ));
    }
    limits.extend(report.notes.iter().map(|note| escape(note, 600)));
    if limits.is_empty() {
        return Ok(());
    }
    page.gap()?;
    page.line(&[(WARNING, "Mind")])?;
    for limit in &limits {
        page.labelled(WARNING, "  ! ", PLAIN, limit)?;
    }
    Ok(())
}
