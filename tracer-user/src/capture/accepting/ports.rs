//! The ports whose accepted connections are recorded, and the processes that listen
//! there, in every network namespace that a process of this host is in. Asked for by
//! netlink, and of `/proc` for the processes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context as _, Result, bail};
use procfs::process::{FDTarget, Process, all_processes};

use super::super::listeners::{Listeners, Listening};

/// What the user asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Ports.
    pub ports: BTreeSet<u16>,
    /// Names of processes: the ports that they listen at count.
    pub names: Vec<String>,
}

impl Asked {
    /// Nothing was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.names.is_empty()
    }
}

/// Who listens at a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Servers {
    /// Processes by pid, with their names.
    pub(super) processes: BTreeMap<u32, String>,
}

/// Ports and who listens there.
pub(super) type Ports = BTreeMap<u16, Servers>;

/// All processes, with the listening sockets of the namespaces that they are in.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) listeners: Listeners,
}

impl Host {
    /// Opens a netlink socket in each network namespace of this host.
    pub(super) fn open(problems: &mut Vec<String>) -> Result<Self> {
        let mut one_of_each = BTreeMap::new();
        for process in processes()? {
            let Ok(namespaces) = process.namespaces() else {
                continue;
            };
            let network = namespaces.0.get(std::ffi::OsStr::new("net"));
            if let (Some(network), Ok(pid)) = (network, u32::try_from(process.pid)) {
                one_of_each.entry(network.identifier).or_insert(pid);
            }
        }
        let pids: Vec<u32> = one_of_each.into_values().collect();
        Ok(Self {
            listeners: Listeners::open(&pids, problems),
        })
    }

    /// The ports at which somebody listens now, in whatever namespace.
    pub(super) fn listening(&mut self, problems: &mut Vec<String>) -> Result<Ports> {
        let sockets: HashMap<u64, Listening> = self
            .listeners
            .all(problems)
            .into_iter()
            .map(|listening| (listening.inode, listening))
            .collect();
        let mut ports = Ports::new();
        for listening in sockets.values() {
            ports.entry(listening.port).or_default();
        }
        for process in processes()? {
            let (Ok(pid), Ok(descriptors)) = (u32::try_from(process.pid), process.fd()) else {
                continue;
            };
            for descriptor in descriptors.flatten() {
                let FDTarget::Socket(inode) = descriptor.target else {
                    continue;
                };
                if let Some(listening) = sockets.get(&inode)
                    && let Ok(stat) = process.stat()
                {
                    let servers = ports.entry(listening.port).or_default();
                    servers.processes.insert(pid, stat.comm);
                }
            }
        }
        Ok(ports)
    }

    /// Those that were asked for. A port counts whoever listens there, and even if
    /// nobody does yet; a name counts for the ports at which such a process listens.
    ///
    /// # Errors
    /// If no process of a name listens anywhere, or the kernel cannot be asked for that.
    pub(super) fn asked(&mut self, asked: &Asked, problems: &mut Vec<String>) -> Result<Ports> {
        let told = problems.len();
        let listening = self.listening(problems)?;
        // Then nobody knows who listens, and no list is not an empty one.
        let blind = problems.get(told).filter(|_| listening.is_empty()).cloned();
        if let (Some(name), Some(problem)) = (asked.names.first(), &blind) {
            bail!("cannot tell at which ports processes named {name} listen: {problem}");
        }
        let mut found = Ports::new();
        for name in &asked.names {
            let before = found.len();
            found.extend(
                listening
                    .iter()
                    .filter(|(_, servers)| servers.has(name))
                    .map(|(port, servers)| (*port, servers.clone())),
            );
            if found.len() == before && !found.values().any(|servers| servers.has(name)) {
                bail!(
                    "no process named {name} listens at a port here; listening here: {}",
                    list(&listening)
                );
            }
        }
        for port in &asked.ports {
            let servers = listening.get(port).cloned();
            if servers.is_none() && blind.is_none() {
                problems.push(format!(
                    "nothing listens at port {port} yet; its connections are recorded once \
                     something does"
                ));
            }
            found.insert(*port, servers.unwrap_or_default());
        }
        Ok(found)
    }
}

impl Servers {
    fn has(&self, name: &str) -> bool {
        self.processes
            .iter()
            .any(|(pid, comm)| comm == name || binary_is(*pid, name))
    }

    fn names(&self) -> String {
        let names: BTreeSet<&str> = self.processes.values().map(String::as_str).collect();
        Vec::from_iter(names).join(", ")
    }
}

/// `8000 (gunicorn), 22 (sshd)`; the first twenty.
pub(super) fn list(ports: &Ports) -> String {
    const MOST: usize = 20;
    let mut texts: Vec<String> = ports
        .iter()
        .take(MOST)
        .map(|(port, servers)| match servers.names() {
            names if names.is_empty() => port.to_string(),
            names => format!("{port} ({names})"),
        })
        .collect();
    if ports.len() > MOST {
        texts.push(format!("and {} more", ports.len() - MOST));
    }
    if texts.is_empty() {
        return "nothing".to_owned();
    }
    texts.join(", ")
}

fn processes() -> Result<impl Iterator<Item = Process>> {
    // One may end while it is looked at.
    Ok(all_processes()
        .context("cannot list the processes in /proc")?
        .flatten())
}

/// A program may have given its main thread another name.
fn binary_is(pid: u32, name: &str) -> bool {
    i32::try_from(pid)
        .ok()
        .and_then(|pid| Process::new(pid).ok()?.exe().ok())
        .is_some_and(|path| path.file_name().is_some_and(|file| file == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_port_is_found_with_the_process_that_listens_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut problems = Vec::new();
        let mut host = Host::open(&mut problems).unwrap();
        let asked = Asked {
            ports: BTreeSet::from([port]),
            names: Vec::new(),
        };
        let found = host.asked(&asked, &mut problems).unwrap();
        let own = std::process::id();
        assert!(found[&port].processes.contains_key(&own), "{found:?}");
    }

    #[test]
    fn where_nobody_of_a_name_listens_those_that_do_are_told() {
        let mut host = Host::open(&mut Vec::new()).unwrap();
        let nobody = Asked {
            names: vec!["no-such-program".to_owned()],
            ..Asked::default()
        };
        let error = host.asked(&nobody, &mut Vec::new()).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("no-such-program"), "{said}");
        assert!(said.contains("listening here: "), "{said}");
    }

    #[test]
    fn a_long_list_of_ports_is_cut() {
        assert_eq!(list(&Ports::new()), "nothing");
        let many: Ports = (1..=30).map(|port| (port, Servers::default())).collect();
        assert!(list(&many).ends_with("20, and 10 more"));
    }
}
