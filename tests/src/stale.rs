//! Makes stale keep-alive failures on demand.
//!
//! nginx closes a pooled connection as soon as it reads the backend's FIN, so a
//! request meets a dead connection only if both wait for the worker at once, the
//! request first. Requests aimed within a millisecond of the close meet it by
//! themselves about once in a hundred times; on a busy host more often. Here the
//! lab's own workers are stopped (SIGSTOP) for some ten milliseconds, standing in for
//! busy ones: the clients' requests arrive, the backend's idle time runs out as it
//! always would, and the workers continue. epoll hands out events in the order of
//! their arrival (fs/eventpoll.c `ep_send_events` walks `rdllist`), so nginx reads the
//! request, takes the connection from its pool and sends, and only then sees the FIN.
//! Nothing but the moment is arranged: the failure is nginx's.
//!
//! Each step waits for a fact, so that the outcome does not depend on the machine's
//! speed: stopped workers (`/proc`), requests and FINs that arrived (the kernel's
//! socket table), closes that the backend recorded. Idle closes are held until the
//! requests have arrived; on a machine that is not overloaded that delays none.
//!
//! A backend that closes after its last allowed request is raced in the same way:
//! its closes, which would follow the answers at once, are held until the requests
//! have arrived.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::act::Expected;
use crate::backend::{Backend, Connection, Ended, Why};
use crate::behaviour::{Behaviour, Kind, Means};
use crate::clock::{PATIENCE, between, now_ns, sleep_until, wait_for};
use crate::idle::{Moment, Silence};
use crate::load::{Client, Method, Request, Response};
use crate::nginx::Nginx;
use crate::sockets::{self, Socket, State};

/// What to make.
#[derive(Clone, Debug)]
pub struct Race {
    /// Location whose only upstream server is the backend: `/name/`.
    pub location: String,
    /// How many requests, each on its own connection.
    pub requests: usize,
    /// Their method.
    pub method: Method,
    /// Requests that each connection has served before. As many as the backend allows
    /// on a connection: its limit is raced, not its idle time.
    pub served_before: usize,
}

/// The close that is raced.
struct Closing {
    /// Silence before it.
    after: Duration,
    means: Means,
    why: Why,
}

impl Closing {
    fn of(backend: &Backend, race: &Race) -> Result<Self> {
        let habits = backend.habits();
        if habits.request_limit == Some(race.served_before) {
            return Ok(Self {
                after: Duration::ZERO,
                means: Means::Fin,
                why: Why::RequestLimit,
            });
        }
        let idle = habits
            .idle
            .context("the backend has no idle time, and another limit on requests or none")?;
        Ok(Self {
            after: idle.after,
            means: idle.means,
            why: Why::Idle,
        })
    }
}

/// One request that met a connection that the backend had closed.
#[derive(Clone, Debug)]
pub struct Stale {
    /// Backend's record of the connection.
    pub connection: Connection,
    /// How the backend closed it.
    pub means: Means,
    /// How long it was silent: from the last answer, which nginx had read when the clients
    /// had theirs, to nginx's send, which came after the workers continued and before the
    /// last client was told. A reset leaves nothing to send on: then to the close, from
    /// when the backend made it to when nginx can have found it.
    pub idle: Silence,
}

/// What a race gave.
#[derive(Clone, Debug)]
pub struct Raced {
    /// The connections that failed, as many as requests.
    pub stale: Vec<Stale>,
    /// What the clients got, and for which target.
    pub responses: Vec<(String, Response)>,
    /// How long the workers were stopped.
    pub stopped: Duration,
}

/// What a line deserves that is about a connection which the backend ended between two
/// requests. In a race the end had arrived before anything was sent; by chance a request
/// may cross a plain close, and if the backend's host has it already, unread, that close
/// is an RST.
#[must_use]
pub fn closed_across(raced: &[Stale], connection: &Connection, cause: &'static str) -> Expected {
    let means = match connection.end.map(|end| end.how) {
        Some(Ended::Closed(means)) => means,
        _ => Means::Fin,
    };
    let expected = Expected::new("backend", means.word(), cause);
    let is_it = |stale: &&Stale| {
        (stale.connection.local, stale.connection.remote) == (connection.local, connection.remote)
    };
    match raced.iter().find(is_it) {
        Some(raced) => expected.after(raced.idle),
        None if means == Means::Fin => expected.or_means("rst"),
        None => expected,
    }
}

/// Runs one race. After a FIN each request meets one dead connection; a reset is found
/// before anything is sent, so that one request may find several in turn, and others
/// none. Either way each connection gives one line.
///
/// Before it, waits until the backend has no open connection, so that
/// every connection in nginx's pools is one of the race's.
///
/// # Errors
/// If a step's fact does not come about; no failure has been made then, unless the
/// message says so.
pub fn race(nginx: &Nginx, backend: &Backend, race: &Race) -> Result<Raced> {
    let closing = Closing::of(backend, race)?;
    if race.requests == 0 || race.served_before == 0 {
        bail!("a stale connection needs a request, and one before it");
    }
    let patience = PATIENCE + closing.after;
    backend.wait_until("all connections to end", patience, |records| {
        records.iter().all(|record| !record.is_open())
    })?;
    let earlier = backend.connections().len();
    let hold = backend.hold_closes();
    let mut clients = pooled_by(nginx, race)?;
    let passed_on_ns = now_ns();
    // The clients may have their answers a moment before that is written down.
    let pooled = backend.wait_until("the answers before the race", PATIENCE, |records| {
        records[earlier..]
            .iter()
            .all(|record| record.answered() == race.served_before)
    })?;
    let pooled = &pooled[earlier..];
    if pooled.len() != race.requests || pooled.iter().any(|record| !record.is_open()) {
        bail!(
            "nginx did not pool {} connections as expected: {pooled:?}",
            race.requests
        );
    }

    // Stop the workers shortly before the first idle time runs out.
    let first_answer = pooled
        .iter()
        .filter_map(Connection::last_answered_ns)
        .min()
        .context("no answer")?;
    let silence = between(first_answer, now_ns());
    let lead = (closing.after / 4).min(Duration::from_millis(25));
    sleep_until(Instant::now() + closing.after.saturating_sub(lead + silence));
    let stopped_ns = now_ns();
    let stopped = nginx.stop_workers()?;

    let mut targets = Vec::new();
    for (index, client) in clients.iter_mut().enumerate() {
        let target = format!("{}raced-{stopped_ns}-{index}", race.location);
        let body = if race.method == Method::Post { 10 } else { 0 };
        client.send(&Request {
            method: race.method,
            target: target.clone(),
            behaviour: None,
            body,
        })?;
        targets.push(target);
    }
    let ends: Vec<_> = clients
        .iter()
        .map(|client| (client.remote(), client.local()))
        .collect();
    wait_for("the requests to arrive at nginx", PATIENCE, || {
        let arrived = |socket: &Option<Socket>| socket.is_some_and(|socket| socket.unread > 0);
        Ok(sockets::find(&ends)?.iter().all(arrived).then_some(()))
    })?;
    drop(hold);
    let closed = backend.wait_until("the closes", patience, |records| {
        records[earlier..].iter().all(|record| !record.is_open())
    })?;
    let closed = closed[earlier..].to_vec();
    for record in &closed {
        if !record.closed_because(closing.why) {
            bail!("a connection of the race ended otherwise: {record:?}");
        }
    }
    await_arrival(&closed, closing.means)?;
    let continued_ns = now_ns();
    drop(stopped);

    let mut responses = Vec::new();
    for (client, target) in clients.iter_mut().zip(targets) {
        responses.push((target, client.receive()?));
    }
    let told_ns = now_ns();
    let stale = closed.into_iter().map(|connection| {
        let last = connection.requests.last().and_then(|last| last.answer);
        let quiet = Moment {
            earliest_ns: last.map(|answer| answer.began_ns),
            latest_ns: Some(passed_on_ns),
        };
        let met = Moment {
            earliest_ns: match closing.means {
                Means::Fin | Means::HalfClose => Some(continued_ns),
                Means::Rst | Means::FinThenRst => connection.end.map(|end| end.at_ns),
            },
            latest_ns: Some(told_ns),
        };
        Stale {
            means: closing.means,
            idle: Silence::between(quiet, met),
            connection,
        }
    });
    Ok(Raced {
        stale: stale.collect(),
        responses,
        stopped: between(stopped_ns, continued_ns),
    })
}

/// Clients on connections of their own, whose requests so far were all in nginx's
/// hands at the same time: as many upstream connections are now in the pools of the
/// workers that these clients are connected to.
///
/// # Errors
/// If a request is not answered, or its connection not kept.
pub fn pooled_by(nginx: &Nginx, race: &Race) -> Result<Vec<Client>> {
    let mut clients = (0..race.requests)
        .map(|_| Client::connect(nginx.address()))
        .collect::<Result<Vec<_>>>()?;
    let together = Behaviour::of(Kind::AnswerTogether {
        requests: race.requests,
    });
    for round in 0..race.served_before {
        let request = Request::get(format!("{}before-{round}", race.location)).asking(together);
        for client in &mut clients {
            client.send(&request)?;
        }
        for client in &mut clients {
            let response = client.receive()?;
            if response.status != 200 || !response.kept {
                bail!("a request before the race got {response:?}");
            }
        }
    }
    Ok(clients)
}

/// Waits until the backend's closes have reached nginx's ends of the connections.
pub(crate) fn await_arrival(closed: &[Connection], means: Means) -> Result<()> {
    let ends: Vec<_> = closed
        .iter()
        .map(|record| (record.remote, record.local))
        .collect();
    wait_for("the closes to arrive at nginx", PATIENCE, || {
        let arrived = |socket: &Option<Socket>| match means {
            Means::Fin | Means::HalfClose => {
                socket.is_some_and(|socket| socket.state == State::CLOSE_WAIT)
            }
            // An RST takes the socket out of the table at once.
            Means::Rst | Means::FinThenRst => socket.is_none(),
        };
        Ok(sockets::find(&ends)?.iter().all(arrived).then_some(()))
    })
}
