//! The truth about connections whose process ended: from the journals of the dead and
//! from what their parent saw.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::act::{Act, Expected};
use crate::backend::{Connection, Ended as How, Why};
use crate::behaviour::Means;

/// Targets that begin so were sent to the backend directly: nginx has no part in them.
pub(super) const DIRECT: &str = "/direct";

/// A process that ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its pid.
    pub pid: u32,
    /// When that had been seen.
    pub seen_ns: u64,
    /// How, in words.
    pub what: String,
    /// The causes that are right for what ended with it, the first by precedence.
    pub causes: Vec<&'static str>,
}

/// Signals by which the kernel answers what the program itself did wrong, and abort():
/// ILL, TRAP, ABRT, BUS, FPE, SEGV, SYS, as on x86-64 and aarch64.
#[must_use]
pub const fn is_crash(signal: i32) -> bool {
    matches!(signal, 4 | 5 | 6 | 7 | 8 | 11 | 31)
}

/// What happened to these connections. `ended` tells how a connection's process ended,
/// if it did; `unread` are the connections (backend's end, nginx's end) that held bytes
/// of nginx's then, so that the kernel reset them.
#[must_use]
pub fn acts(
    connections: &[(u32, Connection)],
    unread: &BTreeSet<(SocketAddr, SocketAddr)>,
    ended: impl Fn(u32, &Connection) -> Option<Ended>,
) -> Vec<Act> {
    let mut acts = Vec::new();
    for (pid, connection) in connections {
        if is_direct(connection) {
            continue;
        }
        let act = |target: Option<&String>, at_ns, what, expected| Act {
            upstream: connection.local.to_string(),
            nginx_end: Some(connection.remote),
            target: target.cloned(),
            at_ns,
            what,
            expected,
        };
        let ended = ended(*pid, connection).filter(|_| ended_with_process(connection));
        let last = connection.requests.last();
        let in_flight = last.filter(|last| last.answered_ns().is_none() && ended.is_some());
        let whole = connection.requests.len() - usize::from(in_flight.is_some());
        for request in &connection.requests[..whole] {
            let what = request.behaviour.to_string();
            acts.push(act(Some(&request.target), request.read_ns, what, None));
        }
        let Some(ended) = ended else { continue };
        let reset = unread.contains(&(connection.local, connection.remote))
            || connection.closed_because(Why::ProcessEnded)
                && connection
                    .end
                    .is_some_and(|end| end.how == How::Closed(Means::Rst));
        let means = if reset { "rst" } else { "fin" };
        let expected = Expected {
            sides: vec!["backend"],
            means: vec![means],
            causes: ended.causes,
            evident: true,
            idle: None,
        };
        acts.push(act(
            in_flight.map(|request| &request.target),
            connection.end.map_or(ended.seen_ns, |end| end.at_ns),
            ended.what,
            Some(expected),
        ));
    }
    acts
}

/// The process, and nobody before it, ended the connection.
fn ended_with_process(connection: &Connection) -> bool {
    connection.end.is_none_or(|end| {
        matches!(end.why, Why::ProcessEnded | Why::Stopped | Why::Recycled)
            && matches!(end.how, How::Closed(_))
    })
}

pub(super) fn is_direct(connection: &Connection) -> bool {
    let mut requests = connection.requests.iter();
    requests.any(|request| request.target.starts_with(DIRECT))
}
