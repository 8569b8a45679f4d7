//! Sends and receives that no program saw, on kernels that skip runs of the programs.

use super::*;
use crate::trace::record::Loss;

const SENDS: &str = "missed_runs:whoclosed_send";
const RECEIVES: &str = "missed_runs:whoclosed_recv";

/// A loss in the second before this moment.
fn missed(what: &str, ms: u64) -> Record {
    Record::Loss(Loss {
        ns: at(ms),
        since_ns: Some(at(ms - 1000)),
        what: what.to_owned(),
        count: 9,
    })
}

/// As programs record it that notice what they missed.
fn noticed_of(nginx: Nginx, records: Vec<Record>) -> Judged {
    let mut all = beginning_with(nginx);
    for record in &mut all {
        if let Record::Capture(capture) = record {
            capture.gaps_noticed = true;
        }
    }
    all.extend(records);
    judge(all).finish(Vec::new())
}

fn noticed(records: Vec<Record>) -> Judged {
    noticed_of(nginx(), records)
}

/// Of an nginx no line of which is seen being written.
fn blind(records: Vec<Record>) -> Judged {
    let blind = Nginx {
        log_calls_seen: false,
        ..nginx()
    };
    noticed_of(blind, records)
}

fn premature() -> Said {
    said(5000, PREMATURE, 0, HEADER)
}

fn stale() -> Connection {
    let stale = connection(1, 0).request(1).answer(2);
    stale.fin(4900, 0).request(4999).eof(5000).closed(5000)
}

/// Closed while the request was in flight, without a call that met the end.
fn cut() -> Connection {
    let cut = connection(1, 0).request(1).answer(2).request(3000);
    cut.fin(4999, 0).closed(5000)
}

fn incident(connection: Connection, said: &Said, what: &str) -> Incident {
    only(noticed(vec![
        said.logged(),
        ended(connection),
        said.line(),
        missed(what, 5500),
    ]))
}

#[test]
fn what_other_connections_missed_leaves_a_verdict_certain() {
    for what in [SENDS, RECEIVES] {
        let incident = incident(stale(), &premature(), what);
        assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Certain);
        assert_eq!(incident.connection.unwrap().requests, Some(2));
    }
}

#[test]
fn programs_that_notice_no_gaps_leave_every_line_of_that_time_less_sure() {
    let said = premature();
    let incident = only(judged(vec![
        said.logged(),
        ended(stale()),
        said.line(),
        missed(SENDS, 5500),
    ]));
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Likely);
}

#[test]
fn a_gap_long_before_takes_the_number_of_requests_alone() {
    let mut earlier = stale();
    earlier.exchanges = 5;
    earlier.exchanges_at_end = 4;
    earlier.missed_calls = 1;
    let incident = incident(earlier, &premature(), SENDS);
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Certain);
    let found = incident.connection.as_ref().unwrap();
    assert_eq!((found.requests, found.requests_at_least), (None, Some(5)));
    assert_eq!((found.missed_calls, found.reused), (1, Some(true)));
    let says = |part: &str| incident.evidence.iter().any(|said| said.contains(part));
    assert!(says("at least 5 requests were sent"), "{incident:#?}");
    assert!(!says("less sure"), "{incident:#?}");
}

#[test]
fn a_gap_near_the_end_takes_certainty_and_says_so() {
    let mut filled = stale();
    filled.missed_calls = 1;
    filled.filled_in = true;
    let incident = incident(filled, &premature(), RECEIVES);
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Likely);
    assert_eq!((incident.side, incident.means), (Side::Backend, Means::Fin));
    let says = |part: &str| incident.evidence.iter().any(|said| said.contains(part));
    assert!(says("on this connection were missed"), "{incident:#?}");
}

#[test]
fn a_send_noted_a_tick_late_does_not_part_a_line_from_its_connection() {
    let late = connection(1, 0).request(1).answer(2);
    let mut late = late.fin(4900, 0).request(5004).eof(5000).closed(5004);
    assert_eq!(one(late.clone(), &premature()).matched, Match::None);
    late.missed_calls = 1;
    late.filled_in = true;
    let incident = incident(late, &premature(), SENDS);
    assert_eq!(incident.matched, Match::Exact);
}

#[test]
fn what_may_be_two_exchanges_in_one_is_not_called_the_first() {
    let mut merged = connection(1, 0).request(1).answer(2);
    merged = merged.fin(4999, 0).eof(5000).closed(5000);
    merged.missed_calls = 1;
    merged.filled_in = true;
    let with_answer = incident(merged.clone(), &premature(), SENDS);
    assert_eq!(with_answer.connection.unwrap().reused, None);
    let mut silent = connection(1, 0).request(1);
    silent = silent.fin(4999, 0).eof(5000).closed(5000);
    silent.missed_calls = 1;
    silent.filled_in = true;
    // Nothing ever came back.
    let incident = incident(silent, &premature(), SENDS);
    let found = incident.connection.unwrap();
    assert_eq!((found.reused, found.requests), (Some(false), None));
    assert_eq!(found.request_bytes, Some(80));
}

#[test]
fn a_read_of_the_end_that_was_missed_still_leads_the_line_to_its_connection() {
    let cut = incident(cut(), &premature(), RECEIVES);
    assert_eq!(cut.matched, Match::Exact);
    assert_verdict(&cut, Cause::ClosedWithoutAnswer, Confidence::Likely);
    let mut unmet = stale();
    unmet.eof_read_ns = None;
    let incident = incident(unmet, &premature(), RECEIVES);
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Likely);
    let says = |part: &str| incident.evidence.iter().any(|said| said.contains(part));
    assert!(says("met the end was not seen"), "{incident:#?}");
}

#[test]
fn a_read_of_the_end_that_is_noticed_at_the_close_came_before_the_line() {
    let mut late = stale();
    late.eof_read_ns = late.closed_ns.map(|ns| ns + 200);
    late.missed_calls = 1;
    late.filled_in = true;
    for judged in [
        noticed(vec![
            premature().logged(),
            ended(late.clone()),
            premature().line(),
        ]),
        blind(vec![ended(late.clone()), premature().line()]),
    ] {
        let incident = only(judged);
        assert_ne!(incident.matched, Match::None);
        assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Likely);
    }
    // A record of a seen call is what it is.
    late.filled_in = false;
    assert_eq!(one(late, &premature()).matched, Match::None);
}

#[test]
fn what_nginx_read_and_refused_may_stand_before_its_request_where_both_were_missed() {
    let line = said(5000, "upstream sent invalid header", 0, HEADER);
    let mut turned = connection(1, 0).request(1).answer(4990).request(4996);
    turned.missed_calls = 2;
    turned.filled_in = true;
    let turned = turned.closed(5000);
    let incident = incident(turned, &line, RECEIVES);
    assert_eq!(incident.matched, Match::Exact);
    let seen = connection(1, 0).request(1).answer(4990).request(4996);
    assert_eq!(one(seen.closed(5000), &line).matched, Match::None);
}

#[test]
fn a_failing_call_that_was_missed_still_leads_the_line_to_its_connection() {
    let reset = connection(1, 0).request(1).rst(4999, 0).closed(5000);
    let said = said(5000, "recv() failed", 104, HEADER);
    let found = incident(reset.clone(), &said, RECEIVES);
    assert_eq!((found.matched, found.means), (Match::Exact, Means::Rst));
    assert!(found.confidence > Confidence::Certain);
    let mut other = said;
    other.errno = 32;
    assert_eq!(incident(reset, &other, RECEIVES).matched, Match::None);
}

#[test]
fn so_does_a_call_that_met_the_end_of_retransmissions() {
    let mut silent = connection(1, 0).request(1).closed(5000);
    silent.socket_error = Some(110);
    let said = said(5000, "recv() failed", 110, HEADER);
    let found = incident(silent.clone(), &said, RECEIVES);
    assert_eq!(found.matched, Match::Exact);
    assert!(found.confidence > Confidence::Certain);
    assert_eq!(
        only(noticed(vec![said.logged(), ended(silent), said.line()])).matched,
        Match::None
    );
}

#[test]
fn where_nothing_was_missed_such_a_connection_is_not_the_lines() {
    let said = premature();
    let without = vec![said.logged(), ended(cut()), said.line()];
    assert_eq!(only(noticed(without)).matched, Match::None);
    let long_before = incident(cut(), &premature(), "missed_runs:whoclosed_gone");
    assert_eq!(long_before.matched, Match::None);
    // Another close may have come between if one's record was lost as well.
    let lost = vec![
        said.logged(),
        ended(cut()),
        said.line(),
        missed(RECEIVES, 5500),
        missed("connection_records", 5500),
    ];
    assert_eq!(only(noticed(lost)).matched, Match::None);
}

#[test]
fn a_connection_that_nginx_found_ended_in_its_pool_is_no_lines_whatever_was_missed() {
    let pooled = connection(1, 0).request(1).answer(2);
    let pooled = pooled.fin(4999, 0).peek(4999, IdleEnd::Eof).closed(5000);
    assert_eq!(
        incident(pooled, &premature(), RECEIVES).matched,
        Match::None
    );
}

#[test]
fn by_order_alone_the_line_finds_it_too() {
    let said = said(5000, "recv() failed", 104, HEADER);
    let reset = connection(1, 0).request(1).answer(2).request(3000);
    let reset = ended(reset.rst(4999, 0).closed(5000));
    let incident = only(blind(vec![
        reset.clone(),
        said.line(),
        missed(RECEIVES, 5500),
    ]));
    assert_eq!(incident.matched, Match::Ordered);
    assert!(incident.confidence > Confidence::Certain);
    let nothing_missed = only(blind(vec![reset, said.line()]));
    assert_eq!(nothing_missed.matched, Match::None);
}

#[test]
fn what_a_worker_did_next_is_unknown_while_sends_are_missed() {
    let said = premature();
    let records = |what: &str| {
        vec![
            said.logged(),
            ended(stale()),
            then(1, 5000, Next::OtherSend, 0),
            said.line(),
            missed(what, 5500),
        ]
    };
    let known = only(noticed(records(RECEIVES)));
    assert_eq!((known.retried, known.served), (Some(false), Some(false)));
    let unknown = only(noticed(records(SENDS)));
    assert_eq!((unknown.retried, unknown.served), (None, None));
    let retried = vec![
        said.logged(),
        ended(stale()),
        then(1, 5000, Next::Connect, 2),
        said.line(),
        missed(SENDS, 5500),
    ];
    assert_eq!(only(noticed(retried)).retried, None);
}

#[test]
fn the_logs_next_line_shows_a_retry_while_sends_are_missed() {
    let first = premature();
    let mut second = said(5001, "connect() failed", 111, CONNECTING);
    second.upstream = "http://127.0.0.1:9102/a".to_owned();
    let mut refused = connection(2, 5000);
    refused.remote = "127.0.0.1:9102".parse().unwrap();
    refused.established_ns = None;
    refused.socket_error = Some(111);
    let refused = refused.closed(5001);
    let judged = noticed(vec![
        first.logged(),
        ended(stale()),
        second.logged(),
        ended(refused),
        first.line(),
        second.line(),
        missed(SENDS, 5500),
    ]);
    let outcomes = judged.report.incidents.iter();
    let outcomes: Vec<_> = outcomes
        .map(|one| (one.retried, one.request_group))
        .collect();
    assert_eq!(outcomes, [(Some(true), 1), (None, 1)]);
}

#[test]
fn at_a_limit_that_missed_calls_hide_nothing_is_certain() {
    let mut records: Vec<Record> = (10..14u64)
        .map(|cookie| {
            let mut other = connection(cookie, 100).request(100).answer(101);
            other.missed_calls = 1;
            ended(other.fin(101, 0).peek(102, IdleEnd::Eof).closed(102))
        })
        .collect();
    let said = premature();
    // A busy backend closes a little later.
    let at_limit = connection(1, 0).request(1).answer(4900);
    let at_limit = at_limit.fin(4960, 0).request(4999).eof(5000).closed(5000);
    records.extend([said.logged(), ended(at_limit), said.line()]);
    let incident = only(noticed(records.clone()));
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Likely);
    // Another connection got further.
    let further = connection(2, 0).request(1).answer(2).request(3).answer(4);
    records.push(ended(further.closed(200)));
    let incident = only(noticed(records));
    assert_verdict(&incident, Cause::StaleKeepalive, Confidence::Certain);
}

/// The owner of the pooled connection was killed, and nginx's look at its end was missed: the
/// worker closes it while the line's own connection, an upgraded one, still sends to its client.
#[test]
fn a_pooled_connection_whose_peek_was_missed_is_not_the_line_s_of_another() {
    let said = said(5000, "recv() failed", 104, "proxying upgraded connection");
    let mut pooled = connection(1, 0)
        .request(1)
        .answer(2)
        .rst(4000, 0)
        .closed(5400);
    let mut records = vec![
        peer_close(1, 4000, Some(Exit::Signal(9))),
        said.logged(),
        said.line(),
    ];
    pooled.line_ns = None;
    records.extend([ended(pooled.clone()), missed(RECEIVES, 5800)]);
    let incident = only(noticed(records));
    assert_eq!(incident.matched, Match::None, "{incident:#?}");
    assert_ne!(incident.cause, Cause::BackendKilled);
    // A read of the end that was noticed at the close says no more of the line.
    let said = premature();
    let mut late = connection(1, 0).request(1).answer(2).fin(4000, 0);
    late.eof_read_ns = Some(at(5400) + 20_200);
    late.missed_calls = 1;
    late.filled_in = true;
    late = late.closed(5400);
    late.line_ns = None;
    let mut body = said.clone();
    body.action = "reading upstream";
    for line in [said, body] {
        let records = vec![line.logged(), ended(late.clone()), line.line()];
        assert_eq!(only(noticed(records)).matched, Match::None);
    }
}

#[test]
fn an_assumed_end_leaves_nothing_certain_and_is_always_said() {
    let said = said(5000, "recv() failed", 104, HEADER);
    let reset = connection(1, 0).request(1).rst(4999, 0).closed(5000);
    let incident = only(noticed(vec![
        peer_close(1, 4999, Some(Exit::Signal(9))),
        said.logged(),
        ended(reset),
        said.line(),
        missed(RECEIVES, 5500),
    ]));
    assert_verdict(&incident, Cause::BackendKilled, Confidence::Likely);
    let says = |part: &str| incident.evidence.iter().any(|said| said.contains(part));
    assert!(says("met the end was not seen"), "{incident:#?}");
}

#[test]
fn an_end_that_was_not_missed_leaves_its_connection_to_a_line_that_was_not_seen() {
    let assumed = said(5000, "recv() failed", 104, HEADER);
    let mut own = said(5000, "connect() failed", 104, CONNECTING);
    own.number = 8;
    let reset = connection(1, 0)
        .request(1)
        .answer(2)
        .rst(4999, 0)
        .closed(5000);
    let judged = noticed(vec![
        assumed.logged(),
        ended(reset),
        assumed.line(),
        own.line(),
    ]);
    let matched: Vec<_> = judged
        .report
        .incidents
        .iter()
        .map(|one| one.matched)
        .collect();
    assert!(matched.contains(&Match::None), "{matched:?}");
    assert!(matched.contains(&Match::Ordered), "{matched:?}");
}

#[test]
fn where_the_kernel_may_encrypt_what_was_missed_bears_on_every_verdict_over_tls() {
    let mut said = premature();
    said.upstream = format!("https://{PEER}/a");
    let mut over_tls = stale();
    over_tls.handshake_ns = Some(at(1));
    let with = |set: Option<&str>, connection: &Connection| {
        let mut nginx = nginx();
        let configuration = nginx.configuration.as_mut().unwrap();
        let setting = |value: &str| ("proxy_ssl_conf_command".to_owned(), value.to_owned());
        configuration.locations.push(ProxyLocation {
            server_name: "app".to_owned(),
            location: "/".to_owned(),
            pass: "https://app".to_owned(),
            module: "proxy".to_owned(),
            settings: set.map(setting).into_iter().collect(),
        });
        let connection = ended(connection.clone());
        let records = vec![said.logged(), connection, said.line(), missed(SENDS, 5500)];
        only(noticed_of(nginx, records)).confidence
    };
    let plain = stale();
    assert_eq!(with(None, &over_tls), Confidence::Certain);
    assert_eq!(with(Some("Options KTLS"), &over_tls), Confidence::Likely);
    assert_eq!(with(Some("Options KTLS"), &plain), with(None, &plain));
    // The configuration does not tell.
    let records = vec![
        said.logged(),
        ended(over_tls),
        said.line(),
        missed(SENDS, 5500),
    ];
    assert_eq!(only(noticed(records)).confidence, Confidence::Likely);
}
