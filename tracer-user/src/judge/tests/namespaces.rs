//! The same address in two network namespaces.

use super::*;

/// The instances' namespaces; the second one's worker is `PID + 1`.
const NAMESPACES: [u32; 2] = [1, 2];

fn beginning_of_two() -> Vec<Record> {
    let mut records = beginning();
    let Record::Capture(capture) = &mut records[0] else {
        panic!("no capture")
    };
    let mut first = capture.nginx.remove(0);
    let worker = first.workers.remove(1);
    let mut second = first.clone();
    first.netns = Some(NAMESPACES[0]);
    second.netns = Some(NAMESPACES[1]);
    second.master_pid = MASTER + 50;
    second.workers = vec![worker];
    if let Some(configuration) = &mut second.configuration {
        configuration.upstreams[0].name = "other".to_owned();
    }
    capture.nginx = vec![first, second];
    records
}

/// Idle closes after this time, and a request that met one of them.
fn stale(netns: u32, pid: u32, idle_ms: u64) -> Vec<Record> {
    let cookies = u64::from(netns) * 1000;
    let mut records = Vec::new();
    let idle = |cookie, ms: u64| {
        let mut idle = connection(cookie, ms)
            .request(ms)
            .answer(ms + 10)
            .fin(ms + 10 + idle_ms, 0);
        (idle.netns, idle.pid, idle.tid) = (netns, pid, pid);
        idle
    };
    for number in 0..20 {
        let ms = number * 1000;
        let end = ms + 10 + idle_ms;
        let closed = idle(cookies + number, ms).peek(end, IdleEnd::Eof);
        records.push(ended(closed.closed(end)));
    }
    let end = 30_000 + 10 + idle_ms;
    let failed = idle(cookies + 100, 30_000).request(end + 1).eof(end + 1);
    let mut line = said(end + 1, PREMATURE, 0, HEADER);
    line.pid = pid;
    records.extend([line.logged(), ended(failed.closed(end + 1)), line.line()]);
    if pid != PID
        && let Some(Record::Line(line)) = records.last_mut()
    {
        line.master_pid = MASTER + 50;
    }
    records
}

#[test]
fn backends_of_one_address_in_two_networks_are_told_apart() {
    let mut records = beginning_of_two();
    records.extend(stale(NAMESPACES[0], PID, 500));
    records.extend(stale(NAMESPACES[1], PID + 1, 200));
    let report = judged(records).report;
    assert_eq!(report.incidents.len(), 2);
    for (index, (master, idle_ms)) in [(MASTER, 500.0), (MASTER + 50, 200.0)]
        .into_iter()
        .enumerate()
    {
        let name = format!("{PEER} of nginx {master}");
        let upstream = &report.upstreams[index];
        assert_eq!(upstream.address, name);
        assert_eq!(upstream.name.as_deref(), Some(["app", "other"][index]));
        assert_eq!(upstream.incidents, 1);
        let inferred = upstream.idle_timeout.unwrap();
        assert!((inferred.ms - idle_ms).abs() < 5.0, "{inferred:?}");
        let incident = report
            .incidents
            .iter()
            .find(|incident| incident.upstream == name)
            .unwrap();
        assert_eq!(incident.matched, Match::Exact);
        assert_verdict(incident, Cause::StaleKeepalive, Confidence::Certain);
    }
}

#[test]
fn one_network_needs_no_name() {
    let mut records = beginning_of_two();
    records.extend(stale(NAMESPACES[0], PID, 500));
    let report = judged(records).report;
    assert_eq!(report.upstreams[0].address, PEER);
    assert_eq!(report.incidents[0].upstream, PEER);
}
