//! `unreachable`: there was no way to the backend. Requires: ENETUNREACH, EHOSTUNREACH
//! or EHOSTDOWN in nginx's line, which is the result of its own call; or EINVAL of a
//! link-local address, which is none without an interface.

use std::net::IpAddr;

use super::{Case, Remedy, Verdict, sentences};
use crate::judge::case::{errno, words};
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence};

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let failed = matches!(
        case.line.kind,
        MessageKind::ConnectFailed | MessageKind::ConnectFailedAtOnce
    );
    let what = match case.errno() {
        errno::ENETUNREACH => "this host has no route to the backend's network",
        errno::EHOSTUNREACH => {
            "a router or this host's own neighbour lookup reported the backend's host unreachable"
        }
        errno::EHOSTDOWN => "the backend's host is down",
        errno::EINVAL if is_link_local(case) => {
            "a link-local address leads nowhere without an interface, and nginx takes none with \
             one (`fe80::1%eth0` is an error in its configuration)"
        }
        _ => return None,
    };
    if !failed {
        return None;
    }
    let waited = case
        .connection()
        .zip(case.end_ns())
        .map(|(connection, end)| {
            format!(
                "it was reported {} after connect()",
                words(end.saturating_sub(connection.opened_ns))
            )
        });
    let text = if case.errno() == errno::EINVAL {
        "give the backend another address, global or unique local (fd00::/8)"
    } else {
        "check the route and the address of this peer; marking it `down` until then saves the \
         failed attempts and costs its capacity"
    };
    Some(Verdict {
        cause: Cause::Unreachable,
        // The errno is the result of nginx's own connect(): with or without a socket,
        // the line itself is the evidence.
        confidence: Confidence::Certain,
        evidence: sentences([Some(what.to_owned()), waited]),
        advice: Some(Remedy {
            text: text.to_owned(),
            because: what.to_owned(),
        }),
    })
}

fn is_link_local(case: &Case<'_>) -> bool {
    case.line.peer.is_some_and(|peer| match peer.ip() {
        IpAddr::V6(address) => address.is_unicast_link_local(),
        IpAddr::V4(_) => false,
    })
}
