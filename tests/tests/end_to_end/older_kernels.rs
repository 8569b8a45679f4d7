//! What older kernels lack, withheld on this one: the trace says so, and what is still said
//! is right.

use lab::backend::{Backend, Habits, IPV4};
use lab::nginx::{Configuration, Upstream};
use serde_json::Value;

use crate::bench::{Bench, alone, records};
use crate::local_backends::victim::Scene;

/// The hook of this name in a capture with these options.
#[track_caller]
fn hook(options: &[&str], name: &str) -> Option<Value> {
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address());
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), options);
    bench.report();
    let [capture] = records(&bench.trace(), "capture").try_into().unwrap();
    let hooks = capture["hooks"].as_array().unwrap();
    let is_it = |hook: &&Value| hook["name"].as_str().unwrap().starts_with(name);
    hooks.iter().find(is_it).cloned()
}

#[test]
fn what_takes_the_place_of_links_of_uprobes_is_recorded() {
    const LINES: &str = "ngx_log_error_core in ";
    let _alone = alone();
    let without = hook(&["--no-uprobe-links"], LINES).unwrap();
    assert_eq!(without["by"], "perf_event_open", "{without}");
    assert_eq!(without["reason"], "withheld on request", "{without}");
    assert_eq!(without["attached"], true, "{without}");
}

#[test]
fn where_no_task_tells_its_registers_the_report_says_what_that_costs() {
    const REGISTERS: &str = "bpf_task_pt_regs";
    let _alone = alone();
    assert_eq!(hook(&[], REGISTERS), None);
    let without = hook(&["--no-task-registers"], REGISTERS).unwrap();
    assert_eq!(without["attached"], false, "{without}");
    let reason = without["reason"].as_str().unwrap();
    assert!(reason.contains("that child is named"), "{reason}");
}

/// With them it is put down to the parent, see
/// `what_a_starting_child_closes_last_is_its_parents_close`.
#[test]
fn where_no_task_tells_its_registers_a_starting_child_has_closed_and_nothing_is_made_of_its_end() {
    let _alone = alone();
    let scene = Scene {
        options: &["--no-task-registers"],
        closer: Some("true"),
        ..Scene::default()
    };
    let seen = scene.one_request("close-beside-a-start");
    assert_eq!(seen.peer["parent_pid"], seen.pid, "{}", seen.peer);
    assert_eq!(seen.peer["exit"], Value::Null);
    let incident = &seen.incident;
    assert_eq!(incident.cause, "closed-without-answer", "{incident:#?}");
    assert_ne!(incident.confidence, "certain", "{incident:#?}");
}
