//! `path-reset`: an RST that the backend did not send. Requires: an RST, no FIN before it,
//! and either the backend's own socket on this host, which was still open (certain if its
//! process was seen closing it later, else likely); or a request on
//! a kept-alive connection that was answered by an RST instead of an acknowledgement,
//! after a silence other than the backend's idle timeout (then only possible: a host that
//! lost its memory answers likewise).

use super::{Case, Remedy, Stale, Verdict, how_it_ended, in_flight, reuse, sentences, staleness};
use crate::judge::backends::StillOpen;
use crate::judge::case::{ms, words};
use crate::judge::end::ended_by_reset;
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence};
use crate::report::words::milliseconds;
use crate::trace::record::Connection;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let connection = case.connection()?;
    let ended = matches!(
        case.line.kind,
        MessageKind::PrematureClose
            | MessageKind::ReceiveFailed
            | MessageKind::SendFailed
            | MessageKind::TlsSendFailed
            | MessageKind::ConnectFailed
            | MessageKind::PeerClosedInTlsHandshake
    );
    if !ended || connection.established_ns.is_none() || !ended_by_reset(connection) {
        return None;
    }
    let stale = case.was_stale();
    let (confidence, why) = if let Some(open) = case.peer_open {
        still_open(open, connection)
    } else if stale == Some(Stale::AnsweredByReset) && case.peer_unread().is_none() {
        (Confidence::Possible, not_the_backends_time(case)?)
    } else {
        return None;
    };
    let idle = case.idle_ns();
    Some(Verdict {
        cause: Cause::PathReset,
        confidence,
        evidence: sentences([
            how_it_ended(case),
            Some(why),
            stale.and_then(|stale| staleness(case, stale)),
            in_flight(case),
            reuse(case),
        ]),
        advice: Some(Remedy {
            text: remedy(case, idle.filter(|_| stale.is_some())),
            because: format!(
                "an RST that {} did not send ended the connection",
                case.line.upstream
            ),
        }),
    })
}

/// A host whose socket is still open has sent no RST of it.
fn still_open(open: StillOpen, connection: &Connection) -> (Confidence, String) {
    let what = "the backend's own socket was still open then";
    match open {
        StillOpen::ClosedLater(ns) => {
            let rst = connection.rst_received_ns.unwrap_or(ns);
            let later = words(ns.saturating_sub(rst));
            let why = format!("{what}: its process closed it {later} later");
            (Confidence::Certain, why)
        }
        StillOpen::NeverClosed => (Confidence::Likely, what.to_owned()),
    }
}

/// The connection had been silent for a time at which the backend closes none.
fn not_the_backends_time(case: &Case<'_>) -> Option<String> {
    let idle = case.idle_ns()?;
    let Some(timeout) = case.constants.idle_timeout else {
        return no_timeout(case, idle);
    };
    let age = ms(idle);
    (!case.idled_out()).then(|| {
        format!(
            "the connection had been silent for {}, while the backend itself closes idle ones \
             after {}",
            milliseconds(age),
            milliseconds(timeout.ms)
        )
    })
}

/// Without a known timeout: others were silent for longer and lived, or several requests
/// met such an RST after silences that have nothing in common.
fn no_timeout(case: &Case<'_>, idle: u64) -> Option<String> {
    let figures = case.figures?;
    if figures.lets_idle_longer(idle) {
        return Some(format!(
            "the connection had been silent for {}, and the backend let others be silent for \
             longer",
            words(idle)
        ));
    }
    figures.resets_at_any_age().then(|| {
        "several requests met such an RST, after silences that no one timeout explains".to_owned()
    })
}

fn remedy(case: &Case<'_>, idle_ns: Option<u64>) -> String {
    let look = "look for a packet filter, NAT or load balancer between nginx and the backend that \
                resets connections";
    match idle_ns {
        Some(idle) if !case.settings.keepalive_timeout_unknown => format!(
            "{look}. If it forgets idle ones, set `keepalive_timeout` in {} below its time (this \
             one had been silent for {}; costs: more handshakes), or raise that time",
            case.settings.block.as_deref().map_or_else(
                || "the upstream block".to_owned(),
                |name| format!("`upstream {name}`")
            ),
            words(idle)
        ),
        _ => look.to_owned(),
    }
}
