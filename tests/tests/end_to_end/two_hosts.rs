//! A capture on nginx's host that does not see the backend, one on the backend's host that
//! does not see nginx, and both traces together.
//!
//! Both run on this kernel, which has one clock and one name. So the backend's trace is
//! made one of another host before it is joined: its clock is set ahead, and the name of
//! the kernel's run is taken away. By how much it was set ahead is what the report must
//! find, within the error that it states.

mod listening;
mod lost;
mod mid_life;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lab::backend::Habits;
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::PATIENCE;
use lab::load::{Client, Request};
use lab::memory_cgroup::MemoryCgroup;
use lab::netns::Namespace;
use lab::nginx::{Configuration, Upstream};
use lab::tool::Capture;
use lab::{processes, tool};
use rustix::process::Signal;
use serde_json::{Map, Value, json};

use crate::bench::{Bench, alone, records};
use crate::local_backends::victim::Victim;

/// By how much the clock of the backend's host is ahead.
const AHEAD_NS: u64 = 7_123_456_789_012;
const MEGABYTE: usize = 1 << 20;

/// Makes a trace one of another host. The decompressed lines of a trace are a trace too.
fn elsewhere(trace: &Path) -> PathBuf {
    let file = zstd::Decoder::new(File::open(trace).unwrap()).unwrap();
    let mut moved = String::new();
    for line in io::read_to_string(file).unwrap().lines() {
        let mut record: Map<String, Value> = serde_json::from_str(line).unwrap();
        record.remove("boot_id");
        for (field, value) in &mut record {
            let time = field == "ns" || field.ends_with("_ns");
            if time && field != "realtime_ns" && field != "duration_ns" {
                *value = json!(value.as_u64().unwrap() + AHEAD_NS);
            }
            if field == "host" {
                *value = json!("app-1");
            }
        }
        moved += &serde_json::to_string(&record).unwrap();
        moved.push('\n');
    }
    let path = trace.with_extension("elsewhere");
    fs::write(&path, moved).unwrap();
    path
}

/// The report of these traces together.
#[track_caller]
fn report(traces: &[&Path]) -> Value {
    let traces = traces.iter().map(|path| path.to_str().unwrap());
    let arguments = ["report", "--format", "json"].into_iter().chain(traces);
    let finished = tool::run(arguments).unwrap().succeeded().unwrap();
    serde_json::from_slice(&finished.stdout).unwrap()
}

/// The offset is what it was made, within the error stated.
#[track_caller]
#[expect(clippy::cast_precision_loss, reason = "milliseconds need not be exact")]
fn has_the_offset(joined: &Value) {
    let number = |field: &str| joined[field].as_f64().unwrap();
    let off = (number("clock_offset_ms") - AHEAD_NS as f64 / 1e6).abs();
    assert!(off <= number("clock_error_ms") + 1e-3, "{joined:#}");
    assert_eq!(joined["one_clock"], false);
}

/// What one request to a victim gave.
struct Seen {
    incident: Value,
    accepted: Value,
    exits: Vec<Value>,
    pid: u32,
}

/// One request to a victim in another network namespace, and both traces of it.
#[track_caller]
fn one_request(
    mode: &str,
    body: usize,
    cgroup: Option<&MemoryCgroup>,
    signal: Option<Signal>,
) -> Seen {
    let namespace = Namespace::create().unwrap();
    let start = || Ok(Victim::start(mode, body, Some(namespace.ipv4())));
    let mut victim = namespace.enter(start).unwrap();
    let backend = victim.address();
    let pid = victim.child.id();
    if let Some(cgroup) = cgroup {
        cgroup.take(pid).unwrap();
    }
    let mut configuration = Configuration::new(vec![Upstream::new("app", backend)]);
    configuration.http = "client_max_body_size 2m;\n".to_owned();
    let mut bench = Bench::start(&configuration, &["--no-local-backends"]);
    let there = bench.folder().path().join("backend.trace");
    let capture = Capture::of_backend(backend.port(), &there).unwrap();
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    client.send(&Request::post("/app/one", body)).unwrap();
    let nginx_side = victim.address();
    if let Some(signal) = signal {
        processes::signal(pid, signal).unwrap();
    }
    assert_eq!(client.receive().unwrap().status, 502);
    if cgroup.is_some() || signal.is_some() {
        victim.child.wait().unwrap();
    }
    capture.finish().unwrap().succeeded().unwrap();
    let here = bench.trace();
    bench.report();

    // nginx's host saw nothing of the backend.
    for kind in ["peer_close", "backend_exit", "backend_process"] {
        assert!(records(&here, kind).is_empty(), "{kind}");
    }
    let alone = report(&[&here]);
    assert_ne!(alone["incidents"][0]["confidence"], "certain", "{alone:#}");
    assert!(alone["joined"].is_null());

    let accepted = records(&there, "accepted");
    let [accepted] = accepted.as_slice() else {
        panic!("{accepted:#?}");
    };
    assert_eq!(accepted["remote"], json!(nginx_side.to_string()));
    assert_eq!(accepted["local"], json!(backend.to_string()));
    assert_eq!(accepted["pid"], pid);
    assert_eq!(accepted["comm"], "victim");
    let together = report(&[&here, &elsewhere(&there)]);
    let joined = &together["joined"][0];
    assert_eq!(joined["connections"], 1, "{together:#}");
    assert_eq!(joined["host"], "app-1");
    has_the_offset(joined);
    let incidents = together["incidents"].as_array().unwrap();
    assert_eq!(incidents.len(), 1);
    Seen {
        incident: incidents[0].clone(),
        accepted: accepted.clone(),
        exits: records(&there, "backend_exit"),
        pid,
    }
}

impl Seen {
    #[track_caller]
    fn is(&self, cause: &str, confidence: &str, says: &str) {
        let incident = &self.incident;
        assert_eq!(incident["cause"], cause, "{incident:#}");
        assert_eq!(incident["confidence"], confidence, "{incident:#}");
        let process = format!("process {} (victim", self.pid);
        let evidence = incident["evidence"].as_array().unwrap();
        let sentences = evidence.iter().map(|sentence| sentence.as_str().unwrap());
        let found = sentences.clone().any(|sentence| {
            sentence.contains(&process) && sentence.contains(" on app-1") && sentence.contains(says)
        });
        assert!(found, "{incident:#}");
    }
}

#[test]
fn a_kill_on_another_host_is_named_from_two_traces() {
    let _alone = alone();
    let seen = one_request("wait", 1024, None, Some(Signal::KILL));
    assert_eq!(seen.accepted["exit"], json!({"signal": 9}));
    seen.is("backend-killed", "certain", "SIGKILL (9)");
}

#[test]
fn a_crash_on_another_host_is_named_from_two_traces() {
    let _alone = alone();
    let seen = one_request("abort", 1024, None, None);
    assert_eq!(seen.accepted["exit"], json!({"signal": 6}));
    seen.is("backend-crashed", "certain", "SIGABRT (6)");
}

#[test]
fn a_lack_of_memory_on_another_host_is_named_from_two_traces() {
    let _alone = alone();
    let cgroup = MemoryCgroup::create(48 << 20).unwrap();
    let seen = one_request("out-of-memory", 1024, Some(&cgroup), None);
    assert_eq!(seen.accepted["exit"], "out_of_memory");
    seen.is("backend-oom", "certain", "no memory left");
    let [exit] = seen.exits.as_slice() else {
        panic!("{:#?}", seen.exits);
    };
    assert_eq!(
        (&exit["pid"], &exit["exit"]),
        (&json!(seen.pid), &json!("out_of_memory"))
    );
}

#[test]
fn a_megabyte_left_unread_on_another_host_is_named_from_two_traces() {
    let _alone = alone();
    let seen = one_request("unread", MEGABYTE, None, None);
    assert_eq!(seen.accepted["exit"], Value::Null);
    assert_eq!(seen.accepted["unread_bytes"], MEGABYTE);
    assert!(seen.accepted["rst_sent_ns"].is_u64(), "{}", seen.accepted);
    // No other request tells whether it was for its size.
    let left = "leaving 1,048,576 bytes of nginx's unread";
    seen.is("closed-without-answer", "likely", left);
}

/// What nginx's side asks for goes to another port there than the one that it knows.
#[test]
fn traces_from_both_sides_of_a_translation_are_not_joined() {
    let _alone = alone();
    let namespace = Arc::new(Namespace::create().unwrap());
    let remote = lab::netns::Remote::prepare(&namespace, namespace.ipv4()).unwrap();
    let backend = remote.start(Habits::default()).unwrap();
    let configuration = Configuration::new(vec![Upstream::new("app", remote.address())]);
    let mut bench = Bench::start(&configuration, &[]);
    let there = bench.folder().path().join("backend.trace");
    let capture = Capture::of_backend(remote.listens().port(), &there).unwrap();
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    let close = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    let request = Request::get("/app/one").asking(close);
    assert_eq!(client.ask(&request).unwrap().status, 502);
    bench.wait_until_closed(remote.address());
    capture.finish().unwrap().succeeded().unwrap();
    bench.report();
    assert_eq!(backend.connections().len(), 1);
    assert_eq!(records(&there, "accepted").len(), 1);
    for there in [there.clone(), elsewhere(&there)] {
        let together = report(&[&bench.trace(), &there]);
        assert_eq!(together["joined"][0]["connections"], 0);
        assert_eq!(together["joined"][0]["accepted"], 1);
        let notes = together["notes"].to_string();
        assert!(notes.contains("network address translation"), "{notes}");
        let incident = &together["incidents"][0];
        assert_eq!(incident["cause"], "closed-without-answer");
        assert!(!incident["evidence"].to_string().contains("process"));
    }
}

#[test]
fn a_backends_trace_by_itself_tells_how_its_connections_ended() {
    let _alone = alone();
    let mut victim = Victim::start("unread", 1024, None);
    let backend = victim.address();
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let capture = Capture::of_backend(backend.port(), &trace).unwrap();
    // No nginx: whoever connects counts.
    let mut client = Client::connect(backend).unwrap();
    client.send(&Request::post("/one", 1024)).unwrap();
    victim.address();
    client
        .receive()
        .expect_err("the victim closes without an answer");
    processes::end(&mut victim.child, Signal::KILL, PATIENCE);
    let printed = capture.finish().unwrap().succeeded().unwrap().text();
    let pid = victim.child.id();
    for wanted in [
        "1 connection in",
        "1 closed here first",
        "1 with bytes that the process had not read, 1,024 at most",
        "was ended by SIGKILL (9)",
        &format!("{pid} (victim"),
    ] {
        assert!(printed.contains(wanted), "{wanted}: {printed}");
    }
    let again = tool::run(["report", trace.to_str().unwrap()]).unwrap();
    assert_eq!(again.succeeded().unwrap().text(), printed);
    let shown = tool::run(["show", trace.to_str().unwrap(), "1"]).unwrap();
    assert_eq!(shown.status.code(), Some(1));
    assert!(shown.stderr.contains("--backend"), "{}", shown.stderr);
    let report = report(&[&trace]);
    assert_eq!(report["schema"], "whoclosed.accepting/1");
    assert_eq!(report["connections"]["unread_bytes_most"], 1024);
    assert_eq!(report["processes"][0]["exit"], json!({"signal": 9}));
    assert_eq!(report["clients"][0]["address"], "127.0.0.1");
}
