//! Backends on this host that do not take their connections: the queue of the listening
//! socket is full, and the kernel drops what comes.

use lab::backend::{Backend, Habits, IPV4, Overfull};
use lab::load::{Client, Request};
use lab::nginx::{Configuration, Upstream};

use crate::bench::{Bench, alone, records};

#[test]
fn a_full_queue_is_recorded_with_its_limit_and_an_empty_one_is_not() {
    let _alone = alone();
    let full = Overfull::start().unwrap();
    let well = Backend::start(IPV4, Habits::default()).unwrap();
    let upstreams = vec![
        Upstream::new("full", full.address()).with("proxy_connect_timeout 1s;"),
        Upstream::new("well", well.address()),
    ];
    let mut bench = Bench::start(&Configuration::new(upstreams), &[]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    assert_eq!(client.ask(&Request::get("/well/x")).unwrap().status, 200);
    assert_eq!(client.ask(&Request::get("/full/x")).unwrap().status, 504);
    bench.finish();
    let port = full.address().port();
    let seen = records(&bench.trace(), "listener");
    assert!(!seen.is_empty());
    let connection = &records(&bench.trace(), "connection")[0];
    let mut own = 0;
    for listener in &seen {
        assert_ne!(listener["port"], well.address().port());
        let (queued, limit) = (listener["queued"].as_u64(), listener["limit"].as_u64());
        assert!(queued > limit, "{listener}");
        if listener["port"] == port {
            own += 1;
            assert_eq!(listener["address"], "127.0.0.1");
            assert_eq!(listener["limit"], 0);
            assert_eq!(listener["netns"], connection["netns"]);
        }
    }
    assert!(own > 0, "{seen:#?}");
}
