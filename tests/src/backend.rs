//! Backends that misbehave on purpose, as threads of this process on loopback.
//!
//! Each connection has a record, and every act stands in it before it is committed:
//! these records are the truth that a capture is held against. What to do with a
//! request is in [`crate::behaviour`]; this module serves and remembers.

mod acting;
mod connection;
mod journal;
mod listeners;
mod record;
mod worker;

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketType};

pub use journal::{Journal, read as read_journal};
pub use listeners::{Overfull, Refusing};
pub use record::{Answer, Connection, End, Ended, Request, Why};

use self::worker::Worker;
use crate::behaviour::{Behaviour, Means};
use crate::clock::{PATIENCE, wait_for};
use crate::tls_backend::Tls;

/// IPv4 loopback, port left to the kernel.
pub const IPV4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// IPv6 loopback, port left to the kernel.
pub const IPV6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

/// How a backend treats idle connections.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// Silence after the last answer before it closes; a connection that never served
    /// a request stays.
    pub after: Duration,
    /// How it closes.
    pub means: Means,
}

/// A backend's habits.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// What it does with requests that ask for nothing else.
    pub behaviour: Behaviour,
    /// When it closes idle connections; never without.
    pub idle: Option<Idle>,
    /// Closes, unannounced, after so many answers on a connection.
    pub request_limit: Option<usize>,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            behaviour: Behaviour::ANSWER,
            idle: None,
            request_limit: None,
        }
    }
}

/// A running backend; dropping it ends its connections and threads.
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Dropping this end makes the other readable: every thread polls that.
    stop: Option<UnixStream>,
    listening: Option<JoinHandle<()>>,
    /// What has to live as long as it does.
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

/// What a backend's threads share.
struct Shared {
    habits: Habits,
    /// Its end of every connection as nginx knows it, where that is another address
    /// than the sockets have.
    known_as: OnceLock<SocketAddr>,
    records: Mutex<Vec<Connection>>,
    /// Told of every change to `records`.
    changed: Condvar,
    held: Mutex<bool>,
    /// Told when `held` becomes false.
    released: Condvar,
    gathering: Mutex<Gathering>,
    /// Told when a new generation begins.
    gathered: Condvar,
    seen: Mutex<HashSet<String>>,
    threads: AtomicUsize,
    /// Where every change of a record is written before the act is committed.
    journal: Option<Journal>,
    /// It is one of several processes on one listening socket.
    worker: Option<Worker>,
    /// It speaks FastCGI, not HTTP.
    fastcgi: AtomicBool,
    /// How it speaks TLS, if it does.
    tls: Option<Tls>,
    stopped: UnixStream,
}

impl Shared {
    /// Writes a connection's latest change to the journal. The caller holds the records.
    fn note(&self, index: usize, connection: &Connection) {
        if let Some(journal) = &self.journal
            && let Err(error) = journal.append(index, connection)
        {
            // An act that is not on record would be a lie: the process ends instead.
            eprintln!("backend: {error:#}");
            std::process::exit(70);
        }
    }

    /// Lets held closes happen.
    fn release(&self) {
        *lock(&self.held) = false;
        self.released.notify_all();
    }

    /// Lets all requests go that wait for each other.
    fn next_generation(&self, gathering: &mut Gathering) {
        gathering.waiting = 0;
        gathering.generation += 1;
        self.gathered.notify_all();
    }
}

/// Requests that wait for each other.
#[derive(Default)]
struct Gathering {
    waiting: usize,
    generation: u64,
}

impl Backend {
    /// Listens on `address` (port 0: any) and serves.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start(address: SocketAddr, habits: Habits) -> Result<Self> {
        Self::start_with(bind(address)?, habits, None, None, None)
    }

    /// The same over TLS. (What leaves bytes of a request unread on the socket is for
    /// plain backends: TLS takes them in records.)
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start_tls(address: SocketAddr, habits: Habits, tls: Tls) -> Result<Self> {
        Self::start_with(bind(address)?, habits, None, None, Some(tls))
    }

    /// The same with a journal: every record is in it before its act is committed, so
    /// that it survives this process. Requests may then end the process.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start_journalled(address: SocketAddr, habits: Habits, journal: Journal) -> Result<Self> {
        Self::start_with(bind(address)?, habits, Some(journal), None, None)
    }

    /// The same as one of several processes that accept from one listening socket. After
    /// `recycle_after` answers it accepts no more, closes each connection once it is
    /// idle, and then [`Backend::has_drained`].
    ///
    /// # Errors
    /// If the socket cannot be used.
    pub fn start_worker(
        listener: TcpListener,
        habits: Habits,
        journal: Journal,
        recycle_after: Option<usize>,
    ) -> Result<Self> {
        // Another process may have been quicker to accept what made it readable.
        listener.set_nonblocking(true)?;
        let worker = Worker::new(recycle_after)?;
        Self::start_with(listener, habits, Some(journal), Some(worker), None)
    }

    fn start_with(
        listener: TcpListener,
        habits: Habits,
        journal: Option<Journal>,
        worker: Option<Worker>,
        tls: Option<Tls>,
    ) -> Result<Self> {
        let address = listener.local_addr()?;
        let (stop, stopped) = UnixStream::pair().context("socketpair() for stopping")?;
        let shared = Arc::new(Shared {
            habits,
            known_as: OnceLock::new(),
            records: Mutex::default(),
            changed: Condvar::new(),
            held: Mutex::default(),
            released: Condvar::new(),
            gathering: Mutex::default(),
            gathered: Condvar::new(),
            seen: Mutex::default(),
            threads: AtomicUsize::new(0),
            journal,
            worker,
            fastcgi: AtomicBool::new(false),
            tls,
            stopped,
        });
        let listening = thread::Builder::new()
            .name(format!("backend {address}"))
            .spawn({
                let shared = Arc::clone(&shared);
                move || accept(&listener, &shared)
            })?;
        Ok(Self {
            address,
            shared,
            stop: Some(stop),
            listening: Some(listening),
            kept: Vec::new(),
        })
    }

    /// The same where nginx connects to another address, which a translator of addresses
    /// leads here: that one stands in the records of all connections to come.
    #[must_use]
    pub fn known_as(mut self, address: SocketAddr) -> Self {
        self.address = *self.shared.known_as.get_or_init(|| address);
        self
    }

    /// The same, speaking FastCGI from the next connection on.
    #[must_use]
    pub fn over_fastcgi(self) -> Self {
        self.shared.fastcgi.store(true, Ordering::Release);
        self
    }

    /// The same, and `what` lives until its last thread has ended.
    #[must_use]
    pub fn keeping(mut self, what: impl Any + Send + Sync) -> Self {
        self.kept.push(Box::new(what));
        self
    }

    /// Ends it: it listens no more, and every connection is closed. Its records as they
    /// are then.
    #[must_use]
    pub fn stop(mut self) -> Vec<Connection> {
        self.end();
        self.connections()
    }

    /// Where nginx reaches it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its habits.
    #[must_use]
    pub fn habits(&self) -> Habits {
        self.shared.habits
    }

    /// Whether it has answered its number of requests, accepts no more and has no
    /// connection left.
    #[must_use]
    pub fn has_drained(&self) -> bool {
        // In this order: who accepts counts the threads up.
        self.listening.as_ref().is_none_or(JoinHandle::is_finished)
            && self.shared.threads.load(Ordering::Acquire) == 0
    }

    /// The records of all connections so far, in the order of their acceptance.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        lock(&self.shared.records).clone()
    }

    /// Waits until the records satisfy `fact`, and returns them as they were then.
    ///
    /// # Errors
    /// If they still do not after `patience`: the message names `what`.
    pub fn wait_until(
        &self,
        what: &str,
        patience: Duration,
        mut fact: impl FnMut(&[Connection]) -> bool,
    ) -> Result<Vec<Connection>> {
        let deadline = Instant::now() + patience;
        let mut records = lock(&self.shared.records);
        loop {
            if fact(&records) {
                return Ok(records.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "backend {}: waited {patience:?} in vain for {what}",
                    self.address
                );
            }
            let woken = self.shared.changed.wait_timeout(records, left);
            records = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets the requests that wait for each other be answered, once they are so many.
    ///
    /// # Errors
    /// If they never are.
    pub fn answer_waiting(&self, requests: usize) -> Result<()> {
        wait_for("requests to wait for each other", PATIENCE, || {
            let mut gathering = lock(&self.shared.gathering);
            if gathering.waiting < requests {
                return Ok(None);
            }
            self.shared.next_generation(&mut gathering);
            Ok(Some(()))
        })
    }

    /// Puts off idle closes, and those after the last allowed request, from now until
    /// the guard is dropped: those that fell due meanwhile happen then. Without a fault of the machine's own timing a close
    /// that is not yet due is not moved.
    #[must_use]
    pub fn hold_closes(&self) -> Hold<'_> {
        *lock(&self.shared.held) = true;
        Hold(self)
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Backend {
    fn end(&mut self) {
        drop(self.stop.take());
        self.shared.release();
        self.shared
            .next_generation(&mut lock(&self.shared.gathering));
        if let Some(listening) = self.listening.take() {
            // A panic of that thread has already been printed; there is none to tell.
            let _ = listening.join();
        }
        let deadline = Instant::now() + PATIENCE;
        while self.shared.threads.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.end();
    }
}

/// While it lives, no such close happens. See [`Backend::hold_closes`].
#[derive(Debug)]
pub struct Hold<'a>(&'a Backend);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.shared.release();
    }
}

/// A panic in one thread must not hide the records from the others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))
}

/// Accepts until the backend is dropped, or drains.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let worker = shared.worker.as_ref();
    loop {
        if let Some(worker) = worker {
            worker.await_leisure();
        }
        let ended = worker.map_or(&shared.stopped, Worker::draining);
        let mut sources = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(&shared.stopped, PollFlags::IN),
            PollFd::new(ended, PollFlags::IN),
        ];
        match poll(&mut sources, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => {
                eprintln!("backend: poll() failed: {error}");
                return;
            }
            Ok(_) => {}
        }
        if sources[1..]
            .iter()
            .any(|source| !source.revents().is_empty())
        {
            return;
        }
        let (stream, remote) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            // The peer may have gone again before it was accepted.
            Err(error) => {
                eprintln!("backend: accept() failed: {error}");
                continue;
            }
        };
        shared.threads.fetch_add(1, Ordering::AcqRel);
        if let Some(worker) = worker {
            worker.take();
        }
        let spawned = thread::Builder::new()
            .name(format!("from {remote}"))
            .spawn({
                let shared = Arc::clone(shared);
                move || {
                    let _alive = Alive(&shared);
                    connection::serve(stream, &shared);
                }
            });
        if let Err(error) = spawned {
            shared.threads.fetch_sub(1, Ordering::AcqRel);
            eprintln!("backend: no thread for {remote}: {error}");
        }
    }
}

/// Counts a connection's thread out, even if it panics.
struct Alive<'a>(&'a Shared);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.threads.fetch_sub(1, Ordering::AcqRel);
    }
}
