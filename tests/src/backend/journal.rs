//! A backend's records as lines of JSON in a file, each written whole by one write(2)
//! before the act that it tells of is committed: what was done before a SIGKILL stands.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Connection, End, Request};

/// A file that records are appended to.
#[derive(Debug)]
pub struct Journal {
    file: File,
}

/// A connection as it is now, with its latest request only.
#[derive(Serialize, Deserialize)]
struct Entry {
    pid: u32,
    connection: usize,
    local: SocketAddr,
    remote: SocketAddr,
    accepted_ns: u64,
    requests: usize,
    latest: Option<Request>,
    end: Option<End>,
}

impl Journal {
    /// Opens or creates the file; what stands in it stays.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .with_context(|| format!("cannot open the journal {}", path.display()))?;
        Ok(Self { file })
    }

    pub(super) fn append(&self, index: usize, connection: &Connection) -> Result<()> {
        let entry = Entry {
            pid: std::process::id(),
            connection: index,
            local: connection.local,
            remote: connection.remote,
            accepted_ns: connection.accepted_ns,
            requests: connection.requests.len(),
            latest: connection.requests.last().cloned(),
            end: connection.end,
        };
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        // With O_APPEND one write is one piece, whoever else writes.
        let written = (&self.file)
            .write(&line)
            .context("cannot write the journal")?;
        ensure!(written == line.len(), "the journal took a part of a line");
        Ok(())
    }
}

/// The connections in a journal, in the order of their acceptance, each with the pid of
/// the process that held it. A last line without its end is not there yet.
///
/// # Errors
/// If the file cannot be read, or a whole line is no record.
pub fn read(path: &Path) -> Result<Vec<(u32, Connection)>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the journal {}", path.display()))?;
    let mut found: Vec<(u32, Connection)> = Vec::new();
    let mut places = BTreeMap::new();
    for line in text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
    {
        let entry: Entry =
            serde_json::from_str(line).with_context(|| format!("no record: {line}"))?;
        let place = *places
            .entry((entry.pid, entry.connection))
            .or_insert_with(|| {
                let connection = Connection {
                    local: entry.local,
                    remote: entry.remote,
                    accepted_ns: entry.accepted_ns,
                    requests: Vec::new(),
                    end: None,
                    tls: None,
                };
                found.push((entry.pid, connection));
                found.len() - 1
            });
        let connection = &mut found[place].1;
        connection.end = entry.end;
        if let Some(request) = entry.latest {
            connection
                .requests
                .truncate(entry.requests.saturating_sub(1));
            connection.requests.push(request);
        }
    }
    Ok(found)
}
