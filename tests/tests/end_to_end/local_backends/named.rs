//! Each way in which a backend on this host may end is named in the report, with the
//! process and what it left: on loopback, and in another network namespace.

use std::net::SocketAddr;

use lab::backend::{IPV4, IPV6};
use lab::memory_cgroup::MemoryCgroup;
use lab::netns::Namespace;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::victim::Scene;
use crate::bench::alone;

/// The most that nginx takes by itself (`client_max_body_size`).
const MEGABYTE: usize = 1 << 20;

/// Where a backend may be.
fn places(namespace: &Namespace) -> [(SocketAddr, Option<&Namespace>); 4] {
    [
        (IPV4, None),
        (IPV6, None),
        (namespace.ipv4(), Some(namespace)),
        (namespace.ipv6(), Some(namespace)),
    ]
}

/// What a backend's end has to give: in the record, and in the report.
struct Named {
    mode: &'static str,
    exit: Value,
    cause: &'static str,
    words: &'static str,
    unread: usize,
}

#[track_caller]
fn is_named(scene: &Scene<'_>, expected: &Named) {
    let seen = scene.one_request(expected.mode);
    let place = (expected.mode, scene.listen);
    seen.is_its_own(expected.exit.clone());
    assert_eq!(seen.peer["unread_bytes"], expected.unread, "{place:?}");
    let incident = &seen.incident;
    assert_eq!(incident.cause, expected.cause, "{place:?}: {incident:#?}");
    assert_eq!(incident.side, "backend", "{place:?}");
    assert_eq!(incident.matched, "exact", "{place:?}");
    let said = incident.evidence.join(". ");
    let process = format!("process {} (victim", seen.pid);
    for part in [&process, expected.words] {
        assert!(said.contains(part), "{place:?}: {part:?} is not in: {said}");
    }
}

#[test]
fn a_killed_backend_is_named_wherever_it_is() {
    let _alone = alone();
    let namespace = Namespace::create().unwrap();
    for (address, inside) in places(&namespace) {
        let scene = Scene {
            listen: Some(address),
            inside,
            signal: Some(Signal::KILL),
            ..Scene::default()
        };
        let expected = Named {
            mode: "wait",
            exit: json!({"signal": 9}),
            cause: "backend-killed",
            words: "was killed by SIGKILL (9)",
            unread: 0,
        };
        is_named(&scene, &expected);
    }
}

#[test]
fn a_backend_that_aborts_is_named_wherever_it_is() {
    let _alone = alone();
    let namespace = Namespace::create().unwrap();
    for (address, inside) in places(&namespace) {
        let scene = Scene {
            listen: Some(address),
            inside,
            ..Scene::default()
        };
        let expected = Named {
            mode: "abort",
            exit: json!({"signal": 6}),
            cause: "backend-crashed",
            words: "crashed: SIGABRT (6) ended it",
            unread: 0,
        };
        is_named(&scene, &expected);
    }
}

#[test]
fn a_backend_without_memory_left_is_named_wherever_it_is() {
    let _alone = alone();
    let namespace = Namespace::create().unwrap();
    for (address, inside) in places(&namespace) {
        let cgroup = MemoryCgroup::create(48 << 20).unwrap();
        let scene = Scene {
            listen: Some(address),
            inside,
            cgroup: Some(&cgroup),
            ends: true,
            ..Scene::default()
        };
        let expected = Named {
            mode: "out-of-memory",
            exit: json!("out_of_memory"),
            cause: "backend-oom",
            words: "was killed by the kernel, which had no memory left for it",
            unread: 0,
        };
        is_named(&scene, &expected);
    }
}

#[test]
fn a_megabyte_left_unread_is_named_wherever_the_backend_is() {
    let _alone = alone();
    let namespace = Namespace::create().unwrap();
    for (address, inside) in places(&namespace) {
        let scene = Scene {
            listen: Some(address),
            inside,
            body: Some(MEGABYTE),
            ..Scene::default()
        };
        let expected = Named {
            mode: "unread",
            exit: Value::Null,
            cause: "closed-without-answer",
            words: "leaving 1,048,576 bytes of nginx's unread",
            unread: MEGABYTE,
        };
        is_named(&scene, &expected);
    }
}
