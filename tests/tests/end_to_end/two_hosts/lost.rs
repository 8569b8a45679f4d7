//! A capture on the backend's host that loses records: the connections whose other side is
//! missing for it are said to lack it, and no others.

use std::collections::HashSet;

use lab::backend::{Backend, Habits};
use lab::clock::{PATIENCE, now_ns, wait_for};
use lab::load::Client;
use lab::netns::Namespace;
use lab::nginx::{Configuration, Upstream};
use lab::processes::Stopped;
use lab::tool::Capture;
use serde_json::Value;

use super::{elsewhere, report};
use crate::bench::{Bench, alone, records};
use crate::lost::{FAILURES, fails, looked_ns, of_kind, so_far};

/// Holds not half of what so many failures leave.
const RING: &str = "32768";
const SAID: &str = "the capture on app-1 lost something at about that time";

#[test]
fn what_the_backends_capture_lost_is_said_of_the_connections_that_lack_their_other_side() {
    let _alone = alone();
    let namespace = Namespace::create().unwrap();
    let backend = namespace
        .enter(|| Backend::start(namespace.ipv4(), Habits::default()))
        .unwrap();
    let configuration = Configuration::new(vec![Upstream::new("app", backend.address())]);
    let mut bench = Bench::start(&configuration, &["--no-local-backends"]);
    let there = bench.folder().path().join("backend.trace");
    let port = backend.address().port().to_string();
    let capture = Capture::of_backends(&["--port", &port, "--ring-bytes", RING], &there).unwrap();
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    let wait = |what: &str, enough: &dyn Fn(&[Value]) -> bool| {
        wait_for(what, PATIENCE, || Ok(enough(&so_far(&there)).then_some(()))).unwrap();
    };

    for number in 0..3 {
        fails(&mut client, format!("/app/before-{number}"));
    }
    let before_ns = now_ns();
    // What is lost a second later may have been their sides.
    wait("looks after what came before", &|records| {
        looked_ns(records) > Some(before_ns + 1_300_000_000)
    });
    let stopped = Stopped::stop(&[capture.pid()]).unwrap();
    for number in 0..FAILURES {
        fails(&mut client, format!("/app/lost-{number}"));
    }
    drop(stopped);
    let noticed_ns = |records: &[Value]| {
        let losses = of_kind(records, "loss").filter(|loss| loss["what"] == "accepted_records");
        losses.filter_map(|loss| loss["ns"].as_u64()).max()
    };
    wait("the loss, and the look after it", &|records| {
        noticed_ns(records).is_some_and(|ns| looked_ns(records) > Some(ns + 200_000_000))
    });
    for number in 0..3 {
        fails(&mut client, format!("/app/after-{number}"));
    }
    capture.finish().unwrap().succeeded().unwrap();
    let here = bench.trace();
    bench.report();

    let recorded: HashSet<Value> = (records(&there, "accepted").into_iter())
        .map(|accepted| accepted["remote"].clone())
        .collect();
    let together = report(&[&here, &elsewhere(&there)]);
    let incidents = together["incidents"].as_array().unwrap();
    assert_eq!(incidents.len(), FAILURES + 6);
    let mut lacking = 0;
    for incident in incidents {
        let evidence = incident["evidence"].as_array().unwrap();
        let said = evidence
            .iter()
            .any(|text| text.as_str().unwrap().contains(SAID));
        let is_recorded = recorded.contains(&incident["connection"]["local"]);
        assert_eq!(said, !is_recorded, "{incident:#}");
        lacking += usize::from(said);
    }
    assert!(lacking > FAILURES / 2, "{lacking}");
}
