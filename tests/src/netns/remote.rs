//! A backend of which nothing is visible but its packets, as if on another machine.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;

use super::Namespace;
use crate::backend::{Backend, Habits, Refusing};

/// A place for such backends, one after the other: the address that nginx connects to.
#[derive(Debug)]
pub struct Remote {
    namespace: Arc<Namespace>,
    address: SocketAddr,
    listens: SocketAddr,
    /// Nobody else in the namespace gets its port.
    _reserved: Refusing,
}

impl Remote {
    /// Prepares one at one of the namespace's addresses. Connects are refused so far.
    ///
    /// # Errors
    /// If there is no port, or nft refuses to redirect it.
    pub fn prepare(namespace: &Arc<Namespace>, address: SocketAddr) -> Result<Self> {
        let reserve = || Refusing::start(address);
        let (reserved, listens) = namespace.enter(|| Ok((reserve()?, reserve()?)))?;
        let (address, listens) = (reserved.address(), listens.address());
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        namespace.filter(&format!(
            "table inet remote {{
                chain arriving {{
                    type nat hook prerouting priority dstnat
                    {family} daddr {} tcp dport {} redirect to :{}
                }}
            }}",
            address.ip(),
            address.port(),
            listens.port()
        ))?;
        Ok(Self {
            namespace: Arc::clone(namespace),
            address,
            listens,
            _reserved: reserved,
        })
    }

    /// Where nginx connects to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its backends listen, which nginx does not know.
    #[must_use]
    pub fn listens(&self) -> SocketAddr {
        self.listens
    }

    /// Starts a backend there; the one before it has to have ended.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start(&self, habits: Habits) -> Result<Backend> {
        let start = || Backend::start(self.listens, habits);
        let backend = self.namespace.enter(start)?;
        Ok(backend
            .known_as(self.address)
            .keeping(Arc::clone(&self.namespace)))
    }
}

impl Namespace {
    /// A backend in it, to which nginx connects directly: the kernel shows its sockets
    /// and process like those of any local one.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn backend(self: &Arc<Self>, address: SocketAddr, habits: Habits) -> Result<Backend> {
        let backend = self.enter(|| Backend::start(address, habits))?;
        Ok(backend.keeping(Arc::clone(self)))
    }

    /// The same behind a redirection: nothing of it is visible. See [`Remote`].
    ///
    /// # Errors
    /// If it cannot listen, or nft refuses to redirect it.
    pub fn remote_backend(
        self: &Arc<Self>,
        address: SocketAddr,
        habits: Habits,
    ) -> Result<Backend> {
        let remote = Remote::prepare(self, address)?;
        Ok(remote.start(habits)?.keeping(remote))
    }
}
