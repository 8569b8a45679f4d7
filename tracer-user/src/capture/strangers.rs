//! Workers that show themselves before the next look at nginx's processes: a line, a
//! sighting or a connection of a pid that nobody has seen is a reason to look at once. A
//! line in a container's log shows an inner pid, which means nothing until then.

use std::collections::HashSet;

use super::host::Host;
use crate::nginx::line::pid_of_line;
use crate::trace::record::{Line, Process, Record};

/// Pids of lines remembered: whoever forges lines may make up as many as there are.
const MOST: usize = 16_384;

/// The pids seen so far.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// On this host.
    pids: HashSet<u32>,
    /// In lines, by the master whose log it is.
    inner: HashSet<(u32, u32)>,
    came: bool,
}

impl Strangers {
    /// Knows the workers that there are.
    pub(super) fn new(host: &Host) -> Self {
        let mut strangers = Self::default();
        for watched in &host.watched {
            let master = watched.instance.master_pid;
            for worker in &watched.instance.workers {
                strangers.pids.insert(worker.pid);
                strangers.inner.insert((master, worker.inner_pid));
            }
        }
        strangers
    }

    /// What the kernel's programs tell of.
    pub(super) fn record(&mut self, record: &Record) {
        match record {
            Record::Connection(connection) => self.pid(connection.pid),
            Record::Logged(logged) => self.pid(logged.pid),
            Record::Line(line) => self.line(line),
            _ => {}
        }
    }

    /// A line of a log.
    pub(super) fn line(&mut self, line: &Line) {
        if let Some(pid) = line.pid {
            self.pid(pid);
        } else if let Some(pid) = pid_of_line(line.text.as_bytes()) {
            if self.inner.len() >= MOST {
                self.inner.clear();
            }
            self.came |= self.inner.insert((line.master_pid, pid));
        }
    }

    fn pid(&mut self, pid: u32) {
        self.came |= self.pids.insert(pid);
    }

    /// A worker that was found, or has gone: its pid may be another's later.
    pub(super) fn process(&mut self, process: &Process) {
        let (pid, inner) = (process.worker.pid, process.worker.inner_pid);
        if process.started {
            self.pids.insert(pid);
            self.inner.insert((process.master_pid, inner));
        } else {
            self.pids.remove(&pid);
            self.inner.retain(|(_, known)| *known != inner);
        }
    }

    /// Has one come since the last call?
    pub(super) fn came(&mut self) -> bool {
        std::mem::take(&mut self.came)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::record::Worker;

    fn line(pid: u32) -> Line {
        Line {
            file: "/log".to_owned(),
            offset: 0,
            master_pid: 1,
            read_ns: 0,
            text: format!("2026/11/23 19:00:00 [error] {pid}#{pid}: *1 text"),
            latin1: false,
            pid: None,
        }
    }

    #[test]
    fn a_pid_is_strange_once_and_again_when_its_worker_has_gone() {
        let mut strangers = Strangers::default();
        strangers.line(&line(7));
        assert!(strangers.came());
        strangers.line(&line(7));
        assert!(!strangers.came());
        let mut process = Process {
            ns: 0,
            master_pid: 1,
            worker: Worker {
                pid: 4711,
                inner_pid: 8,
            },
            started: true,
        };
        strangers.process(&process);
        strangers.line(&line(8));
        strangers.pid(4711);
        assert!(!strangers.came());
        process.started = false;
        strangers.process(&process);
        strangers.pid(4711);
        assert!(strangers.came());
        strangers.line(&line(8));
        assert!(strangers.came());
    }

    #[test]
    fn forged_pids_take_no_more_than_so_much_memory() {
        let mut strangers = Strangers::default();
        for pid in 0..100_000 {
            strangers.line(&line(pid));
        }
        assert!(strangers.inner.len() <= MOST);
    }
}
