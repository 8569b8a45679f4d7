//! HTTP/2's own ways to end a request, by which no socket closes: RST_STREAM and GOAWAY.
//! nginx's line says which came and with which error; it is the backend's word.
//!
//! A GOAWAY without an error, to a request that it does not count, is how servers close
//! idle connections: on one that had been silent for a second and more that is
//! `stale-keepalive`, likely, since of HTTP/2 it is not known how many requests a
//! connection had carried. Where that silence is not known such a GOAWAY is
//! `closed-without-answer`, likely, unless it met a connection's first request. Else a reset or a GOAWAY is `closed-without-answer`, or
//! `response-aborted` if nginx had read the response's head.

use super::stale_keepalive::{idle_age, remedy};
use super::{Case, Remedy, Stale, Verdict, how_it_ended, in_flight, reuse, sentences, with_socket};
use crate::judge::case::Ending;
use crate::report::model::{Cause, Confidence};

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let ending = case.http2_ending()?;
    if ending == Ending::GoAway(0) && case.reused_by_silence() {
        return Some(stale(case));
    }
    let (frame, error, whole) = match ending {
        Ending::Reset(error) => (
            "reset the request's stream (RST_STREAM",
            error,
            "; the connection itself was not ended by it",
        ),
        Ending::GoAway(error) => ("took leave of the connection (GOAWAY", error, ""),
    };
    let said = format!(
        "the backend {frame}, error {error}, {}){whole}",
        name(error)
    );
    let aborted = case.in_body();
    Some(Verdict {
        cause: if aborted {
            Cause::ResponseAborted
        } else {
            Cause::ClosedWithoutAnswer
        },
        confidence: if met_unknown_silence(case, ending) {
            with_socket(case).max(Confidence::Likely)
        } else {
            with_socket(case)
        },
        evidence: sentences([
            Some(said.clone()),
            aborted.then(|| "that was in the middle of the response".to_owned()),
            how_it_ended(case),
            in_flight(case),
            reuse(case),
        ]),
        advice: Some(Remedy {
            text: advice(case, ending),
            because: said,
        }),
    })
}

fn stale(case: &Case<'_>) -> Verdict {
    let timeout = case.constants.idle_timeout;
    Verdict {
        cause: Cause::StaleKeepalive,
        confidence: Confidence::Likely,
        evidence: sentences([
            Some(
                "the backend had taken leave of the connection (GOAWAY without an error) and did \
                 not begin this request; nginx does not try such a request again by itself"
                    .to_owned(),
            ),
            how_it_ended(case),
            idle_age(case, Stale::Crossed, timeout),
            reuse(case),
        ]),
        advice: timeout.and_then(|timeout| remedy(case.settings, &case.line.upstream, timeout)),
    }
}

/// A GOAWAY without an error may have met a request on a connection that had been idle, for
/// all that is known of it: but for a connection's first.
fn met_unknown_silence(case: &Case<'_>, ending: Ending) -> bool {
    let first = case
        .connection()
        .is_some_and(|connection| connection.exchanges <= 1 && !connection.first_seen_mid_life);
    ending == Ending::GoAway(0) && !first && !case.in_body()
}

fn advice(case: &Case<'_>, ending: Ending) -> String {
    let directive = case.directive("next_upstream");
    let again = format!(
        "{directive} with `invalid_header` would let nginx try such requests again, those that \
         may be repeated (costs: work done twice)"
    );
    match ending {
        // The request was not begun.
        Ending::Reset(7) => format!(
            "the backend refuses more requests than it will do at once: let it take more, or \
             give it less. {again}"
        ),
        Ending::GoAway(0) => format!(
            "the backend ends connections by age, by number of requests or because it stops: let \
             it wait for requests on their way before it does (gRPC: a grace period). {again}"
        ),
        _ => "look at the backend's own log for that moment: the error is the one that it gave"
            .to_owned(),
    }
}

/// RFC 9113, 7.
fn name(error: u32) -> &'static str {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    let known = usize::try_from(error).ok().and_then(|at| NAMES.get(at));
    known.copied().unwrap_or("unknown")
}
