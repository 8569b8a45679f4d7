//! Each incident is judged by the settings that its worker ran with.

use super::*;
use crate::trace::record::{Instance, Process};

const OLD: u32 = PID;
const NEW: u32 = PID + 10;

/// The instance with one place and its `proxy_read_timeout`.
fn with_timeout(timeout: &str, workers: &[u32]) -> Nginx {
    let mut nginx = nginx();
    nginx.workers = workers.iter().map(|&pid| worker(pid)).collect();
    let configuration = nginx.configuration.as_mut().unwrap();
    configuration.locations.push(ProxyLocation {
        server_name: "app".to_owned(),
        location: "/".to_owned(),
        pass: "http://app".to_owned(),
        module: "proxy".to_owned(),
        settings: [("proxy_read_timeout".to_owned(), timeout.to_owned())].into(),
    });
    nginx
}

fn worker(pid: u32) -> Worker {
    Worker {
        pid,
        inner_pid: pid,
    }
}

fn process(ms: u64, pid: u32, started: bool) -> Record {
    Record::Process(Process {
        ns: at(ms),
        master_pid: MASTER,
        worker: worker(pid),
        started,
    })
}

fn loaded(ms: u64, since_ms: Option<u64>, nginx: Nginx) -> Record {
    Record::Instance(Box::new(Instance {
        ns: at(ms),
        since_ns: since_ms.map(at),
        nginx,
    }))
}

/// A timeout of this worker.
fn timed_out(cookie: u64, ms: u64, pid: u32) -> [Record; 3] {
    let mut line = said(ms, "upstream timed out", 110, HEADER);
    line.pid = pid;
    line.number = cookie;
    let mut connection = connection(cookie, ms - 900).request(ms - 900).closed(ms);
    (connection.pid, connection.tid) = (pid, pid);
    let mut logged = line.logged();
    if let Record::Logged(logged) = &mut logged {
        logged.connection = cookie;
    }
    [logged, ended(connection), line.line()]
}

/// The timer named in each incident, in order.
fn timers(records: Vec<Record>) -> Vec<String> {
    let incidents = judge(records).finish(Vec::new()).report.incidents;
    let named = |incident: Incident| {
        assert_eq!(incident.cause, Cause::ReadTimeout, "{incident:?}");
        let (_, timer) = incident.evidence[0].split_once('(').unwrap();
        timer.trim_end_matches(')').to_owned()
    };
    incidents.into_iter().map(named).collect()
}

#[test]
fn an_old_worker_keeps_the_settings_it_began_with() {
    let mut records = beginning_with(with_timeout("1s", &[OLD]));
    records.extend(timed_out(1, 2000, OLD));
    // The new worker's failure comes before anybody has noticed the reload.
    records.extend(timed_out(2, 4500, NEW));
    records.push(process(5000, NEW, true));
    records.push(loaded(5000, None, with_timeout("2s", &[OLD, NEW])));
    records.extend(timed_out(3, 6000, OLD));
    records.extend(timed_out(4, 7000, NEW));
    records.push(process(8000, OLD, false));
    let timer = |value: &str| format!("proxy_read_timeout {value}");
    assert_eq!(
        timers(records),
        [timer("1s"), timer("2s"), timer("1s"), timer("2s")]
    );
}

#[test]
fn what_was_noticed_late_holds_for_the_workers_noticed_before() {
    let mut records = beginning_with(with_timeout("1s", &[OLD]));
    records.push(process(5000, NEW, true));
    records.push(loaded(7000, Some(5000), with_timeout("2s", &[OLD, NEW])));
    records.extend(timed_out(1, 8000, OLD));
    records.extend(timed_out(2, 9000, NEW));
    assert_eq!(
        timers(records),
        ["proxy_read_timeout 1s", "proxy_read_timeout 2s"]
    );
}

#[test]
fn a_worker_started_in_place_of_another_has_what_its_master_had_loaded() {
    let mut records = beginning_with(with_timeout("1s", &[OLD]));
    records.push(process(3000, OLD, false));
    records.push(process(3000, NEW, true));
    let mut changed = with_timeout("1s", &[NEW]);
    changed.configuration_problem = Some("the files were changed".to_owned());
    records.push(loaded(4000, None, changed));
    records.extend(timed_out(1, 6000, NEW));
    assert_eq!(timers(records.clone()), ["proxy_read_timeout 1s"]);
    let notes = judge(records).finish(Vec::new()).report.notes;
    assert!(notes.iter().any(|note| note.contains("files were changed")));
    assert!(!notes.iter().any(|note| note.contains("loaded another")));
}

#[test]
fn files_changed_before_the_capture_are_not_what_is_in_force() {
    let mut stale = with_timeout("1s", &[OLD]);
    stale.changed_before_start = true;
    let mut records = beginning_with(stale);
    records.extend(timed_out(1, 2000, OLD));
    records.push(process(5000, NEW, true));
    records.push(loaded(5000, None, with_timeout("1s", &[NEW])));
    records.extend(timed_out(2, 8000, NEW));
    assert_eq!(
        timers(records),
        [
            "proxy_read_timeout, whose value is not known",
            "proxy_read_timeout 1s"
        ]
    );
}

#[test]
fn places_that_differ_are_all_named() {
    let mut nginx = with_timeout("1s", &[OLD]);
    let places = &mut nginx.configuration.as_mut().unwrap().locations;
    let mut other = places[0].clone();
    other.settings.clear();
    places.push(other);
    let mut records = beginning_with(nginx);
    records.extend(timed_out(1, 2000, OLD));
    assert_eq!(timers(records), ["proxy_read_timeout 60s or 1s"]);
}
