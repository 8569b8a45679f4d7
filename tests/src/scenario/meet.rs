//! Requests that meet connections which ended just before, as in [`crate::stale`].

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::Stage;
use crate::clock::{PATIENCE, wait_for};
use crate::load::{Client, Request};
use crate::sockets::{self, Socket, State};

/// Sends each client's request while nginx's workers are stopped, lets `end` happen,
/// waits until the closes of `dead` (nginx's end, backend's end) have reached nginx, and
/// lets the workers go on: they find the requests first. Every client has its response
/// then.
pub(super) fn meet<T>(
    stage: &Stage<'_>,
    sent: &mut [(Client, Request)],
    dead: &[(SocketAddr, SocketAddr)],
    end: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let stopped = stage.stop_workers()?;
    let mut ends = Vec::new();
    for (client, request) in &mut *sent {
        client.send(request)?;
        ends.push((client.remote(), client.local()));
    }
    wait_for("the requests to arrive at nginx", PATIENCE, || {
        let arrived = |socket: &Option<Socket>| socket.is_some_and(|socket| socket.unread > 0);
        Ok(sockets::find(&ends)?.iter().all(arrived).then_some(()))
    })?;
    let ended = end()?;
    wait_for("the closes to arrive at nginx", PATIENCE, || {
        let open = |socket: &Option<Socket>| {
            socket.is_some_and(|socket| socket.state == State::ESTABLISHED)
        };
        Ok((!sockets::find(dead)?.iter().any(open)).then_some(()))
    })?;
    drop(stopped);
    for (client, request) in &mut *sent {
        client
            .receive()
            .with_context(|| format!("{} met a dead connection", request.target))?;
    }
    Ok(ended)
}
