//! Upstream addresses of IPv6 that are not what they seem: one that means an IPv4 address,
//! and one that means nothing without an interface.

use std::net::{Ipv6Addr, SocketAddr};

use lab::backend::{Backend, Habits, IPV4};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::load::{Client, Request};
use lab::nginx::{Configuration, Upstream};
use serde_json::json;

use crate::bench::{Bench, alone, records};
use crate::causes::{only, says};

#[test]
fn an_ipv4_address_in_ipv6_is_the_backend_at_that_address() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let port = backend.address().port();
    let upstream = Upstream::new("app", format!("[::ffff:127.0.0.1]:{port}")).keepalive(4);
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    assert_eq!(client.ask(&Request::get("/app/x")).unwrap().status, 200);
    let close = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    let request = Request::post("/app/y", 8).asking(close);
    assert_eq!(client.ask(&request).unwrap().status, 502);
    let report = bench.report();
    let incident = only(&report);
    says(
        incident,
        [
            "backend",
            "fin",
            "wait",
            "closed-without-answer",
            "sure",
            "exact",
        ],
    );
    let [record] = backend.connections().try_into().unwrap();
    let connection = incident.connection.as_ref().unwrap();
    assert_eq!(connection.local, record.remote);
    assert_eq!(connection.remote, record.local);
    assert_eq!(connection.requests, Some(2));
    // One backend, whatever its address is called.
    let [upstream] = report.upstreams.as_slice() else {
        panic!("{:#?}", report.upstreams);
    };
    assert_eq!(upstream.address, backend.address().to_string());
    let [peer] = records(&bench.trace(), "peer_close").try_into().unwrap();
    assert_eq!(peer["pid"], json!(std::process::id()));
}

#[test]
fn a_link_local_address_without_an_interface_is_said_to_lead_nowhere() {
    let _alone = alone();
    let address = SocketAddr::from((Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xdead), 80));
    let upstream = Upstream::new("app", address);
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    assert_eq!(client.ask(&Request::get("/app/x")).unwrap().status, 502);
    let report = bench.report();
    let incident = only(&report);
    assert_eq!(incident.upstream, address.to_string());
    assert_eq!(
        (incident.cause.as_str(), incident.confidence.as_str()),
        ("unreachable", "certain"),
        "{incident:#?}"
    );
    let said = incident.evidence.join(". ");
    assert!(said.contains("without an interface"), "{said}");
}
