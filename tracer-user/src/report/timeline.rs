//! One incident, event by event.

mod ends;

use std::fmt::{self, Write};

use super::escape::escape;
use super::incidents;
use super::meanwhile::{self, Meanwhile};
use super::model::Incident;
use super::page::{DIM, HEADING, PLAIN, Page, TextOptions};
use super::words::{NAME, counted, milliseconds};
use crate::judge::without_calls::is_unmeasured;
use crate::trace::record::{Connection, Continuation, Logged, Next, PeerClose};

/// Silence that is worth a line of its own, in nanoseconds.
const GAP_NS: i64 = 100_000_000;

/// Whose doing an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A call of the worker.
    Nginx,
    /// This host's TCP.
    Kernel,
    /// Something that came from the backend's side.
    Backend,
    /// A line in the error log.
    Log,
}

impl Whose {
    /// The word that stands for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Kernel => "kernel",
            Self::Backend => "backend",
            Self::Log => "log",
        }
    }
}

/// Something that happened to the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since the last request began, or since connect() if none did;
    /// negative before.
    pub ns: i64,
    /// Whose doing.
    pub whose: Whose,
    /// What, in words.
    pub what: String,
    /// What may have happened on the way to it.
    pub(super) meanwhile: Option<Meanwhile>,
}

/// What is known of a connection, in the order of time; of equal times, in the
/// order in which the events must have come.
#[must_use]
pub fn events_of(
    connection: &Connection,
    logged: Option<&Logged>,
    continuation: Option<&Continuation>,
    peer: Option<&PeerClose>,
) -> Vec<Event> {
    let origin = connection
        .request_started_ns
        .unwrap_or(connection.opened_ns);
    let mut list = Events {
        origin,
        list: Vec::new(),
    };
    opening(&mut list, connection);
    exchange(&mut list, connection);
    if let Some(peer) = peer {
        list.add(Some(peer.ns), Whose::Backend, ends::peer_ended(peer));
    }
    ends::ending(&mut list, connection);
    if let Some(logged) = logged {
        let errno = match logged.errno {
            0 => String::new(),
            number => format!(", {}", errno(number)),
        };
        list.add(
            Some(logged.ns),
            Whose::Log,
            format!("writes the error line{errno}"),
        );
    }
    ends::closing(&mut list, connection);
    if let Some(continuation) = continuation {
        let what = match continuation.next {
            Next::Connect => "retries: opens another upstream connection",
            Next::Reuse => "retries on another kept-alive connection",
            Next::OtherSend => "sends to its client",
        };
        list.add(Some(continuation.next_ns), Whose::Nginx, what);
    }
    list.list.sort_by_key(|event| event.ns);
    list.list
}

struct Events {
    origin: u64,
    list: Vec<Event>,
}

impl Events {
    fn add(&mut self, ns: Option<u64>, whose: Whose, what: impl Into<String>) {
        if let Some(ns) = ns {
            self.list.push(Event {
                ns: relative(ns, self.origin),
                whose,
                what: what.into(),
                meanwhile: None,
            });
        }
    }

    /// The same of an event since another of which not all is recorded.
    fn after(
        &mut self,
        since: Option<u64>,
        meanwhile: impl Into<String>,
        ns: Option<u64>,
        whose: Whose,
        what: impl Into<String>,
    ) {
        self.add(ns, whose, what);
        if let (Some(event), Some(since), Some(_)) = (self.list.last_mut(), since, ns) {
            event.meanwhile = Some(Meanwhile {
                from_ns: relative(since, self.origin),
                what: meanwhile.into(),
            });
        }
    }
}

fn opening(list: &mut Events, connection: &Connection) {
    let ends = format!("from {} to {}", connection.local, connection.remote);
    if connection.first_seen_mid_life {
        let what = format!("the capture begins; the connection {ends} was open before it");
        list.add(Some(connection.opened_ns), Whose::Kernel, what);
    } else {
        let what = format!("connects {ends}");
        list.add(Some(connection.opened_ns), Whose::Nginx, what);
        list.add(connection.established_ns, Whose::Kernel, "handshake done");
    }
    let (Some(started), Some(idle)) = (connection.request_started_ns, connection.idle_before_ns)
    else {
        return;
    };
    let what = match connection.exchanges {
        _ if connection.first_seen_mid_life
            || connection.calls_unseen
            || connection.missed_calls > 0 =>
        {
            "last byte of the exchange before".to_owned()
        }
        0 | 1 => "last byte before the request".to_owned(),
        all => format!("last byte of the exchange before (number {})", all - 1),
    };
    list.after(
        begun(connection),
        meanwhile::earlier(connection),
        Some(started.saturating_sub(idle)),
        Whose::Backend,
        what,
    );
}

/// When the first exchange can have begun.
fn begun(connection: &Connection) -> Option<u64> {
    connection.established_ns.or(Some(connection.opened_ns))
}

fn exchange(list: &mut Events, connection: &Connection) {
    if connection.missed_calls > 0 {
        let gaps = counted(connection.missed_calls.into(), "gap was", "gaps were");
        let near = if connection.filled_in {
            "; times of the last sends and receives are right to some 10 ms"
        } else {
            ""
        };
        let what = format!("{gaps} noticed in what was seen of nginx's sends and receives{near}");
        list.add(Some(connection.opened_ns), Whose::Kernel, what);
    }
    // Without nginx's calls the kernel tells no more than the last of each kind.
    let began_before = connection.first_seen_mid_life
        && connection.request_started_ns <= Some(connection.opened_ns);
    if began_before || connection.calls_unseen {
        let (sent, received) = (connection.last_sent_ns, connection.last_received_ns);
        let earlier = || meanwhile::earlier(connection);
        list.after(
            begun(connection),
            earlier(),
            sent,
            Whose::Nginx,
            "last byte sent",
        );
        let (since, what) = if received > sent {
            (sent, meanwhile::RECEIVES.to_owned())
        } else {
            (begun(connection), earlier())
        };
        list.after(since, what, received, Whose::Backend, "last byte received");
        return;
    }
    let bytes = |number| counted(number, "byte", "bytes");
    let request = match connection.exchanges {
        0 => "sends a request".to_owned(),
        number if connection.first_seen_mid_life || connection.missed_calls > 0 => {
            format!("sends request {number} or a later one")
        }
        number => format!("sends request {number}"),
    };
    // Of what may be two exchanges in one neither is known, as in the JSON.
    let measured = !is_unmeasured(connection);
    let size = if measured {
        format!(", {} in all", bytes(connection.request_bytes))
    } else {
        String::new()
    };
    list.add(
        connection.request_started_ns,
        Whose::Nginx,
        format!("{request}{size}"),
    );
    if connection.last_sent_ns > connection.request_started_ns {
        list.after(
            connection.request_started_ns,
            meanwhile::SENDS,
            connection.last_sent_ns,
            Whose::Nginx,
            "last byte sent",
        );
    }
    list.add(
        connection.first_byte_ns,
        Whose::Backend,
        "first byte of the response",
    );
    if connection.last_received_ns > connection.first_byte_ns.or(connection.request_started_ns) {
        let what = if measured {
            let response = bytes(connection.response_bytes);
            format!("last byte received, {response} of response in all")
        } else {
            "last byte received".to_owned()
        };
        list.after(
            connection.first_byte_ns.or(connection.request_started_ns),
            meanwhile::RECEIVES,
            connection.last_received_ns,
            Whose::Backend,
            what,
        );
    }
}

fn relative(ns: u64, origin: u64) -> i64 {
    let distance = i64::try_from(ns.abs_diff(origin)).unwrap_or(i64::MAX);
    if ns < origin { -distance } else { distance }
}

/// Writes one incident in full and the events of its connection.
///
/// # Errors
///
/// If `out` fails.
pub fn render(
    incident: &Incident,
    events: &[Event],
    options: &TextOptions,
    out: &mut impl Write,
) -> fmt::Result {
    let mut page = Page::new(out, *options);
    incidents::in_full(&mut page, incident, true)?;
    if events.is_empty() {
        page.gap()?;
        return page.paragraph("", PLAIN, "No connection of this incident is in the trace.");
    }
    page.heading("Timeline")?;
    let origin = match incident.connection.as_ref().and_then(|c| c.in_flight_ms) {
        Some(_) => "ms since the request's first byte",
        None => "ms; 0 is the request's first byte, or connect() if there was none",
    };
    page.line(&[(DIM, &format!("{:>14}  {origin}", "time"))])?;
    let mut before: Option<i64> = None;
    for event in events {
        if let Some(gap) = before.map(|before| event.ns.saturating_sub(before))
            && gap >= GAP_NS
        {
            let long = milliseconds(ms(gap));
            let from = event.ns.saturating_sub(gap);
            let what = meanwhile::between(events, from, event.ns).map_or_else(
                || format!("{long} of silence"),
                |meanwhile| format!("{long}: {meanwhile}"),
            );
            page.labelled(DIM, &format!("{:>14}  {:<7}  ", ":", ""), DIM, &what)?;
        }
        before = Some(event.ns);
        let label = format!("{:>+14.3}  {:<7}  ", ms(event.ns), event.whose.word());
        let style = if event.whose == Whose::Log {
            HEADING
        } else {
            PLAIN
        };
        page.labelled(DIM, &label, style, &escape(&event.what, 4 * NAME))?;
    }
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "shown to the microsecond; exact for 104 days"
)]
fn ms(ns: i64) -> f64 {
    ns as f64 / 1e6
}

/// An errno as Linux names it on x86-64 and aarch64 (asm-generic/errno.h).
#[must_use]
pub fn errno(number: u32) -> String {
    let name = match number {
        1 => "EPERM",
        4 => "EINTR",
        5 => "EIO",
        9 => "EBADF",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        22 => "EINVAL",
        23 => "ENFILE",
        24 => "EMFILE",
        32 => "EPIPE",
        71 => "EPROTO",
        98 => "EADDRINUSE",
        99 => "EADDRNOTAVAIL",
        100 => "ENETDOWN",
        101 => "ENETUNREACH",
        103 => "ECONNABORTED",
        104 => "ECONNRESET",
        105 => "ENOBUFS",
        107 => "ENOTCONN",
        110 => "ETIMEDOUT",
        111 => "ECONNREFUSED",
        112 => "EHOSTDOWN",
        113 => "EHOSTUNREACH",
        115 => "EINPROGRESS",
        _ => return format!("errno {number}"),
    };
    format!("{name} ({number})")
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
