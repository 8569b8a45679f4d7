//! Requests that are in the backend's hands while something happens to nginx.

use anyhow::Result;

use super::Stage;
use crate::act::{Act, Expected};
use crate::backend::{Backend, Connection, Why};
use crate::behaviour::Behaviour;
use crate::clock::PATIENCE;
use crate::load::{Client, Request, Response};

/// Requests that a backend has read and not answered yet, each of a client of its own.
#[derive(Debug)]
pub struct InFlight {
    clients: Vec<Client>,
}

impl InFlight {
    /// Sends a GET below `/block/` for each behaviour, and waits until the backend has
    /// read them all.
    ///
    /// # Errors
    /// If it does not.
    pub fn begin(
        stage: &Stage<'_>,
        block: &str,
        backend: &Backend,
        behaviours: &[Behaviour],
    ) -> Result<Self> {
        let mut clients = Vec::new();
        let mut targets = Vec::new();
        for behaviour in behaviours {
            let target = stage.target(block);
            let mut client = Client::connect(stage.nginx.address())?;
            client.send(&Request::get(&target).asking(*behaviour))?;
            clients.push(client);
            targets.push(target);
        }
        backend.wait_until("the requests in flight", PATIENCE, |records| {
            let read = |target: &String| {
                let mut requests = records.iter().flat_map(|record| &record.requests);
                requests.any(|request| request.target == *target)
            };
            targets.iter().all(read)
        })?;
        Ok(Self { clients })
    }

    /// What became of them, in their order.
    pub fn finish(self) -> Vec<Result<Response>> {
        let mut clients = self.clients;
        clients.iter_mut().map(Client::receive).collect()
    }
}

/// Every request that these connections carried, as an act; `expected` says of a
/// connection, whose last request it is, what that failed with.
pub fn carried(
    connections: &[Connection],
    expected: impl Fn(&Connection) -> Option<Expected>,
) -> Vec<Act> {
    let acts = connections.iter().flat_map(|connection| {
        let requests = connection.requests.iter().enumerate();
        requests.map(|(at, request)| Act {
            upstream: connection.local.to_string(),
            nginx_end: Some(connection.remote),
            target: Some(request.target.clone()),
            at_ns: request.read_ns,
            what: format!("{}, ended: {:?}", request.behaviour, connection.end),
            expected: if at + 1 == connection.requests.len() {
                expected(connection)
            } else {
                None
            },
        })
    });
    acts.collect()
}

/// What [`carried`] expects of connections that the backend closed, told to, before it
/// had answered; nothing of all others.
#[must_use]
pub fn closed_without_answer(connection: &Connection) -> Option<Expected> {
    connection
        .closed_because(Why::BeforeAnswer)
        .then(|| Expected::new("backend", "fin", "closed-without-answer"))
}
