//! Lines that no call of nginx's wrote.

use super::*;
use crate::trace::record::{Instance, Loss};

/// Another of nginx's own lines, seen being written.
fn own() -> Vec<Record> {
    cut_off(1, 5000, 100).to_vec()
}

fn forged(ms: u64, number: u64) -> Said {
    let mut line = said(ms, PREMATURE, 0, HEADER);
    line.number = number;
    line.upstream = "http://192.0.2.66:6666/".to_owned();
    line
}

fn later(ms: u64) -> Record {
    Record::Anchor(Anchor {
        monotonic_ns: at(ms),
        realtime_ns: i64::try_from(WALL_S * S + ms * MS).unwrap(),
    })
}

/// Incidents and lines of others.
#[track_caller]
fn counted(records: Vec<Record>) -> (usize, u64) {
    let judged = judged(records);
    let foreign = judged.report.summary.foreign_lines;
    let told = judged
        .report
        .notes
        .iter()
        .any(|note| note.contains("and no call of the nginx that was captured wrote"));
    assert_eq!(told, foreign > 0, "{:?}", judged.report.notes);
    (judged.report.incidents.len(), foreign)
}

#[test]
fn a_line_without_a_call_is_no_incident_where_calls_are_seen() {
    let mut records = own();
    records.push(forged(5000, 99).line());
    assert_eq!(counted(records.clone()), (1, 1));
    // Nor is it shown while the capture goes on.
    let mut judge = Judge::default();
    for record in beginning().into_iter().chain(records) {
        judge.push(&record);
    }
    for ms in [7000, 9000, 11_000, 13_000] {
        judge.push(&later(ms));
    }
    assert_eq!(judge.fresh().len(), 1);
}

#[test]
fn where_no_call_was_ever_seen_a_line_is_nginxs() {
    assert_eq!(counted(vec![forged(5000, 99).line()]), (1, 0));
}

#[test]
fn where_sightings_were_lost_a_line_may_be_nginxs() {
    for what in ["logged_records", "missed_runs:whoclosed_line"] {
        let mut records = own();
        records.push(forged(5000, 99).line());
        records.push(Record::Loss(Loss {
            ns: at(6000),
            since_ns: None,
            what: what.to_owned(),
            count: 1,
        }));
        assert_eq!(counted(records), (2, 0), "{what}");
    }
}

#[test]
fn a_sighting_that_no_line_claims_may_be_a_lines_that_reads_otherwise() {
    let mut records = own();
    records.push(forged(5000, 98).logged());
    records.push(forged(5000, 99).line());
    assert_eq!(counted(records), (2, 0));
}

#[test]
fn a_line_like_one_of_nginxs_own_stays_in_doubt() {
    let mut records = own();
    records.push(forged(5000, 1).line());
    assert_eq!(counted(records), (2, 0));
}

#[test]
fn a_line_of_which_a_connection_speaks_stays() {
    let mut records = own();
    let cut = connection(2, 4900)
        .request(4900)
        .fin(5000, 0)
        .eof(5000)
        .closed(5000);
    let line = said(5000, PREMATURE, 0, HEADER);
    records.push(ended(cut));
    records.push(Said { number: 99, ..line }.line());
    assert_eq!(counted(records), (2, 0));
}

#[test]
fn a_line_from_before_an_instances_calls_were_seen_is_its_own() {
    let instance = |ms| {
        let mut nginx = nginx();
        nginx.master_pid = 800;
        nginx.workers = vec![Worker {
            pid: 801,
            inner_pid: 801,
        }];
        Record::Instance(Box::new(Instance {
            ns: at(ms),
            since_ns: None,
            nginx,
        }))
    };
    let by = |line: Said| Said { pid: 801, ..line };
    let seen = || {
        let failed = connection(3, 7900).request(7900).fin(8000, 0).eof(8000);
        let failed = Connection {
            pid: 801,
            tid: 801,
            ..failed.closed(8000)
        };
        let line = by(said(8000, PREMATURE, 0, HEADER));
        [line.logged(), ended(failed), line.line()]
    };
    // Written before, read after its calls are seen.
    let mut early = vec![instance(7000)];
    early.push(by(forged(7000, 99)).line());
    early.extend(seen());
    assert_eq!(counted(early), (2, 0));
    let mut late = vec![instance(7000)];
    late.extend(seen());
    late.push(by(forged(8200, 99)).line());
    assert_eq!(counted(late), (1, 1));
}
