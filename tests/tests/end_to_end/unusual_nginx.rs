//! nginx instances that a capture cannot see as it would like to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use lab::backend::{Backend, Habits, IPV4, Idle, Refusing};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::load::{self, Method, Request};
use lab::nginx::{self, Configuration, Nginx, Upstream};
use lab::stale::{Race, race};
use lab::tool;
use tempfile::TempDir;

use crate::bench::{Bench, alone, report};

/// The function that writes nginx's log lines, and a name that nobody looks for.
const LOG_FUNCTION: &[u8] = b"\0ngx_log_error_core\0";
const RENAMED: &[u8] = b"\0ngx_log_error_cork\0";

/// A copy of nginx whose log function cannot be found: nginx calls it by its address,
/// and only others by its name.
fn without_log_function(folder: &TempDir) -> PathBuf {
    let mut bytes = fs::read(nginx::binary().unwrap()).unwrap();
    let mut renamed = 0;
    for at in 0..bytes.len() - LOG_FUNCTION.len() {
        if bytes[at..].starts_with(LOG_FUNCTION) {
            bytes[at..at + RENAMED.len()].copy_from_slice(RENAMED);
            renamed += 1;
        }
    }
    assert!(renamed > 0, "this nginx exports no such function");
    let copy = folder.path().join("nginx");
    fs::write(&copy, bytes).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

#[test]
fn without_its_log_function_lines_find_their_connections_by_their_order() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let binary = without_log_function(&folder);
    let idle = Some(Idle {
        after: std::time::Duration::from_millis(500),
        means: Means::Fin,
    });
    let habits = Habits {
        idle,
        ..Habits::default()
    };
    let backend = Backend::start(IPV4, habits).unwrap();
    let nobody = Refusing::start(IPV4).unwrap();
    let upstreams = vec![
        Upstream::new("app", backend.address()).keepalive(8),
        Upstream::new("nobody", nobody.address()),
        Upstream::new("slow", backend.address()).with("proxy_read_timeout 1s;"),
    ];
    let nginx = Nginx::start_binary(&binary, &Configuration::new(upstreams)).unwrap();
    let mut bench = Bench::before(nginx, &[]);
    let plan = Race {
        location: "/app/".into(),
        requests: 2,
        method: Method::Post,
        served_before: 1,
    };
    race(&bench.nginx, &backend, &plan).unwrap();
    let ask = |target: &str, kind| Request::post(target, 3).asking(Behaviour::of(kind));
    let close = Kind::CloseWithoutAnswer(Means::Fin);
    let slow = Behaviour::ANSWER.after(std::time::Duration::from_secs(600));
    let requests = [
        ask("/app/a", close),
        ask("/app/b", Kind::CloseWithoutAnswer(Means::Rst)),
        ask("/app/c", Kind::CloseInHeader(Means::Fin)),
        ask("/app/d", Kind::BigHeader { bytes: 20_000 }),
        ask("/nobody/e", close),
        Request::get("/slow/f").asking(slow),
    ];
    let _ = load::run(bench.nginx.address(), &requests, 3, false);
    let lines = bench.nginx.upstream_lines().unwrap();
    assert_eq!(lines.len(), 8, "{lines:#?}");
    let finished = bench.finish();
    let warned = finished
        .stderr
        .lines()
        .find(|line| line.starts_with("warning: "));
    let warned = warned.unwrap_or_else(|| panic!("no warning in {}", finished.stderr));
    for word in ["ngx_log_error_core", "Lines", "connections"] {
        assert!(warned.contains(word), "no {word:?} in {warned:?}");
    }
    let report = report(&bench.trace());
    assert!(report.capture.complete);
    assert_eq!(report.incidents.len(), lines.len());
    for incident in &report.incidents {
        assert_eq!(incident.matched, "ordered", "{incident:#?}");
        let found = incident.connection.as_ref().unwrap();
        assert_eq!(found.remote.to_string(), incident.upstream);
        let cause = match incident.target().unwrap() {
            "/app/a" | "/app/b" => "closed-without-answer",
            "/app/c" => "response-aborted",
            "/app/d" => "response-rejected",
            "/nobody/e" => "connect-refused",
            "/slow/f" => "read-timeout",
            _ => "stale-keepalive",
        };
        assert_eq!(incident.cause, cause, "{incident:#?}");
    }
    let told = report.notes.join(". ");
    assert!(told.contains("ngx_log_error_core"), "{told:?}");
}

#[test]
fn an_error_log_that_cannot_be_had_is_refused_with_the_reason() {
    let _alone = alone();
    for (target, word, status) in [
        // As Tengine has it; to nginx it is a file's name.
        ("pipe:cat", "program", Some(1)),
        // Without a file among its logs nginx adds its default one, which is followed
        // (src/core/ngx_log.c `ngx_log_open_default`).
        ("syslog:server=127.0.0.1", "error log", Some(0)),
    ] {
        let configuration = Configuration {
            error_logs: vec![target.to_owned()],
            ..Configuration::new(vec![Upstream::new("app", "127.0.0.1:1")])
        };
        let nginx = Nginx::start(&configuration).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("trace");
        let pid = nginx.master_pid().to_string();
        let output_text = output.to_str().unwrap();
        let finished = tool::run([
            "capture",
            "--duration",
            "1s",
            "--nginx",
            &pid,
            "--output",
            output_text,
        ])
        .unwrap();
        let said = &finished.stderr;
        assert_eq!(finished.status.code(), status, "{said}");
        assert!(!said.contains("panicked"), "{said}");
        for word in [word, "error log"] {
            assert!(said.contains(word), "no {word:?} in {said:?}");
        }
        if status == Some(1) {
            assert!(said.contains("cannot be followed"), "{said}");
            assert!(said.contains("--error-log"), "{said}");
            assert!(!output.exists(), "an empty trace is left");
        }
    }
}
