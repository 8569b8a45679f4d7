//! Clients that talk to a server without an nginx: what it really does.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::clock::{between, now_ns};
use crate::load::{Client, Request};

/// A connection that is used a few times and then left alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    /// When it begins.
    pub(super) after: Duration,
    /// Requests on it.
    pub(super) requests: usize,
}

/// From the last byte of the last answer to the server's close, of each connection.
pub(super) fn idle_ages(
    address: SocketAddr,
    uses: &[Use],
    patience: Duration,
) -> Result<Vec<Duration>> {
    at_once(uses, |used| {
        thread::sleep(used.after);
        let mut client = Client::connect(address)?;
        for _ in 0..used.requests {
            let response = client.ask(&Request::get("/direct/idle"))?;
            if response.status != 200 || !response.kept {
                bail!("a server that should keep the connection answered {response:?}");
            }
        }
        let answered_ns = now_ns();
        Ok(between(answered_ns, client.await_close(patience)?))
    })
}

/// How long requests for something that never ends stay open.
pub(super) fn times_in_flight(
    address: SocketAddr,
    target: &str,
    after: &[Duration],
    patience: Duration,
) -> Result<Vec<Duration>> {
    at_once(after, |after| {
        thread::sleep(*after);
        let mut client = Client::connect(address)?;
        client.send(&Request::get(target))?;
        let sent_ns = now_ns();
        Ok(between(sent_ns, client.await_close(patience)?))
    })
}

/// Answers on one connection until one announces its end.
pub(super) fn answers_until_close(address: SocketAddr, most: usize) -> Result<usize> {
    let mut client = Client::connect(address)?;
    for answered in 1..=most {
        if !client.ask(&Request::get("/direct/limit"))?.kept {
            return Ok(answered);
        }
    }
    bail!("{most} answers and no end")
}

fn at_once<T: Sync, R: Send>(of: &[T], each: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    thread::scope(|scope| {
        let threads: Vec<_> = of
            .iter()
            .map(|one| {
                let each = &each;
                scope.spawn(move || each(one))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(result) => result,
                Err(_) => bail!("a client panicked"),
            })
            .collect()
    })
}
