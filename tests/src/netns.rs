//! A network namespace of the lab's own, joined by a veth pair to the one that the lab
//! runs in: backends behind a network, and a place for packet filters that changes
//! nothing of the host's.
//!
//! It has no name: it lives by its descriptor and by what runs in it, and the pair's
//! ends go with it. So nothing is left behind even by a lab that was killed, and
//! nothing of a dead lab is in the way of another.
//!
//! Its addresses are of 198.18.0.0/15, which RFC 2544 sets aside for such networks, and
//! of fd00::/8 (RFC 4193). Everything that needs the `ip` and `nft` commands is here.
//!
//! # What the tool sees of a backend in it
//!
//! The kernel is the same, so the tool's programs run for the backend's sockets as well,
//! and join them to nginx's by the addresses: a backend in a namespace counts as one of
//! this host, its process and exit are seen. A backend on another machine is a
//! [`Remote`]: nginx connects to a port that nftables in the namespace redirects to
//! another, where the backend listens. The addresses that the backend's sockets have are
//! then none that nginx knows, and nothing joins the two.

mod middlebox;
mod remote;

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

pub use middlebox::{Forgotten, Middlebox};
pub use remote::Remote;

use crate::clock::now_ns;
use crate::processes::{self, which};

/// The calling thread's own namespace.
const OWN: &str = "/proc/thread-self/ns/net";
/// How often other addresses are tried if somebody has the chosen ones.
const ATTEMPTS: u32 = 20;
/// Blocks of four addresses in 198.18.0.0/15.
const BLOCKS: u32 = 1 << 15;

static MADE: AtomicU32 = AtomicU32::new(0);

/// A namespace; dropping it takes the host's end of the pair away.
#[derive(Debug)]
pub struct Namespace {
    descriptor: OwnedFd,
    /// The host's end of the pair.
    interface: String,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

/// The addresses of one pair.
#[derive(Clone, Copy)]
struct Addresses {
    host: (Ipv4Addr, Ipv6Addr),
    inside: (Ipv4Addr, Ipv6Addr),
}

impl Namespace {
    /// Makes one, up and reachable.
    ///
    /// # Errors
    /// Without root, `ip` or `nft`; the message names the step.
    pub fn create() -> Result<Self> {
        let descriptor = unshared()?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let (interface, addresses) = join(&descriptor, number)?;
        // From here on a failure takes the interface away again.
        let namespace = Self {
            descriptor,
            interface,
            ipv4: addresses.inside.0,
            ipv6: addresses.inside.1,
        };
        namespace.enter(|| {
            let (ipv4, ipv6) = addresses.inside;
            command("ip", &["-batch", "-"], &interface_up("lab", ipv4, ipv6))?;
            command("ip", &["link", "set", "lo", "up"], "")?;
            // A report for every packet that deserves one, not six and then one a second.
            fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0").context("icmp_ratelimit")?;
            fs::write("/proc/sys/net/ipv6/icmp/ratelimit", "0").context("icmp/ratelimit")
        })?;
        Ok(namespace)
    }

    /// Its IPv4 address, the port left to the kernel.
    #[must_use]
    pub fn ipv4(&self) -> SocketAddr {
        SocketAddr::from((self.ipv4, 0))
    }

    /// Its IPv6 address, the port left to the kernel.
    #[must_use]
    pub fn ipv6(&self) -> SocketAddr {
        SocketAddr::from((self.ipv6, 0))
    }

    /// A port at an IPv6 address of its network that nobody has: the search for it, which
    /// takes three seconds by default, is hastened on the pair.
    ///
    /// # Errors
    /// If that cannot be set.
    pub fn nobody(&self) -> Result<SocketAddr> {
        let setting = format!(
            "/proc/sys/net/ipv6/neigh/{}/retrans_time_ms",
            self.interface
        );
        fs::write(&setting, "100").with_context(|| format!("cannot write {setting}"))?;
        let [a, b, c, d, ..] = self.ipv6.segments();
        Ok((Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0xdead), 80).into())
    }

    /// Does something with the calling thread in the namespace: sockets that it opens,
    /// and threads and processes that it starts, belong there for good.
    ///
    /// # Errors
    /// If the thread cannot go there, or `act` fails.
    ///
    /// # Panics
    /// As `act` does; the thread is back then.
    pub fn enter<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let back = fs::File::open(OWN).context("no way back from a namespace")?;
        move_into_link_name_space(self.descriptor.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot enter the lab's network namespace")?;
        let _inside = Inside(back);
        act()
    }

    /// Adds to the namespace's packet filter, in nft's language.
    ///
    /// # Errors
    /// If nft refuses it.
    pub fn filter(&self, rules: &str) -> Result<()> {
        self.enter(|| command("nft", &["-f", "-"], rules))?;
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = command("ip", &["link", "delete", &self.interface], "") {
            eprintln!("{error:#}");
        }
    }
}

/// A thread in a namespace; dropping it brings the thread back.
struct Inside(fs::File);

impl Drop for Inside {
    fn drop(&mut self) {
        let network = Some(LinkNameSpaceType::Network);
        if let Err(error) = move_into_link_name_space(self.0.as_fd(), network) {
            // All that the thread did from now on would happen to the wrong network.
            eprintln!("cannot return from the lab's network namespace: {error}");
            std::process::abort();
        }
    }
}

/// A new namespace, held by its descriptor.
fn unshared() -> Result<OwnedFd> {
    let maker = thread::spawn(|| {
        #[expect(
            deprecated,
            reason = "its fault is CLONE_FILES, which takes descriptors from their owners"
        )]
        rustix::thread::unshare(UnshareFlags::NEWNET)
            .context("cannot make a network namespace; that needs root")?;
        Ok(fs::File::open(OWN)
            .context("cannot open the new namespace")?
            .into())
    });
    maker
        .join()
        .map_err(|_panic| anyhow!("the maker of a network namespace panicked"))?
}

/// Makes the pair and gives the host's end addresses that nobody else has.
fn join(namespace: &OwnedFd, number: u32) -> Result<(String, Addresses)> {
    let us = std::process::id();
    let path = format!("/proc/{us}/fd/{}", namespace.as_raw_fd());
    let interface = format!("lab{us}-{number}");
    let create = ["link", "add", &interface, "type", "veth"];
    let peer = ["peer", "name", "lab", "netns", &path];
    command("ip", &[create.as_slice(), peer.as_slice()].concat(), "")?;
    // Without its descriptor the namespace ends after a failure, and the pair with it.
    for attempt in 0..ATTEMPTS {
        let addresses = addresses(us, number, attempt);
        if claim(&interface, addresses)? {
            return Ok((interface, addresses));
        }
    }
    bail!("found no free addresses for a network namespace in {ATTEMPTS} attempts")
}

/// Gives the host's end its addresses; false, and takes them away again, if somebody
/// else has them or took them at the same time.
fn claim(interface: &str, addresses: Addresses) -> Result<bool> {
    let (ipv4, ipv6) = addresses.host;
    let mine = format!(" {ipv4}/30 ");
    let owners = || -> Result<usize> {
        let all = command("ip", &["-o", "-4", "address", "show"], "")?;
        Ok(all.matches(&mine).count())
    };
    if owners()? > 0 {
        return Ok(false);
    }
    command("ip", &["-batch", "-"], &interface_up(interface, ipv4, ipv6))?;
    if owners()? == 1 {
        return Ok(true);
    }
    command("ip", &["address", "flush", "dev", interface], "")?;
    Ok(false)
}

/// Addresses that no other lab is likely to draw at the same time.
fn addresses(process: u32, number: u32, attempt: u32) -> Addresses {
    let time = u32::try_from(now_ns() / 1000 % 1_000_003).unwrap_or(0);
    let drawn = process
        .wrapping_mul(0x9e37_79b1)
        .wrapping_add(number)
        .wrapping_add(time.wrapping_mul(attempt));
    let block = Ipv4Addr::new(198, 18, 0, 0).to_bits() + drawn % BLOCKS * 4;
    let [.., high, low] = drawn.to_be_bytes();
    let [p3, p2, p1, p0] = process.to_be_bytes();
    let prefix = [
        u16::from_be_bytes([0xfd, 0x6c]),
        u16::from_be_bytes([p3, p2]),
        u16::from_be_bytes([p1, p0]),
        u16::from_be_bytes([high, low]),
    ];
    let [a, b, c, d] = prefix;
    Addresses {
        host: (
            Ipv4Addr::from_bits(block + 1),
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 1),
        ),
        inside: (
            Ipv4Addr::from_bits(block + 2),
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 2),
        ),
    }
}

/// Commands of `ip -batch` that give an interface its addresses and set it up.
fn interface_up(interface: &str, ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> String {
    format!(
        "address add {ipv4}/30 dev {interface}\n\
         address add {ipv6}/64 dev {interface} nodad\n\
         link set {interface} up\n"
    )
}

/// Runs a command with this on its stdin; what it printed.
fn command(name: &str, arguments: &[&str], stdin: &str) -> Result<String> {
    let program =
        which(name).with_context(|| format!("no `{name}` here: run `cargo xtask setup`"))?;
    let said = || format!("{name} {}", arguments.join(" "));
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = processes::spawn(&mut command).with_context(said)?;
    if let Some(mut pipe) = child.stdin.take() {
        // A command that fails first says why below.
        let _ = pipe.write_all(stdin.as_bytes());
    }
    let output = child.wait_with_output().with_context(said)?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{} {stdin:?}: {}: {}", said(), output.status, error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pairs_of_a_process_have_no_address_in_common() {
        let (one, other) = (addresses(77, 0, 0), addresses(77, 1, 0));
        assert_ne!(one.host.0, other.host.0);
        assert_ne!(one.host.1, other.host.1);
        assert_eq!(one.host.0.octets()[0..1], [198]);
        assert_eq!(one.host.0.to_bits() + 1, one.inside.0.to_bits());
    }
}
