//! Notices that a process by nginx's name has started, without looking at every process
//! each time.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use super::is_comm_of;

/// A process is looked at for so long from when it is first seen: a shell that becomes
/// nginx bears its own name at first.
const LOOKED_AT: Duration = Duration::from_secs(3);

/// The processes seen so far.
#[derive(Debug, Default)]
pub struct Arrivals {
    names: Vec<String>,
    /// When each was first seen; none: before the first look.
    seen: HashMap<u32, Option<Instant>>,
}

impl Arrivals {
    /// Notices processes of these names.
    #[must_use]
    pub fn new(names: &[String]) -> Self {
        let mut arrivals = Self {
            names: names.to_vec(),
            seen: HashMap::new(),
        };
        arrivals.any();
        for seen in arrivals.seen.values_mut() {
            *seen = None;
        }
        arrivals
    }

    /// Has one started since the last call? Costs one reading of `/proc`'s names and of
    /// each new process's.
    pub fn any(&mut self) -> bool {
        let Ok(entries) = fs::read_dir("/proc") else {
            return false;
        };
        let now = Instant::now();
        let mut seen = HashMap::with_capacity(self.seen.len());
        let mut found = false;
        for entry in entries.flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let first = self.seen.get(&pid).copied().unwrap_or(Some(now));
            if first.is_some_and(|first| now.duration_since(first) < LOOKED_AT) {
                let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                if self
                    .names
                    .iter()
                    .any(|name| is_comm_of(comm.trim_end(), name))
                {
                    found = true;
                }
            }
            seen.insert(pid, first);
        }
        self.seen = seen;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn a_process_of_the_name_is_noticed_when_it_starts() {
        let names = ["sleep".to_owned()];
        let mut arrivals = Arrivals::new(&names);
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        // It has its parent's name for a moment yet.
        let comm = format!("/proc/{}/comm", child.id());
        let named = (0..10_000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n")
        });
        // Other tests may sleep, too.
        let noticed = arrivals.any();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(named && noticed);
    }
}
