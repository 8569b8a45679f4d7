//! Records that are lost: a ring buffer too small for what happens while nobody reads it.
//! What was lost is counted, whose verdicts it touches are less sure, and no others.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;

use lab::backend::{Backend, Habits, IPV4};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, now_ns, wait_for};
use lab::load::{Client, Request};
use lab::nginx::{Configuration, Upstream};
use lab::processes::Stopped;
use lab::verdicts::Incident;
use serde_json::Value;

use crate::bench::{Bench, alone, report};

/// Holds the records of some hundred failures.
const RING: &str = "65536";
/// More than that.
pub(crate) const FAILURES: usize = 400;

/// The records of a trace that is still being written.
pub(crate) fn so_far(trace: &Path) -> Vec<Value> {
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(trace) {
        // Its last frame may be under way.
        let _ = zstd::Decoder::new(file).and_then(|mut frames| frames.read_to_end(&mut text));
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines = text.lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[track_caller]
fn wait_for_records(bench: &Bench, what: &str, enough: impl Fn(&[Value]) -> bool) {
    let trace = bench.trace();
    wait_for(what, PATIENCE, || Ok(enough(&so_far(&trace)).then_some(()))).unwrap();
}

pub(crate) fn of_kind<'a>(records: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    records.iter().filter(move |record| record["kind"] == kind)
}

/// When the capture, once a second, last looked for losses.
pub(crate) fn looked_ns(records: &[Value]) -> Option<u64> {
    let anchors = of_kind(records, "anchor");
    anchors.filter_map(|one| one["monotonic_ns"].as_u64()).max()
}

#[track_caller]
pub(crate) fn fails(client: &mut Client, target: String) {
    let behaviour = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    let request = Request::post(target, 3).asking(behaviour);
    assert_eq!(client.ask(&request).unwrap().status, 502);
}

/// nginx's end of the connection that carried each request, as the backend has it.
fn carriers(backend: &Backend) -> BTreeMap<String, SocketAddr> {
    let connections = backend.connections();
    let carried = connections.iter().flat_map(|connection| {
        let requests = connection.requests.iter();
        requests.map(|request| (request.target.clone(), connection.remote))
    });
    carried.collect()
}

/// A new client of each worker, in the order of their pids. Lines of one client and one
/// worker are alike: which sighting is whose is not known where some are missing.
#[track_caller]
fn one_of_each_worker(bench: &Bench, name: &str) -> [Client; 2] {
    let mut found: BTreeMap<u32, Client> = BTreeMap::new();
    for number in 0..200 {
        let mut client = Client::connect(bench.nginx.address()).unwrap();
        let target = format!("/app/{name}-warm-{number}");
        let request = Request::post(&target, 100);
        assert_eq!(client.ask(&request).unwrap().status, 200);
        let worker = wait_for("the request's line", PATIENCE, || {
            let log = std::fs::read_to_string(bench.nginx.access_log())?;
            let line = log
                .lines()
                .find(|line| line.contains(&format!("{target} ")));
            Ok(line.and_then(|line| line.split(' ').nth(1)?.parse().ok()))
        });
        found.entry(worker.unwrap()).or_insert(client);
        if found.len() == 2 {
            let clients: Vec<Client> = found.into_values().collect();
            return clients.try_into().ok().unwrap();
        }
    }
    panic!("one worker takes all clients");
}

#[test]
fn an_overflow_is_counted_and_makes_its_own_time_less_sure_and_no_other() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address());
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &["--ring-bytes", RING]);
    let mut clients = one_of_each_worker(&bench, "before");
    for (number, client) in clients.iter_mut().enumerate() {
        fails(client, format!("/app/before-{number}"));
    }
    let [mut busy, _idle] = one_of_each_worker(&bench, "lost");
    let mut clients = one_of_each_worker(&bench, "after");
    let before_ns = now_ns();
    wait_for_records(&bench, "looks after what came before", |records| {
        // What is lost a second later makes it less sure.
        looked_ns(records) > Some(before_ns + 1_300_000_000)
    });

    // Nobody reads what the kernel has to say.
    let stopped = Stopped::stop(&[bench.capture().pid()]).unwrap();
    for number in 0..FAILURES {
        fails(&mut busy, format!("/app/lost-{number}"));
    }
    drop(stopped);
    wait_for_records(&bench, "the loss, and the look after it", |records| {
        let noticed = of_kind(records, "loss")
            .filter_map(|loss| loss["ns"].as_u64())
            .max();
        // What is lost makes what comes a tenth of a second later less sure.
        noticed.is_some_and(|noticed| looked_ns(records) > Some(noticed + 200_000_000))
    });
    for (number, client) in clients.iter_mut().enumerate() {
        fails(client, format!("/app/after-{number}"));
    }
    bench.finish();

    let report = report(&bench.trace());
    for what in ["connection_records", "logged_records"] {
        assert!(
            report.capture.lost.get(what) > Some(&0),
            "{:?}",
            report.capture.lost
        );
    }
    assert_eq!(report.incidents.len(), FAILURES + 4);
    let carriers = carriers(&backend);
    let is_right = |incident: &Incident| {
        let found = incident.connection.as_ref().map(|found| found.local);
        found == carriers.get(incident.target().unwrap()).copied()
    };
    let mut unsure = 0;
    for incident in &report.incidents {
        let said = incident.evidence.join(". ");
        if !incident.target().unwrap().contains("/lost-") {
            assert_eq!(incident.matched, "exact", "{incident:#?}");
            assert_eq!(incident.confidence, "certain", "{incident:#?}");
            assert!(
                is_right(incident) && !said.contains("lost"),
                "{incident:#?}"
            );
            continue;
        }
        assert_ne!(incident.confidence, "certain", "{incident:#?}");
        assert!(said.contains("lost at about that time"), "{incident:#?}");
        let sure = ["exact", "ordered"].contains(&incident.matched.as_str());
        assert!(!sure || is_right(incident), "{incident:#?}");
        unsure += usize::from(!sure);
    }
    // The ring holds less than a third of them.
    assert!(unsure > FAILURES / 3, "{unsure}");
}
