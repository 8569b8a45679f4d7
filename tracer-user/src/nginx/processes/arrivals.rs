//! Notices that a process by nginx's name has started, without looking at every process
//! each time.

use std::collections::HashMap;
use std::fs;

use super::is_comm_of;

/// A process is looked at so many times from when it is first seen: a shell that becomes
/// nginx bears its own name at first.
const LOOKS: u8 = 3;

/// The processes seen so far.
#[derive(Debug, Default)]
pub struct Arrivals {
    names: Vec<String>,
    looks: HashMap<u32, u8>,
}

impl Arrivals {
    /// Notices processes of these names.
    #[must_use]
    pub fn new(names: &[String]) -> Self {
        let mut arrivals = Self {
            names: names.to_vec(),
            looks: HashMap::new(),
        };
        arrivals.any();
        for looks in arrivals.looks.values_mut() {
            *looks = LOOKS;
        }
        arrivals
    }

    /// Has one started since the last call? Costs one reading of `/proc`'s names and of
    /// each new process's.
    pub fn any(&mut self) -> bool {
        let Ok(entries) = fs::read_dir("/proc") else {
            return false;
        };
        let mut looks = HashMap::with_capacity(self.looks.len());
        let mut found = false;
        for entry in entries.flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let mut looked = self.looks.get(&pid).copied().unwrap_or(0);
            if looked < LOOKS {
                looked += 1;
                let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                if self
                    .names
                    .iter()
                    .any(|name| is_comm_of(comm.trim_end(), name))
                {
                    found = true;
                }
            }
            looks.insert(pid, looked);
        }
        self.looks = looks;
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
