//! Backends that let nobody in.

use super::*;

/// A port on which nobody listens, and nobody else can: bound, never listening.
#[derive(Debug)]
pub struct Refusing {
    address: SocketAddr,
    _bound: OwnedFd,
}

impl Refusing {
    /// Reserves such a port on `address` (port 0: any).
    ///
    /// # Errors
    /// If it cannot be bound.
    pub fn start(address: SocketAddr) -> Result<Self> {
        let family = if address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let bound = rustix::net::socket(family, SocketType::STREAM, None).context("socket()")?;
        rustix::net::bind(&bound, &address).with_context(|| format!("cannot bind {address}"))?;
        let address = SocketAddr::try_from(rustix::net::getsockname(&bound)?)
            .context("getsockname() gave no internet address")?;
        Ok(Self {
            address,
            _bound: bound,
        })
    }

    /// Where connects are refused.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A port whose accept queue is full: the kernel drops every SYN to it
/// (net/ipv4/tcp_input.c `tcp_conn_request`).
#[derive(Debug)]
pub struct Overfull {
    address: SocketAddr,
    _listening: OwnedFd,
    _queued: Vec<TcpStream>,
}

impl Overfull {
    /// Listens on a port of IPv4 loopback and fills its queue.
    ///
    /// # Errors
    /// If it cannot listen, or the queue does not fill.
    pub fn start() -> Result<Self> {
        /// On loopback a connect is answered before the call returns, or never.
        const UNANSWERED: Duration = Duration::from_millis(300);
        const MOST: usize = 16;
        let listening = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        rustix::net::bind(&listening, &IPV4).context("cannot bind")?;
        rustix::net::listen(&listening, 0).context("cannot listen")?;
        let address = SocketAddr::try_from(rustix::net::getsockname(&listening)?)
            .context("getsockname() gave no internet address")?;
        let mut queued = Vec::new();
        while queued.len() < MOST {
            match TcpStream::connect_timeout(&address, UNANSWERED) {
                Ok(stream) => queued.push(stream),
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                    return Ok(Self {
                        address,
                        _listening: listening,
                        _queued: queued,
                    });
                }
                Err(error) => return Err(error).context("cannot fill the accept queue"),
            }
        }
        bail!("the accept queue took {MOST} connections and is not full")
    }

    /// Where connects are not answered.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
