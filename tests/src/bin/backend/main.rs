//! A backend of the lab as a process of its own, which can be killed. Its handle is
//! `lab::process_backend`; serving and recording are `lab::backend`'s.

mod supervisor;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use lab::backend::{Backend, Habits, Idle, Journal};
use lab::behaviour::{Behaviour, Means};

use supervisor::Supervision;

/// Serves until it is ended; prints its address once it listens.
#[derive(Parser, Debug)]
struct Arguments {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// File that records are appended to
    #[arg(long)]
    journal: PathBuf,
    /// What to do with requests that ask for nothing else
    #[arg(long)]
    behaviour: Option<Behaviour>,
    /// Close idle connections after so many nanoseconds
    #[arg(long)]
    idle_ns: Option<u64>,
    /// Close them with an RST
    #[arg(long)]
    idle_rst: bool,
    /// Close after so many answers on a connection
    #[arg(long)]
    request_limit: Option<usize>,
    /// On SIGTERM close every connection and exit with 0
    #[arg(long)]
    graceful: bool,
    /// Enter this cgroup first: its file `cgroup.procs`
    #[arg(long)]
    cgroup: Option<PathBuf>,
    #[command(flatten)]
    supervision: Supervision,
    /// Be a worker of it: stdin is the listening socket
    #[arg(long)]
    inherited: bool,
    /// As a worker, drain and exit with 0 after so many answers
    #[arg(long)]
    recycle_after: Option<usize>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(processes) = &arguments.cgroup {
        std::fs::write(processes, std::process::id().to_string())
            .with_context(|| format!("cannot enter the cgroup of {}", processes.display()))?;
    }
    let supervision = &arguments.supervision;
    if let Some(count) = supervision.workers.filter(|_| !arguments.inherited) {
        return supervisor::run(arguments.listen, arguments.journal, count, supervision);
    }
    let stop = Arc::new(AtomicBool::new(false));
    if arguments.graceful {
        signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))
            .context("cannot handle SIGTERM")?;
    }
    let habits = Habits {
        behaviour: arguments.behaviour.unwrap_or(Behaviour::ANSWER),
        idle: arguments.idle_ns.map(|after| Idle {
            after: Duration::from_nanos(after),
            means: if arguments.idle_rst {
                Means::Rst
            } else {
                Means::Fin
            },
        }),
        request_limit: arguments.request_limit,
    };
    let journal = Journal::open(&arguments.journal)?;
    if arguments.inherited {
        return work(habits, journal, arguments.recycle_after);
    }
    let backend = Backend::start_journalled(arguments.listen, habits, journal)?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", backend.address())?;
    output.flush()?;
    while !stop.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(backend);
    Ok(())
}

/// Serves as one of several, on the socket that is stdin.
fn work(habits: Habits, journal: Journal, recycle_after: Option<usize>) -> Result<()> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    let backend = Backend::start_worker(TcpListener::from(socket), habits, journal, recycle_after)?;
    while !backend.has_drained() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
