//! nginx as it runs in a container: in pid, mount and network namespaces of its own, its
//! prefix where nobody outside finds it, process 1, its stderr a pipe that somebody
//! else reads.
//!
//! That is what container runtimes make of it, as far as a process outside can tell; no
//! image is unpacked and nothing is confined.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::os::fd::AsFd;

use crate::netns::Namespace;
use crate::nginx::{Configuration, Nginx, Place, binary};
use crate::processes;

/// nginx's prefix as it sees it: a place that every system has and nobody uses.
pub const PREFIX: &str = "/mnt";
/// An error log that an image would link to stderr, relative to the prefix.
pub const LINKED_LOG: &str = "logs/linked.log";

/// A container without contents. Several have the same addresses and pids inside.
#[derive(Debug)]
pub struct Container {
    network: Namespace,
}

impl Container {
    /// Makes one.
    ///
    /// # Errors
    /// As [`Namespace::create`].
    pub fn create() -> Result<Self> {
        let network = Namespace::create()?;
        Ok(Self { network })
    }

    /// Does something in its network, with the calling thread: what it opens there, and
    /// the threads that it starts, stay there.
    ///
    /// # Errors
    /// As `act`.
    pub fn enter<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        self.network.enter(act)
    }

    /// Starts nginx in it. Whatever it says on stderr comes to its prefix's
    /// `logs/stderr`, outside.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    pub fn nginx(&self, configuration: &Configuration) -> Result<Nginx> {
        self.nginx_of(&binary()?, configuration)
    }

    /// The same with a binary of the caller's.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    pub fn nginx_of(&self, binary: &Path, configuration: &Configuration) -> Result<Nginx> {
        self.enter(|| Nginx::start_at(binary, configuration, Place::Container))
    }
}

/// nginx with this prefix, in a mount namespace of its own.
pub(crate) fn command(binary: &Path, prefix: &Path) -> Result<Command> {
    let unshare = processes::which("unshare").context("no unshare: install util-linux")?;
    let mut command = processes::bound_to_us(&unshare);
    let script = format!(
        "mount --bind \"$1\" {PREFIX} && mount -t proc proc /proc && \
         ln -sf /dev/stderr {PREFIX}/{LINKED_LOG} && \
         exec \"$2\" -p {PREFIX} -e stderr -c nginx.conf"
    );
    command
        .args(["--mount", "sh", "-c", &script, "container"])
        .arg(prefix)
        .arg(binary);
    Ok(command)
}

/// Starts a command as process 1 of a pid namespace of its own.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    let back = File::open("/proc/thread-self/ns/pid").context("no way back from a namespace")?;
    #[expect(
        deprecated,
        reason = "its fault is CLONE_FILES, which takes descriptors from their owners"
    )]
    rustix::thread::unshare(UnshareFlags::NEWPID)
        .context("cannot make a pid namespace; that needs root")?;
    // Only children go there, and only the first is process 1.
    let child = command.spawn().context("cannot run unshare");
    move_into_link_name_space(back.as_fd(), Some(LinkNameSpaceType::ProcessID))
        .context("cannot return from a pid namespace")?;
    child
}
