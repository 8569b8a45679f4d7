//! Connections of which no program saw nginx's sends and receives.

use super::*;

/// As the kernel itself remembers it: its calls' own facts are absent.
fn unseen(mut connection: Connection) -> Connection {
    connection.calls_unseen = true;
    connection.eof_read_ns = None;
    connection.failed_call_ns = None;
    connection.failed_call = None;
    connection.failed_call_errno = None;
    connection
}

fn premature() -> Said {
    said(5000, PREMATURE, 0, HEADER)
}

#[test]
fn a_fin_before_the_request_is_a_stale_connection_of_unknown_count() {
    let stale = connection(1, 0).request(1).answer(2);
    let stale = stale.fin(4900, 0).request(4999).closed(5000);
    let incident = one(unseen(stale), &premature());
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Likely);
    assert_eq!(incident.matched, Match::Exact);
    let found = incident.connection.as_ref().unwrap();
    assert_eq!((found.requests, found.requests_at_least), (None, Some(2)));
    assert_eq!(found.reused, Some(true));
}

#[test]
fn what_was_closed_without_an_answer_is_never_certain() {
    let closed = connection(1, 0).request(1).fin(4000, 0).closed(5000);
    let seen = one_by_call(closed.clone().eof(4999), &premature());
    assert_verdict(&seen, Cause::ClosedWithoutAnswer, Confidence::Certain);
    let incident = one_by_call(unseen(closed), &premature());
    assert_verdict(&incident, Cause::ClosedWithoutAnswer, Confidence::Likely);
    // Nothing ever came back, so it was the first.
    let found = incident.connection.as_ref().unwrap();
    assert_eq!((found.reused, found.requests), (Some(false), None));
    assert!(found.request_bytes.is_some());
}

#[test]
fn a_connection_on_which_nothing_ended_does_not_fit_a_premature_close() {
    let open = connection(1, 0).request(1).closed(5000);
    let incident = one(unseen(open), &premature());
    assert_eq!(incident.matched, Match::None);
}

#[test]
fn a_note_of_the_last_send_a_tick_late_does_not_part_a_line_from_its_connection() {
    let late = connection(1, 0).request(1).answer(2);
    let late = late.request(5003).fin(4999, 0).closed(5004);
    let incident = one(unseen(late.clone()), &premature());
    assert_eq!(incident.matched, Match::Exact);
    let incident = one(late.eof(5000), &premature());
    assert_eq!(incident.matched, Match::None);
}

#[test]
fn where_the_order_is_unknown_it_is_not_said_that_an_answer_came() {
    let mut both = connection(1, 0).request(4998).answer(4999);
    both = both.fin(4999, 0).closed(5000);
    both.order_unknown = true;
    let incident = one(unseen(both.clone()), &premature());
    assert_ne!(incident.cause, Cause::ResponseAborted);
    both.order_unknown = false;
    let incident = one(unseen(both), &premature());
    assert_verdict(&incident, Cause::ResponseAborted, Confidence::Likely);
}

#[test]
fn idle_closes_still_give_a_timeout_and_no_limit_on_requests() {
    let closes = (1..=6u64).map(|number| {
        let began = number * 1000;
        let idle = connection(number, began).request(began).answer(began + 1);
        ended(unseen(idle.fin(began + 701, 0).closed(began + 702)))
    });
    let report = judged(closes.collect()).report;
    let upstream = &report.upstreams[0];
    let timeout = upstream.idle_timeout.unwrap();
    assert!((timeout.ms - 700.0).abs() < 1.0, "{timeout:?}");
    assert_eq!((upstream.requests, upstream.reused_ratio), (None, None));
    assert_eq!(upstream.request_limit, None);
}
