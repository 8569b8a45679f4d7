//! gunicorn: sync workers that its arbiter ends when they take too long, gthread workers
//! that keep connections, and workers of both kinds that end after so many requests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::idle::{Closes, Idle};
use super::places::version;
use super::race::Race;
use super::recycling::{Recycler, Recycling};
use super::timeout::{Supervisor, Timeout};
use super::{Checks, Places, Process, Server, Setting};
use crate::draw::Draw;
use crate::nginx::{Configuration, Upstream};
use crate::processes::bound_to_us;

pub(super) const SERVER: Server = Server {
    name: "gunicorn",
    description: "sync --timeout 3 s, gthread --keep-alive 2 s, --max-requests 30",
    prepare,
};

/// gthread's loop wakes at least once a second and then looks at its idle connections.
const CLOSES: Closes = Closes {
    after: Duration::from_secs(2),
    looks_every: Duration::from_secs(1),
};
const TIMED_OUT: &str = "WORKER TIMEOUT (pid:";
const EXITED: &str = "Worker exiting (pid: ";

fn prepare(places: &Places, draw: &mut Draw) -> Result<Checks> {
    let gunicorn = places.python("gunicorn")?;
    let version = version(&gunicorn, "--version")?;
    let start = |kind: &str, block, text: &str, arguments: &[&str]| -> Result<Setting> {
        Ok(Setting {
            server: format!("gunicorn {version} {kind}"),
            text: text.to_owned(),
            process: Arc::new(started(&gunicorn, kind, arguments)?),
            block,
        })
    };
    let slow = start(
        "sync",
        "gunicorn_slow",
        "--timeout 3",
        &["--workers", "4", "--timeout", "3"],
    )?;
    let idle = start("gthread", "gthread", "--keep-alive 2 (default)", &[])?;
    let raced = start("gthread", "gthread", "--keep-alive 2 (default)", &[])?;
    let recycled: &[&str] = &["--workers", "3", "--max-requests", "30"];
    let sync = start("sync", "gunicorn", "--max-requests 30", recycled)?;
    let threads = start("gthread", "gthread_kept", "--max-requests 30", recycled)?;

    let supervisor = Supervisor {
        ended: |process| workers(process, TIMED_OUT),
        configure,
        // What Python runs is interrupted and answered with 500; what is stuck outside
        // of Python is killed a second later.
        lost: "?stuck",
        answered: Some("?hang"),
        measured: None,
        means: &["fin", "rst"],
    };
    let recycler = Recycler {
        ended: |process| workers(process, EXITED),
        configure,
    };
    Ok(vec![
        Box::new(Timeout::new(slow, Duration::from_secs(3), supervisor, draw)),
        Box::new(Idle::new(idle, CLOSES, draw)),
        Box::new(Race::new(raced, CLOSES, draw)),
        Box::new(Recycling::new(sync, 30, recycler)),
        Box::new(Recycling::new(threads, 30, recycler)),
    ])
}

fn started(gunicorn: &Path, kind: &str, arguments: &[&str]) -> Result<Process> {
    Process::start(|address, folder| {
        fs::write(folder.join("wsgi_app.py"), include_str!("apps/wsgi_app.py"))?;
        let mut command = bound_to_us(gunicorn);
        // It keeps a socket for its control below the home folder.
        command
            .env("HOME", folder)
            .args(["wsgi_app:application", "--worker-class", kind, "--bind"])
            .arg(address.to_string())
            .args(arguments);
        if kind == "gthread" {
            command.args(["--threads", "8"]);
        }
        Ok(command)
    })
}

fn configure(setting: &Setting, block: &str, configuration: &mut Configuration) {
    let upstream = Upstream::new(block, setting.process.address()).keepalive(16);
    configuration.upstreams.push(upstream);
}

/// Pids in its log after these words.
fn workers(process: &Process, before: &str) -> BTreeSet<u32> {
    let log = process.text("log");
    log.lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(before)?;
            rest.split(')').next()?.trim().parse().ok()
        })
        .collect()
}
