//! Clients that leave in the middle of a body which nginx hands on as it comes: nginx has
//! other words for that than for a client that leaves while it waits.

use lab::backend::{Backend, Connection, Habits, IPV4};
use lab::behaviour::Means;
use lab::clock::PATIENCE;
use lab::load::{Client, Request};
use lab::nginx::{Configuration, Upstream};

use crate::bench::{Bench, alone};
use crate::causes::{is_on, only, says};

const BODY: usize = 100_000;
const SENT: usize = 30_000;

#[test]
fn a_client_that_leaves_in_its_upload_is_told() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address()).with("proxy_request_buffering off;");
    let configuration = Configuration {
        log_level: Some("info"),
        ..Configuration::new(vec![upstream])
    };
    for (means, message) in [
        (Means::Fin, "client prematurely closed connection"),
        (Means::Rst, "recv() failed"),
    ] {
        let mut bench = Bench::start(&configuration, &[]);
        let earlier = backend.connections().len();
        let mut client = Client::connect(bench.nginx.address()).unwrap();
        client
            .send_part(&Request::post("/app/x", BODY), SENT)
            .unwrap();
        let read = |records: &[Connection]| {
            let requests = records.get(earlier).map(|record| &record.requests);
            requests
                .and_then(|requests| requests.first())
                .is_some_and(|request| request.body_bytes >= SENT)
        };
        backend.wait_until("the half", PATIENCE, read).unwrap();
        client.abort(means).unwrap();
        let records = backend
            .wait_until("nginx to go", PATIENCE, |records| {
                !records[earlier].is_open()
            })
            .unwrap();
        let report = bench.report();
        let incident = only(&report);
        assert_eq!(incident.line.message, message);
        says(
            incident,
            [
                "client",
                "close",
                "send",
                "client-abort",
                "certain",
                "exact",
            ],
        );
        is_on(incident, records.last().unwrap());
    }
}
