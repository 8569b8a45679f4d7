//! Listening sockets of this host whose queue of connections to accept is full: the
//! kernel drops what comes to them, and nginx sees its connect() time out. Asked for
//! by netlink (sock_diag(7)) in the namespaces of the agent and of each master.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result, bail};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags,
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::trace::record::Listener;

/// Netlink sockets by the inode number of the network namespace that each was made in,
/// which is the one that it tells of.
#[derive(Debug, Default)]
pub(super) struct Listeners(BTreeMap<u32, Socket>);

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listening {
    pub(super) port: u16,
    pub(super) inode: u64,
}

impl Listeners {
    /// Opens one in the agent's own network namespace and one in that of each process,
    /// where it is another. What cannot be opened is told in `problems`.
    pub(super) fn open(pids: &[u32], problems: &mut Vec<String>) -> Self {
        let mut this = Self::default();
        let own = std::iter::once("/proc/thread-self/ns/net".to_owned());
        for path in own.chain(pids.iter().map(|pid| format!("/proc/{pid}/ns/net"))) {
            if let Err(error) = this.add(&path) {
                problems.push(unseen(&error));
            }
        }
        this
    }

    fn add(&mut self, path: &str) -> Result<()> {
        let namespace = File::open(path).with_context(|| format!("cannot open {path}"))?;
        let inode = u32::try_from(namespace.metadata()?.ino())?;
        if self.0.contains_key(&inode) {
            return Ok(());
        }
        let socket = if self.0.is_empty() {
            socket()
        } else {
            // A thread of its own moves there, and ends there.
            std::thread::spawn(move || {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), kind)?;
                socket()
            })
            .join()
            .unwrap_or_else(|_panic| Err(io::Error::other("the thread panicked")))
        };
        self.0
            .insert(inode, socket.with_context(|| format!("in {path}"))?);
        Ok(())
    }

    /// All of them. A namespace that cannot be asked is told in `problems`, and not asked
    /// again.
    pub(super) fn all(&mut self, problems: &mut Vec<String>) -> Vec<Listening> {
        let mut found = Vec::new();
        self.each(problems, |_, header| {
            found.push(Listening {
                port: header.socket_id.source_port,
                inode: u64::from(header.inode),
            });
        });
        found
    }

    /// Those whose queue is full now. A namespace that cannot be asked is told in
    /// `problems`, and not asked again.
    pub(super) fn full(&mut self, ns: u64, problems: &mut Vec<String>) -> Vec<Listener> {
        let mut found = Vec::new();
        self.each(problems, |netns, header| {
            found.extend(full(ns, netns, header));
        });
        found
    }

    fn each(&mut self, problems: &mut Vec<String>, mut act: impl FnMut(u32, &InetResponseHeader)) {
        self.0.retain(|&netns, socket| {
            let asked = [AF_INET, AF_INET6]
                .into_iter()
                .try_for_each(|family| listening(socket, family, |header| act(netns, header)));
            if let Err(error) = &asked {
                problems.push(unseen(error));
            }
            asked.is_ok()
        });
    }
}

fn unseen(error: &anyhow::Error) -> String {
    format!(
        "cannot look at listening sockets ({error:#}): backends on this host whose queues are \
         full are not recognised"
    )
}

fn socket() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // The kernel answers within the call that asks: there is nothing to wait for.
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// Asks for all listening TCP sockets of a family.
fn listening(socket: &Socket, family: u8, mut each: impl FnMut(&InetResponseHeader)) -> Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::LISTEN,
        socket_id: if family == AF_INET {
            SocketId::new_v4()
        } else {
            SocketId::new_v6()
        },
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).context("sock_diag request")?;
    loop {
        let (answer, _) = socket.recv_from_full().context("sock_diag answer")?;
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<SockDiagMessage>::deserialize(rest).context("sock_diag answer")?;
            // Messages are aligned to four bytes.
            let length = usize::try_from(message.header.length)?.next_multiple_of(4);
            rest = rest.get(length.max(4)..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    each(&response.header);
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => {
                    return Err(error.to_io()).context("sock_diag answer");
                }
                NetlinkPayload::Overrun(_) => bail!("sock_diag answer: overrun"),
                _ => {}
            }
        }
    }
}

/// The record of a listening socket whose queue is full: as the kernel's
/// `sk_acceptq_is_full` has it, one more waits than the limit says. Of a listening
/// socket, the queues are those of connections (net/ipv4/tcp_diag.c).
fn full(ns: u64, netns: u32, header: &InetResponseHeader) -> Option<Listener> {
    let (queued, limit) = (header.recv_queue, header.send_queue);
    (queued > limit).then(|| Listener {
        ns,
        address: header.socket_id.source_address.to_canonical(),
        port: header.socket_id.source_port,
        netns,
        queued,
        limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listening_socket_of_each_family_is_found_with_its_limit() {
        let listeners = ["127.0.0.1:0", "[::1]:0"].map(|at| TcpListener::bind(at).unwrap());
        let socket = socket().unwrap();
        for (listener, family) in listeners.iter().zip([AF_INET, AF_INET6]) {
            let own = listener.local_addr().unwrap();
            let mut found = Vec::new();
            listening(&socket, family, |header| found.push(header.clone())).unwrap();
            let header = found
                .iter()
                .find(|header| header.socket_id.source_port == own.port())
                .unwrap();
            assert_eq!(header.socket_id.source_address, own.ip());
            assert_eq!(header.recv_queue, 0);
            assert!(header.send_queue > 0);
            assert_eq!(full(1, 2, header), None);
        }
    }

    #[test]
    fn a_queue_is_full_when_one_more_waits_than_its_limit() {
        let mut header = InetResponseHeader {
            family: AF_INET,
            state: 10,
            timer: None,
            socket_id: SocketId::new_v4(),
            recv_queue: 4,
            send_queue: 4,
            uid: 0,
            inode: 0,
        };
        assert_eq!(full(1, 2, &header), None);
        header.recv_queue = 5;
        let found = full(1, 2, &header).unwrap();
        assert_eq!((found.queued, found.limit, found.netns), (5, 4, 2));
    }

    #[test]
    fn a_process_in_the_same_namespace_needs_no_second_socket() {
        let mut problems = Vec::new();
        let mut listeners = Listeners::open(&[std::process::id()], &mut problems);
        assert_eq!(listeners.0.len(), 1);
        listeners.full(1, &mut problems);
        assert_eq!(problems, [""; 0]);
    }
}
