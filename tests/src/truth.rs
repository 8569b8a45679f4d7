//! The faults that happened, from what the backends recorded, and the verdict that
//! each deserves. What a capture says has no part in this.

use std::fmt;
use std::net::SocketAddr;

use crate::backend::{Connection, Ended, Why};
use crate::behaviour::{Kind, Means};
use crate::idle::{Asked, Silence};
use crate::stale::Stale;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A request met a kept connection that the backend had closed.
    Stale,
    /// The same, where the backend had reset it.
    StaleReset,
    /// The same, where it was closed after the last request that the backend allows.
    RequestLimit,
    /// The backend closed without a byte of response.
    ClosedBeforeAnswer,
    /// The backend reset without a byte of response.
    ResetBeforeAnswer,
    /// The backend closed in its response.
    Cut,
    /// The backend reset in its response.
    CutByReset,
    /// Nobody listened.
    Refused,
    /// The backend was slower than nginx is patient.
    TooSlow,
    /// The backend sent a header that nginx does not take.
    BigHeader,
}

/// Words of a verdict, as reports spell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Who.
    pub side: &'static str,
    /// How.
    pub means: &'static str,
    /// Why.
    pub cause: &'static str,
}

impl Fault {
    /// The verdict that it deserves.
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        let (side, means, cause) = match self {
            Self::Stale => ("backend", "fin", "stale-keepalive"),
            Self::StaleReset => ("backend", "rst", "stale-keepalive"),
            Self::RequestLimit => ("backend", "fin", "request-limit"),
            Self::ClosedBeforeAnswer => ("backend", "fin", "closed-without-answer"),
            Self::ResetBeforeAnswer => ("backend", "rst", "closed-without-answer"),
            Self::Cut => ("backend", "fin", "response-aborted"),
            Self::CutByReset => ("backend", "rst", "response-aborted"),
            Self::Refused => ("backend", "refused", "connect-refused"),
            Self::TooSlow => ("nginx", "timeout", "read-timeout"),
            Self::BigHeader => ("nginx", "close", "response-rejected"),
        };
        Verdict { side, means, cause }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stale => "stale keep-alive",
            Self::StaleReset => "stale keep-alive (reset)",
            Self::RequestLimit => "past the request limit",
            Self::ClosedBeforeAnswer => "closed before the answer",
            Self::ResetBeforeAnswer => "reset before the answer",
            Self::Cut => "closed in the response",
            Self::CutByReset => "reset in the response",
            Self::Refused => "refused",
            Self::TooSlow => "too slow",
            Self::BigHeader => "too big a header",
        })
    }
}

/// One fault, with what a report must say of it.
#[derive(Clone, Debug)]
pub struct Happened {
    /// What.
    pub fault: Fault,
    /// The backend.
    pub upstream: SocketAddr,
    /// nginx's end of the connection, where there was one.
    pub nginx_end: Option<SocketAddr>,
    /// Target of the request, where the backend or the client knows it.
    pub target: Option<String>,
    /// Requests that nginx sent on the connection, the failed one included.
    pub requests: Option<u32>,
    /// Its silence before the last request, or before the end if none was in flight;
    /// none where there was no connection.
    pub idle: Option<Silence>,
}

/// The faults that stand in these records. Idle closes are none of them: only a race
/// makes a fault of one, see [`stale`].
#[must_use]
pub fn recorded(connections: &[Connection]) -> Vec<Happened> {
    recorded_beside(connections, &[])
}

/// The same, where clients noted when they asked and when they were told.
#[must_use]
pub fn recorded_beside(connections: &[Connection], asked: &[Asked]) -> Vec<Happened> {
    connections
        .iter()
        .filter_map(|connection| of_connection(connection, asked))
        .collect()
}

fn of_connection(connection: &Connection, asked: &[Asked]) -> Option<Happened> {
    let end = connection.end?;
    let last = connection.requests.last()?;
    let fault = match (end.how, end.why, last.behaviour.kind) {
        (Ended::Closed(Means::Fin), Why::BeforeAnswer, _) => Fault::ClosedBeforeAnswer,
        (Ended::Closed(Means::Rst), Why::BeforeAnswer, _) => Fault::ResetBeforeAnswer,
        (Ended::Closed(Means::Fin), Why::InBody | Why::InHeader, _) => Fault::Cut,
        (Ended::Closed(Means::Rst), Why::InBody | Why::InHeader, _) => Fault::CutByReset,
        (Ended::PeerClosed | Ended::PeerReset, _, Kind::BigHeader { .. }) => Fault::BigHeader,
        (Ended::PeerClosed | Ended::PeerReset, Why::PeerInFlight, _) if last.answer.is_none() => {
            Fault::TooSlow
        }
        _ => return None,
    };
    Some(Happened {
        fault,
        upstream: connection.local,
        nginx_end: Some(connection.remote),
        target: Some(last.target.clone()),
        requests: u32::try_from(connection.requests.len()).ok(),
        idle: Some(Silence::before_last_request(connection, asked)),
    })
}

/// The faults of a race.
#[must_use]
pub fn stale(raced: &[Stale]) -> Vec<Happened> {
    raced
        .iter()
        .map(|stale| {
            // After a reset nginx finds the error before it sends anything.
            let (fault, sent) = match stale.means {
                Means::Fin if stale.connection.closed_because(Why::RequestLimit) => {
                    (Fault::RequestLimit, 1)
                }
                Means::Fin | Means::HalfClose => (Fault::Stale, 1),
                Means::FinThenRst => (Fault::Stale, 0),
                Means::Rst => (Fault::StaleReset, 0),
            };
            Happened {
                fault,
                upstream: stale.connection.local,
                nginx_end: Some(stale.connection.remote),
                target: None,
                requests: u32::try_from(stale.connection.requests.len() + sent).ok(),
                idle: Some(stale.idle),
            }
        })
        .collect()
}

/// A refused connect: nobody was there to record it but the client that was told 502.
#[must_use]
pub fn refused(upstream: SocketAddr, target: &str) -> Happened {
    Happened {
        fault: Fault::Refused,
        upstream,
        nginx_end: None,
        target: Some(target.to_owned()),
        requests: None,
        idle: None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::backend::{Backend, Habits, IPV4, Idle};
    use crate::behaviour::{Behaviour, Framing};
    use crate::clock::PATIENCE;
    use crate::load::{Client, Request};

    fn happened(behaviour: Behaviour, abort_with: Option<Means>) -> Option<Happened> {
        let backend = Backend::start(IPV4, Habits::default()).unwrap();
        let mut client = Client::connect(backend.address()).unwrap();
        client.ask(&Request::get("/before")).unwrap();
        client.send(&Request::get("/x").asking(behaviour)).unwrap();
        backend
            .wait_until("the request", PATIENCE, |records| {
                records[0].requests.len() == 2
            })
            .unwrap();
        match abort_with {
            Some(means) => client.abort(means).unwrap(),
            // What comes back, if anything, is not the point here.
            None => drop(client.receive()),
        }
        let records = backend
            .wait_until("the end", PATIENCE, |records| !records[0].is_open())
            .unwrap();
        recorded(&records).pop()
    }

    #[test]
    fn each_act_of_a_backend_is_told_as_the_fault_that_it_is() {
        let body = 1000;
        let framing = Framing::Length;
        let long = Duration::from_secs(600);
        for (behaviour, abort_with, fault) in [
            (
                Kind::CloseWithoutAnswer(Means::Fin),
                None,
                Fault::ClosedBeforeAnswer,
            ),
            (
                Kind::CloseWithoutAnswer(Means::Rst),
                None,
                Fault::ResetBeforeAnswer,
            ),
            (Kind::CloseInHeader(Means::Fin), None, Fault::Cut),
            (
                Kind::CloseInBody {
                    body,
                    framing,
                    means: Means::Fin,
                },
                None,
                Fault::Cut,
            ),
            (
                Kind::CloseInBody {
                    body,
                    framing,
                    means: Means::Rst,
                },
                None,
                Fault::CutByReset,
            ),
            (
                Kind::BigHeader { bytes: 20_000 },
                Some(Means::Rst),
                Fault::BigHeader,
            ),
        ] {
            let happened = happened(Behaviour::of(behaviour), abort_with).unwrap();
            assert_eq!(happened.fault, fault);
            assert_eq!(happened.requests, Some(2));
            assert_eq!(happened.target.as_deref(), Some("/x"));
        }
        let slow = happened(Behaviour::ANSWER.after(long), Some(Means::Fin)).unwrap();
        assert_eq!(slow.fault, Fault::TooSlow);
    }

    #[test]
    fn an_idle_close_is_no_fault() {
        let idle = Some(Idle {
            after: Duration::from_millis(10),
            means: Means::Fin,
        });
        let backend = Backend::start(
            IPV4,
            Habits {
                idle,
                ..Habits::default()
            },
        )
        .unwrap();
        let mut client = Client::connect(backend.address()).unwrap();
        client.ask(&Request::get("/x")).unwrap();
        let records = backend
            .wait_until("the end", PATIENCE, |records| !records[0].is_open())
            .unwrap();
        assert!(recorded(&records).is_empty());
    }
}
