//! Where nginx's configuration and what happened disagree: each finding on a real nginx,
//! in text and JSON, and none where all is well. The backend's record says what happened.

use std::time::Duration;

use lab::backend::{Backend, Habits, IPV4, Idle};
use lab::behaviour::{Behaviour, Framing, Kind, Means};
use lab::load::{self, Request};
use lab::nginx::{Configuration, Upstream};
use lab::tool;

use crate::bench::{Bench, alone};

/// Requests to each upstream: more than a finding needs.
const EACH: usize = 30;

/// One piece of advice as the JSON report has it.
#[derive(Debug)]
struct Advice {
    upstream: String,
    text: String,
    because: String,
    incidents: u64,
}

/// Ends the capture; its advice, which the text report has in the same words.
#[track_caller]
fn advice(bench: &mut Bench) -> Vec<Advice> {
    let text = bench.finish().text();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let trace = bench.trace();
    let json = tool::run(["report", trace.to_str().unwrap(), "--format", "json"]).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let all = json["advice"].as_array().unwrap().iter().map(|advice| {
        let word = |key: &str| advice[key].as_str().unwrap().to_owned();
        Advice {
            upstream: word("upstream"),
            text: word("text"),
            because: word("because"),
            incidents: advice["incidents"].as_u64().unwrap(),
        }
    });
    let all: Vec<Advice> = all.collect();
    for advice in &all {
        for words in [&advice.text, &advice.because] {
            let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains(&words), "{words:?} is not in {text}");
        }
    }
    all
}

/// The only advice on one backend.
#[track_caller]
fn on<'a>(all: &'a [Advice], upstream: &str) -> &'a Advice {
    let own: Vec<&Advice> = all
        .iter()
        .filter(|advice| advice.upstream == upstream)
        .collect();
    let [only] = own.as_slice() else {
        panic!("not one on {upstream}: {all:#?}");
    };
    only
}

#[track_caller]
fn says(advice: &Advice, text: &str, because: &[&str]) {
    assert!(advice.text.contains(text), "{text:?} is not in {advice:#?}");
    for part in because {
        assert!(
            advice.because.contains(part),
            "{part:?} is not in {advice:#?}"
        );
    }
}

fn backend() -> Backend {
    Backend::start(IPV4, Habits::default()).unwrap()
}

/// An upstream block with `keepalive 8`.
fn block(name: &str, backend: &Backend) -> String {
    let address = backend.address();
    format!("    upstream {name} {{ server {address}; keepalive 8; }}\n")
}

/// Requests that must be answered, one after another.
#[track_caller]
fn serve(bench: &Bench, target: &str) {
    let requests: Vec<Request> = (0..EACH)
        .map(|number| Request::get(format!("/{target}/{number}")))
        .collect();
    let outcomes = load::run(bench.nginx.address(), &requests, 1, true);
    assert!(outcomes.iter().all(load::Outcome::served), "{target}");
}

/// Connections of a backend on which requests came.
fn used(backend: &Backend) -> usize {
    let connections = backend.connections();
    connections
        .iter()
        .filter(|known| !known.requests.is_empty())
        .count()
}

#[test]
fn keepalive_without_effect_is_found_with_what_defeats_it() {
    let _alone = alone();
    // As a server answers that is asked to close, which the last is not.
    let closes = |_| {
        let habits = Habits {
            behaviour: Behaviour::of(Kind::AnswerClosing),
            ..Habits::default()
        };
        Backend::start(IPV4, habits).unwrap()
    };
    let [version, header, closing, upgrade] = std::array::from_fn(closes);
    let good = backend();
    let all = [
        ("version", &version, "proxy_http_version 1.0;"),
        ("header", &header, ""),
        ("closing", &closing, "proxy_set_header Connection close;"),
        ("upgrade", &upgrade, "proxy_set_header Connection $upgrade;"),
        ("good", &good, "proxy_set_header Connection '';"),
    ];
    let mut configuration = Configuration::new(Vec::new());
    configuration.workers = 1;
    configuration.http =
        "    map $http_upgrade $upgrade { '' close; default upgrade; }\n".to_owned();
    for (name, backend, directives) in all {
        configuration.http += &block(name, backend);
        configuration.more +=
            &format!("        location /{name}/ {{ {directives} proxy_pass http://{name}; }}\n");
    }
    let mut bench = Bench::start(&configuration, &[]);
    for (name, backend, _) in all {
        serve(&bench, name);
        let connections = if name == "good" { 1 } else { EACH };
        assert_eq!(used(backend), connections, "{name}");
    }
    let found = advice(&mut bench);
    assert_eq!(found.len(), all.len() - 1, "{found:#?}");
    let none = format!("has `keepalive 8`, but none of {EACH} requests went over");
    let http = "set `proxy_http_version 1.1` and `proxy_set_header Connection \"\"`";
    for (name, backend, why) in [
        ("version", &version, "speaks HTTP/1.0"),
        ("header", &header, "sends `Connection: close` (the default)"),
        ("closing", &closing, "sends `Connection: close`"),
        ("upgrade", &upgrade, "sends `Connection: $upgrade`"),
    ] {
        let told = on(&found, &backend.address().to_string());
        let place = format!("location /{name}/ of server lab.test {why}");
        says(told, http, &[&format!("`upstream {name}` {none}"), &place]);
        assert_eq!(told.incidents, 0);
        assert_eq!(told.because.contains("(the default)"), name == "header");
    }
}

#[test]
fn keepalive_without_fastcgi_keep_conn_is_found() {
    let _alone = alone();
    let (missing, off, good) = (
        backend().over_fastcgi(),
        backend().over_fastcgi(),
        backend().over_fastcgi(),
    );
    let all = [
        ("missing", &missing, ""),
        ("off", &off, "fastcgi_keep_conn off;"),
        ("good", &good, "fastcgi_keep_conn on;"),
    ];
    let mut configuration = Configuration::new(Vec::new());
    configuration.workers = 1;
    for (name, backend, directives) in all {
        configuration.http += &block(name, backend);
        configuration.more += &format!(
            "        location /{name}/ {{ {directives} fastcgi_pass {name}; \
             fastcgi_param REQUEST_METHOD $request_method; \
             fastcgi_param REQUEST_URI $request_uri; }}\n"
        );
    }
    let mut bench = Bench::start(&configuration, &[]);
    for (name, backend, _) in all {
        serve(&bench, name);
        let connections = if name == "good" { 1 } else { EACH };
        assert_eq!(used(backend), connections, "{name}");
    }
    let found = advice(&mut bench);
    assert_eq!(found.len(), 2, "{found:#?}");
    for (name, backend) in [("missing", &missing), ("off", &off)] {
        let told = on(&found, &backend.address().to_string());
        let place = format!("location /{name}/ of server lab.test does not set");
        says(
            told,
            "set `fastcgi_keep_conn on`",
            &[&place, "`keepalive 8`"],
        );
    }
}

#[test]
fn an_idle_timeout_below_nginxs_own_is_found_before_it_fails() {
    let _alone = alone();
    let idle = |seconds| {
        let habits = Habits {
            idle: Some(Idle {
                after: Duration::from_secs(seconds),
                means: Means::Fin,
            }),
            ..Habits::default()
        };
        Backend::start(IPV4, habits).unwrap()
    };
    // The second is closed by nginx, which asked for no more.
    let (short, good) = (idle(3), idle(30));
    let upstream =
        |name: &str, backend: &Backend| Upstream::new(name, backend.address()).keepalive(32);
    let mut configuration = Configuration::new(vec![upstream("short", &short)]);
    configuration.workers = 1;
    configuration.http = format!(
        "    upstream good {{ server {}; keepalive 32; keepalive_timeout 2s; }}\n",
        good.address()
    );
    configuration.more =
        "        location /good/ { proxy_pass http://good; proxy_set_header Connection ''; }\n"
            .to_owned();
    let mut bench = Bench::start(&configuration, &[]);
    let together = Behaviour::of(Kind::AnswerTogether { requests: 12 });
    for name in ["short", "good"] {
        let requests: Vec<Request> = (0..12)
            .map(|number| Request::get(format!("/{name}/{number}")).asking(together))
            .collect();
        let outcomes = load::run(bench.nginx.address(), &requests, 12, true);
        assert!(outcomes.iter().all(load::Outcome::served));
    }
    bench.wait_until_closed(short.address());
    bench.wait_until_closed(good.address());
    let found = advice(&mut bench);
    assert_eq!(found.len(), 1, "{found:#?}");
    let told = on(&found, &short.address().to_string());
    says(
        told,
        "keepalive_timeout 2",
        &["for 60s (the default)", "idle"],
    );
    assert_eq!(told.incidents, 0);
}

#[test]
fn next_upstream_that_leaves_out_what_happened_is_found() {
    let _alone = alone();
    let slow = || {
        let behaviour = Behaviour::ANSWER.after(Duration::from_secs(600));
        let habits = Habits {
            behaviour,
            ..Habits::default()
        };
        Backend::start(IPV4, habits).unwrap()
    };
    let closing = || {
        let behaviour = Behaviour::of(Kind::CloseInHeader(Means::Fin));
        let habits = Habits {
            behaviour,
            ..Habits::default()
        };
        Backend::start(IPV4, habits).unwrap()
    };
    let backends = [slow(), slow(), closing(), closing(), slow()];
    let other = backend();
    let upstream = |name: &str, first: &Backend, second: &Backend, directives: &str| {
        let upstream = Upstream::new(name, first.address()).and(second.address());
        upstream.with(&format!("proxy_read_timeout 500ms; {directives}"))
    };
    let [a, b, c, d, e] = &backends;
    let configuration = Configuration {
        workers: 1,
        ..Configuration::new(vec![
            upstream("timeouts", a, b, "proxy_next_upstream error http_502;"),
            upstream("ends", c, d, "proxy_next_upstream timeout;"),
            upstream("good", e, &other, ""),
        ])
    };
    let mut bench = Bench::start(&configuration, &[]);
    for name in ["timeouts", "ends"] {
        let outcomes = load::run(
            bench.nginx.address(),
            &[Request::get(format!("/{name}/1"))],
            1,
            true,
        );
        assert!(!outcomes[0].served());
    }
    // Of two requests one at least meets the slow server, and is passed on.
    let requests = [Request::get("/good/1"), Request::get("/good/2")];
    let outcomes = load::run(bench.nginx.address(), &requests, 1, true);
    assert!(outcomes.iter().all(load::Outcome::served));
    let found = advice(&mut bench);
    let found: Vec<Advice> = found
        .into_iter()
        .filter(|advice| advice.text.contains("next_upstream"))
        .collect();
    assert_eq!(found.len(), 2, "{found:#?}");
    for (name, needed, set) in [
        ("timeouts", "timeout", "error http_502"),
        ("ends", "error", "timeout"),
    ] {
        let told = on(&found, name);
        let because = format!("`proxy_next_upstream` is `{set}`");
        says(
            told,
            &format!("add `{needed}` to `proxy_next_upstream`"),
            &[&because, &format!("`upstream {name}` has 2 servers")],
        );
        assert_eq!(told.incidents, 1);
    }
}

#[test]
fn a_good_configuration_gives_no_finding() {
    let _alone = alone();
    let backend = Backend::start(
        IPV4,
        Habits {
            behaviour: Behaviour::of(Kind::Answer {
                body: 500,
                framing: Framing::Chunked,
            }),
            ..Habits::default()
        },
    )
    .unwrap();
    let upstream = Upstream::new("app", backend.address()).keepalive(16);
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
    serve(&bench, "app");
    assert!(used(&backend) < EACH);
    let found = advice(&mut bench);
    assert!(found.is_empty(), "{found:#?}");
}
