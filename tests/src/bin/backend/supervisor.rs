//! The parent of worker processes: opens the socket, starts them, looks after them.
//!
//! A worker is this program again with the socket as its stdin, so nothing is forked
//! that has threads.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use lab::backend::read_journal;
use lab::clock::{between, now_ns};
use lab::process_backend::{Event, note};
use lab::processes;
use rustix::process::Signal;

/// Between two looks for workers that have ended.
const TURN: Duration = Duration::from_millis(3);

/// What only a supervisor needs.
#[derive(Args, Clone, Debug)]
pub(super) struct Supervision {
    /// Serve with so many worker processes
    #[arg(long)]
    pub(super) workers: Option<usize>,
    /// File that the supervisor's acts are appended to
    #[arg(long, requires = "workers")]
    supervisor_journal: Option<PathBuf>,
    /// Kill a worker that works on one request for longer
    #[arg(long)]
    work_limit_ns: Option<u64>,
    /// Look for such workers so often
    #[arg(long, default_value_t = 1_000_000_000)]
    look_ns: u64,
    /// Send SIGABRT first, SIGKILL at the next look
    #[arg(long)]
    abort_first: bool,
}

struct Worker {
    child: Child,
    aborted: bool,
}

/// Supervises until it is killed.
pub(super) fn run(
    listen: SocketAddr,
    journal: PathBuf,
    count: usize,
    supervision: &Supervision,
) -> Result<()> {
    let listener =
        TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    let supervisor = Supervisor {
        journal,
        events: supervision
            .supervisor_journal
            .clone()
            .context("a supervisor needs --supervisor-journal")?,
        limit: supervision.work_limit_ns.map(Duration::from_nanos),
        abort_first: supervision.abort_first,
        listener,
    };
    let mut workers = Vec::new();
    for _ in 0..count {
        workers.push(supervisor.start()?);
    }
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", supervisor.listener.local_addr()?)?;
    output.flush()?;
    let every = Duration::from_nanos(supervision.look_ns);
    let mut next_look = Instant::now() + every;
    loop {
        for worker in &mut workers {
            supervisor.replace_if_ended(worker)?;
        }
        if Instant::now() >= next_look {
            next_look += every;
            supervisor.look(&mut workers)?;
        }
        std::thread::sleep(TURN);
    }
}

struct Supervisor {
    listener: TcpListener,
    journal: PathBuf,
    events: PathBuf,
    limit: Option<Duration>,
    abort_first: bool,
}

impl Supervisor {
    fn start(&self) -> Result<Worker> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let socket = OwnedFd::from(
            self.listener
                .try_clone()
                .context("cannot copy the socket")?,
        );
        let child = processes::bound_to_us(&program)
            .args(std::env::args_os().skip(1))
            .arg("--inherited")
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start a worker")?;
        self.note(&Event::Started {
            pid: child.id(),
            at_ns: now_ns(),
        })?;
        Ok(Worker {
            child,
            aborted: false,
        })
    }

    fn note(&self, event: &Event) -> Result<()> {
        note(&self.events, event)
    }

    fn replace_if_ended(&self, worker: &mut Worker) -> Result<()> {
        if let Some(status) = worker.child.try_wait()? {
            self.note(&Event::Ended {
                pid: worker.child.id(),
                seen_ns: now_ns(),
                status: status.into_raw(),
            })?;
            *worker = self.start()?;
        }
        Ok(())
    }

    /// Ends workers that work on a request for too long.
    fn look(&self, workers: &mut [Worker]) -> Result<()> {
        let Some(limit) = self.limit else {
            return Ok(());
        };
        // Before the first connection there is no journal.
        let records = if self.journal.exists() {
            read_journal(&self.journal)?
        } else {
            Vec::new()
        };
        for worker in workers {
            let pid = worker.child.id();
            let now = now_ns();
            let held = records
                .iter()
                .filter(|(owner, record)| *owner == pid && record.is_open());
            let overdue: Vec<String> = held
                .filter_map(|(_, record)| record.requests.last())
                .filter(|request| request.answered_ns().is_none())
                .filter(|request| between(request.arrived_ns, now) > limit)
                .map(|request| request.target.clone())
                .collect();
            if overdue.is_empty() {
                continue;
            }
            let signal = if self.abort_first && !worker.aborted {
                Signal::ABORT
            } else {
                Signal::KILL
            };
            worker.aborted = true;
            self.note(&Event::Killed {
                pid,
                at_ns: now,
                signal: signal.as_raw(),
                overdue,
            })?;
            // It is our child and not waited for yet: the pid is still its.
            processes::signal(pid, signal)?;
        }
        Ok(())
    }
}
