//! `response-rejected`: nginx refused what the backend sent (too big header, invalid
//! header, bad chunk) and closed. Requires: nginx's line that says so. The socket shows
//! response bytes and nginx closing it.

use super::{Case, Remedy, Verdict, in_flight, sentences, with_socket};
use crate::nginx::message::MessageKind;
use crate::report::model::Cause;
use crate::report::words::counted;

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    if case.line.kind != MessageKind::ResponseRejected {
        return None;
    }
    let too_big = case.line.summary.message.contains("too big header");
    let unread = case
        .connection()
        .and_then(|connection| connection.unread_at_close);
    let advice = too_big.then(|| {
        let directive = case.directive("buffer_size");
        let now = case
            .settings
            .buffer_size
            .as_deref()
            .unwrap_or("4k or 8k, one memory page");
        Remedy {
            text: format!(
                "raise {directive} above the backend's largest response header (now {now}); \
                 it costs that much memory for each request in flight. Or make the backend send \
                 less, usually fewer or smaller cookies"
            ),
            because: format!("the response header did not fit into {directive}"),
        }
    });
    Some(Verdict {
        cause: Cause::ResponseRejected,
        confidence: with_socket(case),
        evidence: sentences([
            Some("by its own line nginx could not accept what the backend sent".to_owned()),
            in_flight(case),
            unread.map(|bytes| {
                format!(
                    "{} unread when nginx closed, so its host sent an RST",
                    counted(u64::from(bytes), "byte was", "bytes were")
                )
            }),
        ]),
        advice,
    })
}
