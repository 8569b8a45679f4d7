//! Good traffic: requests that all go well, through the same nginx as the failures, to
//! upstreams of their own. Whatever the report says of them is false.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};

use crate::backend::IPV4;
use crate::clock::{PATIENCE, sleep_until};
use crate::load::{Client, Request};
use crate::nginx::{Configuration, Upstream};
use crate::score::Traffic;

/// Upstream blocks and locations.
const BLOCKS: [&str; 2] = ["good_one", "good_two"];
/// Clients, each on a connection that it keeps.
const CLIENTS: u32 = 4;
/// Requests a second of all clients together.
const RATE: u32 = 540;
/// A client that is later than this, as when nginx's workers were stopped, does not
/// catch up with more.
const MOST_LATE: Duration = Duration::from_secs(1);
/// Answers that are there before anything else begins.
const FIRST_ANSWERS: u64 = 50;
/// How many failures are told in words.
const TOLD: usize = 5;

/// Backends of the good traffic; both are served by one thread, which ends with this.
#[derive(Debug)]
pub(super) struct Backends {
    addresses: Vec<SocketAddr>,
    /// Dropping this end makes the other readable.
    stop: Option<UnixStream>,
    serving: Option<JoinHandle<()>>,
}

impl Backends {
    pub(super) fn start() -> Result<Self> {
        let listeners = BLOCKS
            .map(|_| TcpListener::bind(IPV4))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .context("cannot listen for the good traffic")?;
        let addresses = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<_, _>>()?;
        let (stop, stopped) = UnixStream::pair().context("socketpair() for stopping")?;
        let serving = thread::Builder::new()
            .name("good backends".into())
            .spawn(move || serve(&listeners, &stopped))?;
        Ok(Self {
            addresses,
            stop: Some(stop),
            serving: Some(serving),
        })
    }

    pub(super) fn configure(&self, configuration: &mut Configuration) {
        for (name, address) in BLOCKS.iter().zip(&self.addresses) {
            let upstream = Upstream::new(*name, address).keepalive(8);
            configuration.upstreams.push(upstream);
        }
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(serving) = self.serving.take() {
            // A panic of that thread has already been printed.
            let _ = serving.join();
        }
    }
}

/// Answers every request in full and closes nothing by itself, until it is stopped.
fn serve(listeners: &[TcpListener], stopped: &UnixStream) {
    let mut connections: Vec<(TcpStream, Vec<u8>)> = Vec::new();
    loop {
        let mut sources = vec![PollFd::new(stopped, PollFlags::IN)];
        sources.extend(listeners.iter().map(|one| PollFd::new(one, PollFlags::IN)));
        sources.extend(
            connections
                .iter()
                .map(|(stream, _)| PollFd::new(stream, PollFlags::IN)),
        );
        match poll(&mut sources, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                eprintln!("good backends: poll() failed: {error}");
                return;
            }
        }
        let ready: Vec<bool> = sources
            .iter()
            .map(|one| !one.revents().is_empty())
            .collect();
        drop(sources);
        if ready[0] {
            return;
        }
        let (new, old) = ready[1..].split_at(listeners.len());
        let mut old = old.iter();
        connections.retain_mut(|(stream, head)| {
            let is_ready = old.next().is_some_and(|ready| *ready);
            !is_ready || answer(stream, head).unwrap_or(false)
        });
        for (listener, _) in listeners.iter().zip(new).filter(|(_, ready)| **ready) {
            if let Ok((stream, _)) = listener.accept() {
                connections.push((stream, Vec::new()));
            }
        }
    }
}

/// Reads what is there and answers if that ends a head; false if nginx has closed.
fn answer(stream: &mut TcpStream, head: &mut Vec<u8>) -> std::io::Result<bool> {
    const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ngood\n";
    let mut buffer = [0; 4096];
    let read = match stream.read(&mut buffer) {
        Ok(0) => return Ok(false),
        Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
        read => read?,
    };
    head.extend_from_slice(&buffer[..read]);
    if head.ends_with(b"\r\n\r\n") {
        head.clear();
        stream.write_all(RESPONSE)?;
    }
    Ok(true)
}

/// Clients that ask until they are told to stop.
#[derive(Debug)]
pub(super) struct Clients {
    shared: Arc<Shared>,
    began: Instant,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    targets: AtomicUsize,
    counted: Mutex<Traffic>,
    changed: Condvar,
}

impl Shared {
    fn count(&self, outcome: Result<()>) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => counted.answered += 1,
            Err(error) => {
                counted.failed += 1;
                if counted.failures.len() < TOLD {
                    counted.failures.push(format!("{error:#}"));
                }
            }
        }
        drop(counted);
        self.changed.notify_all();
    }
}

impl Clients {
    /// Starts them before this nginx, and waits until they are being answered.
    ///
    /// # Errors
    /// If they are not.
    pub(super) fn start(nginx: SocketAddr) -> Result<Self> {
        let mut clients = Self {
            shared: Arc::default(),
            began: Instant::now(),
            threads: Vec::new(),
        };
        for number in 0..CLIENTS {
            let shared = Arc::clone(&clients.shared);
            let began = clients.began + Duration::from_secs(1) * number / RATE;
            let ask = move || ask(nginx, began, &shared);
            clients.threads.push(
                thread::Builder::new()
                    .name("good client".into())
                    .spawn(ask)?,
            );
        }
        let deadline = Instant::now() + PATIENCE;
        let mut counted = clients.counted();
        while counted.answered < FIRST_ANSWERS {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the good traffic is not answered: {:?}", counted.failures);
            }
            let woken = clients.shared.changed.wait_timeout(counted, left);
            counted = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(counted);
        Ok(clients)
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, Traffic> {
        let counted = self.shared.counted.lock();
        counted.unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends them, each after its last answer.
    pub(super) fn finish(mut self) -> Traffic {
        self.join();
        let counted = self.counted().clone();
        Traffic {
            seconds: self.began.elapsed().as_secs_f64(),
            ..counted
        }
    }

    fn join(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.threads.drain(..) {
            // A panic of that thread has already been printed.
            let _ = client.join();
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.join();
    }
}

/// One client: a request whenever one is due.
fn ask(nginx: SocketAddr, began: Instant, shared: &Shared) {
    let step = Duration::from_secs(1) * CLIENTS / RATE;
    let mut due = began;
    let mut client = None;
    while !shared.stop.load(Ordering::Relaxed) {
        sleep_until(due);
        due = (due + step).max(Instant::now().checked_sub(MOST_LATE).unwrap_or(due));
        let number = shared.targets.fetch_add(1, Ordering::Relaxed);
        let target = format!("/{}/{number}", BLOCKS[number % BLOCKS.len()]);
        let outcome = one(nginx, &mut client, &Request::get(&target));
        let outcome = outcome.with_context(|| format!("good request {target}"));
        if outcome.is_err() {
            client = None;
        }
        shared.count(outcome);
    }
}

fn one(nginx: SocketAddr, kept: &mut Option<Client>, request: &Request) -> Result<()> {
    let mut client = match kept.take() {
        Some(client) => client,
        None => Client::connect(nginx)?,
    };
    let response = client.ask(request)?;
    if response.status != 200 || !response.complete {
        bail!("got {response:?}");
    }
    if response.kept {
        *kept = Some(client);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_requests_are_counted_when_they_are_answered_and_when_not() {
        let backends = Backends::start().unwrap();
        // Clients straight at a backend: nginx would do the same.
        let clients = Clients::start(backends.addresses[0]).unwrap();
        drop(backends);
        let deadline = Instant::now() + PATIENCE;
        while clients.counted().failed < 10 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let traffic = clients.finish();
        assert!(traffic.answered >= FIRST_ANSWERS && traffic.failed >= 10);
        assert!(traffic.seconds > 0.0 && traffic.rate() > 0.0);
        assert_eq!(traffic.failures.len(), TOLD);
    }
}
