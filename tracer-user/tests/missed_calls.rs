//! The lab's recorded runs as a kernel would have recorded them that skips runs of the
//! programs on nginx's sends and receives: no verdict is wrong and certain, sides and means
//! are as before, no line has another connection, and what became of requests is known as
//! before or not at all.
//!
//! `WHOCLOSED_SEEDS=N` takes more than the usual number of seeds.

#![expect(
    clippy::unwrap_used,
    reason = "a test panics where something is not as it must be"
)]

use std::collections::BTreeMap;
use std::io::Cursor;

use lab::fixture::{self, Fixture};
use lab::scenarios::ALL;
use lab::verdicts::{Incident, Report};
use tracer_user::judge;
use tracer_user::trace::reader::Trace;
use tracer_user::trace::record::{Connection, ConnectionEnd, Continuation, Loss, Next, Record};

/// Seeds for each scenario, as a rule.
const SEEDS: u64 = 12;
const S: u64 = 1_000_000_000;
/// Ticks of kernels with `CONFIG_HZ` of 1000, 250 and 100.
const TICKS_NS: [u64; 3] = [1_000_000, 4_000_000, 10_000_000];

fn recorded(scenario: &str) -> Vec<Record> {
    let trace = fixture::trace(&fixture::folder().join(scenario));
    let bytes = zstd::decode_all(std::fs::File::open(trace).unwrap()).unwrap();
    let trace = Trace::new(Cursor::new(bytes), scenario).unwrap();
    trace.map(Result::unwrap).collect()
}

fn judged(records: Vec<Record>) -> Report {
    let judged = judge::judge(records).finish(Vec::new());
    Report::parse(&serde_json::to_vec(&judged.report).unwrap()).unwrap()
}

/// Numbers from a seed (splitmix64).
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn one_in(&mut self, number: u64) -> bool {
        self.next().is_multiple_of(number)
    }
}

/// What the kernel remembers of a moment, not before another one.
fn remembered(ns: u64, tick_ns: u64, before: u64) -> u64 {
    (ns - ns % tick_ns).max(before)
}

/// Over TLS what moves before the end of the handshake is counted by other programs.
fn moved(connection: &Connection) -> bool {
    connection.established_ns.is_some() && connection.exchanges > 0
}

/// The first send of the last request was missed, and found at the next call.
fn send_missed(connection: &mut Connection, tick_ns: u64) {
    let (Some(started), Some(sent)) = (connection.request_started_ns, connection.last_sent_ns)
    else {
        return;
    };
    let before = connection
        .idle_before_ns
        .map_or(connection.opened_ns, |idle| started - idle);
    let at = remembered(started, tick_ns, before);
    connection.request_started_ns = Some(at);
    if sent == started {
        connection.last_sent_ns = Some(at);
    }
    if connection.idle_before_ns.is_some() {
        connection.idle_before_ns = Some(at - before);
    }
    gap(connection);
}

/// The last answer's receives were missed, or its last one.
fn receive_missed(connection: &mut Connection, tick_ns: u64, all: bool) {
    let (Some(first), Some(last)) = (connection.first_byte_ns, connection.last_received_ns) else {
        return;
    };
    let before = connection.last_sent_ns.unwrap_or(connection.opened_ns);
    let arrived = connection.last_arrival_ns.unwrap_or(last);
    let at = remembered(arrived, tick_ns, before);
    connection.last_received_ns = Some(at);
    connection.first_byte_ns = Some(if all { at } else { first.min(at) });
    gap(connection);
}

fn gap(connection: &mut Connection) {
    connection.missed_calls += 1;
    connection.filled_in = true;
}

/// Both the answer before and the last request were missed, and so count with the exchange
/// before: the next answer's receive finds them, or, without one, the end, unless the
/// kernel's times tell the two apart.
fn two_in_one(connection: &mut Connection, tick_ns: u64) {
    let (Some(started), Some(idle)) = (connection.request_started_ns, connection.idle_before_ns)
    else {
        return;
    };
    if connection.exchanges < 2 || connection.exchanges_at_end < connection.exchanges {
        return;
    }
    let answered = started - idle;
    if connection.first_byte_ns.is_none() {
        if idle > tick_ns {
            return;
        }
        connection.first_byte_ns = Some(answered);
        connection.last_received_ns = connection.last_received_ns.max(Some(answered));
    }
    connection.exchanges -= 1;
    connection.exchanges_at_end = connection.exchanges_at_end.saturating_sub(1);
    connection.response_bytes += 150;
    connection.request_started_ns = Some(remembered(answered, tick_ns, connection.opened_ns));
    connection.request_bytes *= 2;
    connection.idle_before_ns = (connection.exchanges > 1).then_some(idle);
    gap(connection);
}

/// Exchanges long before the last ones, in a gap each.
fn earlier_missed(connection: &mut Connection, draws: &mut Draws) {
    let spare = connection.exchanges_at_end.min(connection.exchanges);
    if spare < 4 || connection.handshake_ns.is_some() {
        return;
    }
    let lost = 1 + u32::try_from(draws.next() % u64::from(spare - 3)).unwrap();
    connection.exchanges -= lost;
    connection.exchanges_at_end -= lost;
    connection.missed_calls += lost;
}

/// What the end of a connection met: calls that move no bytes.
fn end_missed(connection: &mut Connection, draws: &mut Draws) {
    let peer_ended = connection.fin_received_ns.is_some() || connection.rst_received_ns.is_some();
    if !peer_ended && connection.socket_error.is_none() {
        return;
    }
    // That the end was read is noticed when nginx closes, but where the kernel encrypts.
    if connection.eof_read_ns.is_some() && draws.one_in(2) {
        connection.eof_read_ns = if draws.one_in(4) {
            None
        } else {
            gap(connection);
            connection.closed_ns.map(|ns| ns + 200)
        };
    }
    if draws.one_in(2) {
        connection.failed_call_ns = None;
        connection.failed_call = None;
        connection.failed_call_errno = None;
    }
    if draws.one_in(2) {
        connection.idle_end = None;
        connection.idle_end_seen_ns = None;
    }
}

fn some_missed(connection: &mut Connection, draws: &mut Draws, tick_ns: u64) {
    if connection.end == ConnectionEnd::Open || draws.one_in(3) {
        return;
    }
    if moved(connection) {
        if draws.one_in(4) {
            earlier_missed(connection, draws);
        }
        match draws.next() % 6 {
            0 => send_missed(connection, tick_ns),
            1 => receive_missed(connection, tick_ns, true),
            2 => receive_missed(connection, tick_ns, false),
            3 => {
                send_missed(connection, tick_ns);
                receive_missed(connection, tick_ns, true);
            }
            4 => two_in_one(connection, tick_ns),
            _ => {}
        }
    }
    end_missed(connection, draws);
}

/// The worker's step was missed, and a later one, for another client, taken for it.
fn step_missed(continuation: &mut Continuation) {
    continuation.next_ns += 300_000;
    match continuation.next {
        Next::OtherSend => {
            continuation.next = Next::Connect;
            continuation.next_cookie = Some(u64::MAX);
        }
        Next::Connect | Next::Reuse => {
            continuation.next = Next::OtherSend;
            continuation.next_cookie = None;
        }
    }
}

/// The same run, with calls missed all the time.
fn with_missed_calls(records: &[Record], seed: u64) -> Vec<Record> {
    let mut draws = Draws(seed);
    let tick_ns = TICKS_NS[usize::try_from(draws.next() % 3).unwrap()];
    let mut looked_ns = 0;
    let mut all = Vec::with_capacity(records.len());
    for record in records {
        let mut record = record.clone();
        match &mut record {
            Record::Capture(capture) => {
                capture.gaps_noticed = true;
                looked_ns = capture.start_ns;
            }
            Record::Connection(connection) => some_missed(connection, &mut draws, tick_ns),
            // What comes first after a failure is never a connect that was missed.
            Record::Continuation(step) if step.next != Next::Connect && draws.one_in(2) => {
                step_missed(step);
            }
            _ => {}
        }
        let now_ns = match &record {
            Record::Anchor(anchor) => Some(anchor.monotonic_ns),
            Record::End(end) => Some(end.ns + S),
            _ => None,
        };
        // Counters are read right after the clocks.
        let ended = matches!(record, Record::End(_));
        let losses = now_ns.into_iter().flat_map(|ns| {
            ["whoclosed_send", "whoclosed_recv"].map(|program| {
                Record::Loss(Loss {
                    ns,
                    since_ns: Some(looked_ns),
                    what: format!("missed_runs:{program}"),
                    count: 5,
                })
            })
        });
        if ended {
            all.extend(losses);
            all.push(record);
        } else {
            all.push(record);
            all.extend(losses);
        }
        looked_ns = now_ns.unwrap_or(looked_ns);
    }
    all
}

fn seeds() -> u64 {
    let asked = std::env::var("WHOCLOSED_SEEDS").ok();
    asked.map_or(SEEDS, |number| number.parse().unwrap())
}

fn by_line(report: &Report) -> BTreeMap<(String, u64), &Incident> {
    let incidents = report.incidents.iter();
    incidents
        .map(|one| ((one.line.file.clone(), one.line.offset), one))
        .collect()
}

fn local(incident: &Incident) -> Option<std::net::SocketAddr> {
    incident.connection.as_ref().map(|found| found.local)
}

/// What an incident says that it may not say, beside the one of the whole record.
fn faults(whole: &Incident, found: &Incident) -> Vec<String> {
    let mut faults = Vec::new();
    if (&found.side, &found.means) != (&whole.side, &whole.means) {
        faults.push(format!(
            "{} {} instead of {} {}",
            found.side, found.means, whole.side, whole.means
        ));
    }
    if local(found) != local(whole) {
        faults.push(format!("{:?} instead of {:?}", local(found), local(whole)));
    }
    for (name, found, whole) in [
        ("retried", found.retried, whole.retried),
        ("served", found.served, whole.served),
    ] {
        if found.is_some() && found != whole {
            faults.push(format!("{name}: {found:?} instead of {whole:?}"));
        }
    }
    if let (Some(found), Some(whole)) = (&found.connection, &whole.connection) {
        if found.requests.is_some() && found.requests != whole.requests {
            faults.push(format!("{:?} requests", found.requests));
        }
        if found.requests_at_least > whole.requests {
            faults.push(format!("at least {:?} requests", found.requests_at_least));
        }
        if found.reused.is_some() && found.reused != whole.reused {
            faults.push(format!("reused: {:?}", found.reused));
        }
    }
    faults
}

#[test]
fn missed_calls_make_no_verdict_wrong_and_certain_and_change_no_side_or_connection() {
    let mut wrong = Vec::new();
    let (mut incidents, mut certain) = (0, 0);
    for scenario in ALL {
        let name = scenario.name;
        let records = recorded(name);
        let whole = judged(records.clone());
        let whole = by_line(&whole);
        let mut truth = Fixture::read(&fixture::folder().join(name)).unwrap();
        truth.recorded.runs_may_be_missed = true;
        for seed in 0..seeds() {
            let found = judged(with_missed_calls(&records, seed));
            let failures = truth.score(&found).failures;
            wrong.extend(failures.iter().map(|said| format!("{name} {seed}: {said}")));
            for (line, found) in by_line(&found) {
                let Some(whole) = whole.get(&line) else {
                    wrong.push(format!("{name} {seed}: an incident more at {line:?}"));
                    continue;
                };
                let faults = faults(whole, found);
                let faults = faults
                    .iter()
                    .map(|fault| format!("{name} {seed}: {} ({}): {fault}", line.1, found.cause));
                wrong.extend(faults);
                incidents += 1;
                certain += u64::from(found.confidence == "certain");
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    // What was not concerned stays as sure as it was.
    assert!(certain * 4 > incidents, "{certain} of {incidents}");
}
