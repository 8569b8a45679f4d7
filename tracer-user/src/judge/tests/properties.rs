//! Properties over random captures of which the truth is known.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// One event in a worker: a failure with its line, or a connection that just ends.
#[derive(Clone, Debug)]
pub(super) struct Event {
    gap_ms: u64,
    worker: u32,
    what: u8,
    number: u64,
}

pub(super) fn events() -> impl Strategy<Value = Vec<Event>> {
    let event =
        (1u64..400, 0u32..2, 0u8..6, 1u64..4).prop_map(|(gap_ms, worker, what, number)| Event {
            gap_ms,
            worker,
            what,
            number,
        });
    proptest::collection::vec(event, 1..30)
}

/// The kernel's records, the lines, and by a line's offset its connection and cause.
pub(super) struct Captured {
    kernel: Vec<Record>,
    lines: Vec<Record>,
    pub(super) truth: BTreeMap<u64, (u64, Cause)>,
}

pub(super) fn captured(events: &[Event]) -> Captured {
    let (mut kernel, mut lines, mut truth) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut ms = 3000;
    for (cookie, event) in (1..).zip(events) {
        ms += event.gap_ms;
        let begun = connection(cookie, ms - 2500);
        let kept = begun.clone().request(ms - 2500).answer(ms - 2499);
        let asked = begun.clone().request(ms - 2400);
        let (ended_so, line, cause) = match event.what {
            0 => (
                kept.fin(ms - 5, 0).request(ms - 1).eof(ms),
                Some(said(ms, PREMATURE, 0, HEADER)),
                Cause::StaleKeepalive,
            ),
            1 => (
                asked.fin(ms - 1, 0).eof(ms),
                Some(said(ms, PREMATURE, 0, HEADER)),
                Cause::ClosedWithoutAnswer,
            ),
            2 => (
                asked,
                Some(said(ms, "upstream timed out", 110, HEADER)),
                Cause::ReadTimeout,
            ),
            3 => (
                asked.answer(ms - 3).fin(ms - 1, 0).eof(ms),
                Some(said(ms, PREMATURE, 0, BODY)),
                Cause::ResponseAborted,
            ),
            4 => (
                kept.fin(ms, 0).peek(ms, IdleEnd::Eof),
                None,
                Cause::Unexplained,
            ),
            _ => (kept, None, Cause::Unexplained),
        };
        let mut ended_so = ended_so.closed(ms);
        ended_so.pid = PID + event.worker;
        ended_so.tid = ended_so.pid;
        if let Some(mut line) = line {
            line.pid = PID + event.worker;
            line.number = event.number;
            kernel.push(line.logged());
            lines.push(line.line());
            truth.insert(ms, (cookie, cause));
        }
        kernel.push(ended(ended_so));
    }
    Captured {
        kernel,
        lines,
        truth,
    }
}

fn ns(record: &Record) -> u64 {
    match record {
        Record::Logged(logged) => logged.ns,
        Record::Connection(connection) => connection.ended_ns,
        Record::Line(line) => line.read_ns - 50 * MS,
        _ => 0,
    }
}

/// Lines come in batches between the kernel's records, some time after they were written.
pub(super) fn interleaved(captured: &Captured, batch_ms: u64) -> Vec<Record> {
    let mut all: Vec<(u64, u8, Record)> = Vec::new();
    let batch = batch_ms * MS;
    for record in &captured.kernel {
        all.push((ns(record), 0, record.clone()));
    }
    for record in &captured.lines {
        all.push((ns(record).next_multiple_of(batch), 1, record.clone()));
    }
    all.sort_by_key(|(ns, kind, _)| (*ns, *kind));
    all.into_iter().map(|(_, _, record)| record).collect()
}

/// No incident may have another's connection, unless it says that it is one of several,
/// or be certain of a wrong cause.
fn holds(judged: &Judged, truth: &BTreeMap<u64, (u64, Cause)>) {
    for incident in &judged.report.incidents {
        let (cookie, cause) = truth[&incident.line.offset];
        if incident.matched == Match::Window {
            assert_eq!(incident.confidence, Confidence::Possible, "{incident:#?}");
        } else if let Some(connection) = &incident.connection {
            assert_eq!(connection.cookie, cookie, "{incident:#?}");
        }
        if incident.confidence == Confidence::Certain {
            assert_eq!(incident.cause, cause, "{incident:#?}");
        }
    }
}

/// Found by the property below: each line took the next one's sighting, over more than
/// three seconds.
#[test]
fn lines_that_took_each_others_sightings_in_a_chain_are_all_doubted() {
    let events: Vec<Event> = [
        (1, 0, 1),
        (1, 0, 1),
        (1, 0, 1),
        (1, 0, 1),
        (1, 0, 1),
        (47, 0, 1),
        (133, 2, 1),
        (275, 0, 2),
        (184, 0, 1),
        (192, 0, 1),
        (170, 0, 2),
        (394, 0, 2),
        (178, 0, 1),
        (110, 0, 1),
        (198, 4, 1),
        (374, 4, 1),
        (253, 0, 1),
        (398, 0, 2),
        (142, 0, 1),
    ]
    .into_iter()
    .map(|(gap_ms, what, number)| Event {
        gap_ms,
        worker: 0,
        what,
        number,
    })
    .collect();
    holds_without_sightings(&events, &[0, 1, 2, 4]);
}

/// Found by the property below: the seventh line takes the eleventh's sighting, and with it
/// the close that the lines between them, put in order, would have left to the eleventh.
#[test]
fn an_exchanged_sighting_makes_the_lines_put_in_order_beside_it_unsure() {
    let numbers = [1, 1, 1, 1, 1, 1, 3, 2, 2, 2, 3];
    let events: Vec<Event> = numbers
        .into_iter()
        .map(|number| Event {
            gap_ms: 1,
            worker: 0,
            what: 0,
            number,
        })
        .collect();
    let judged = holds_without_sightings(&events, &[6, 7, 8, 9]);
    let incidents = judged.report.incidents.iter();
    let beside = incidents.filter(|incident| incident.line.connection == Some(2));
    let found: Vec<Match> = beside.map(|incident| incident.matched).collect();
    assert_eq!(found, [Match::Window; 3]);
}

/// The property's demand with these sightings, by their order, lost.
#[track_caller]
fn holds_without_sightings(events: &[Event], lost: &[usize]) -> Judged {
    let captured = captured(events);
    let mut sightings = 0..;
    let records = interleaved(&captured, 100)
        .into_iter()
        .filter(|record| {
            !matches!(record, Record::Logged(_))
                || sightings
                    .next()
                    .is_some_and(|number| !lost.contains(&number))
        })
        .collect();
    let judged = judged(records);
    holds(&judged, &captured.truth);
    judged
}

/// What is known of the backends' own side, made up: a close, an end or a process.
fn of_a_backend() -> impl Strategy<Value = Record> {
    let exit = prop_oneof![
        (0u32..70).prop_map(Exit::Signal),
        (0u32..3).prop_map(Exit::Code),
        Just(Exit::OutOfMemory),
    ];
    (
        0u8..3,
        1u64..40,
        0u64..12_000,
        4711u32..4714,
        proptest::option::of(exit),
    )
        .prop_map(|(kind, cookie, ms, pid, exit)| match (kind, exit) {
            (0, Some(exit)) => backend_exit(ms, pid, exit),
            (1, _) => backend_process(pid, ms, ms + cookie * 100),
            (_, exit) => peer_close_by(pid, cookie, ms, exit),
        })
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn late_lines_change_nothing(events in events(), batch_ms in 1u64..1500) {
        let captured = captured(&events);
        let at_once = judged(interleaved(&captured, 1)).report;
        let late = judged(interleaved(&captured, batch_ms));
        holds(&late, &captured.truth);
        prop_assert!(late.report.incidents.iter().all(|one| one.matched == Match::Exact));
        prop_assert_eq!(&at_once.incidents, &late.report.incidents);
    }

    #[test]
    fn lost_connections_never_lead_to_another_one(
        events in events(), lost in proptest::collection::vec(any::<bool>(), 60),
    ) {
        let captured = captured(&events);
        let mut lost = lost.into_iter().cycle();
        let records = interleaved(&captured, 100)
            .into_iter()
            .filter(|record| !(matches!(record, Record::Connection(_)) && lost.next() == Some(true)))
            .collect();
        holds(&judged(records), &captured.truth);
    }

    #[test]
    fn lost_sightings_never_lead_to_another_connection(
        events in events(), lost in proptest::collection::vec(any::<bool>(), 60),
    ) {
        let captured = captured(&events);
        let mut lost = lost.into_iter().cycle();
        let records = interleaved(&captured, 100)
            .into_iter()
            .filter(|record| !(matches!(record, Record::Logged(_)) && lost.next() == Some(true)))
            .collect();
        holds(&judged(records), &captured.truth);
    }

    #[test]
    fn every_prefix_and_every_order_is_judged_and_twice_alike(
        events in events(), cut in 0usize..90, mix in any::<u64>(),
    ) {
        let mut records = interleaved(&captured(&events), 100);
        records.truncate(cut);
        drop(judged(records.clone()));
        for index in (1..records.len()).rev() {
            let turned = mix.rotate_left(u32::try_from(index).unwrap());
            let other = usize::try_from(turned % (index as u64 + 1)).unwrap();
            records.swap(index, other);
        }
        let json = |records| serde_json::to_string(&judged(records).report).unwrap();
        prop_assert_eq!(json(records.clone()), json(records));
    }

    #[test]
    fn only_the_end_of_its_own_owner_makes_a_connection_a_process_cause(
        events in events(), backends in proptest::collection::vec((of_a_backend(), any::<prop::sample::Index>()), 0..40),
    ) {
        let mut records = interleaved(&captured(&events), 100);
        let mut closes: BTreeMap<u64, bool> = BTreeMap::new();
        for (record, place) in backends {
            if let Record::PeerClose(close) = &record {
                *closes.entry(close.cookie).or_default() |= close.exit.is_some();
            }
            records.insert(place.index(records.len() + 1), record);
        }
        let first = judged(records.clone()).report;
        prop_assert_eq!(&first.incidents, &judged(records).report.incidents);
        for incident in &first.incidents {
            let cookie = incident.connection.as_ref().map(|found| found.cookie);
            let owner = cookie.and_then(|cookie| closes.get(&cookie));
            let of_its_process = matches!(
                incident.cause,
                Cause::BackendKilled
                    | Cause::BackendOom
                    | Cause::BackendCrashed
                    | Cause::BackendExited
                    | Cause::WorkerRecycled
            );
            prop_assert!(owner.is_some() || !of_its_process, "{:#?}", incident);
            let certain = incident.confidence == Confidence::Certain;
            let dying = owner == Some(&true);
            let inferred = of_its_process || incident.cause == Cause::BackendRestart;
            prop_assert!(dying || !(inferred && certain), "{:#?}", incident);
            prop_assert!(incident.cause != Cause::WorkerTimeout || !certain);
        }
    }
}
