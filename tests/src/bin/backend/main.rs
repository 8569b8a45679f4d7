//! A backend of the lab as a process of its own, which can be killed. Its handle is
//! `lab::process_backend`; serving and recording are `lab::backend`'s.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use lab::backend::{Backend, Habits, Idle, Journal};
use lab::behaviour::{Behaviour, Means};

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
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
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
