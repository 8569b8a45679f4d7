//! What is said of hosts that are not this one.

use super::found::{Capability, ErrorLog, Found, Kernel, Memory, Nginx, Process};
use super::statements::{Statement, Weight};
use super::{Diagnosis, text, warnings};
use crate::capture::checks::{self, Obstacle};
use crate::judge::by_functions::Past;
use crate::report::text::TextOptions;
use crate::trace::record::{Clients, Configuration, Hook, Role};

fn hook(name: &str, reason: Option<&str>) -> Hook {
    Hook {
        name: name.to_owned(),
        attached: reason.is_none(),
        by: None,
        reason: reason.map(str::to_owned),
    }
}

fn past(clients: Clients) -> Past {
    Past::of(Some(&Configuration {
        clients: Some(clients),
        ..Configuration::default()
    }))
}

/// A host on which all is as it should be.
fn whole() -> Found {
    Found {
        host: "web-1".to_owned(),
        kernel: Kernel {
            release: "6.12.9".to_owned(),
            machine: "x86_64".to_owned(),
            type_information: true,
            clock_source: Some("tsc".to_owned()),
            ..Kernel::default()
        },
        process: Process {
            pids_of_the_host: true,
            capabilities: checks::privileges(Role::Nginx)
                .iter()
                .map(|privilege| Capability {
                    name: privilege.capability.to_string(),
                    required: privilege.required,
                    held: true,
                    purpose: privilege.purpose.to_owned(),
                })
                .collect(),
            ..Process::default()
        },
        memory: Memory {
            ring_buffer_bytes: 8 << 20,
            needed_bytes: 64 << 20,
            free_bytes: Some(900 << 20),
            limited_by: Some("this host".to_owned()),
        },
        hooks: vec![
            hook("inet_sock_set_state", None),
            hook("tcp_retransmit_skb", None),
        ],
        nginx: vec![Nginx {
            master_pid: 812,
            version: Some("nginx/1.26.2".to_owned()),
            binary: "/usr/sbin/nginx".to_owned(),
            workers: 4,
            exports_log_function: true,
            log_calls_seen: true,
            configuration_path: "/etc/nginx/nginx.conf".to_owned(),
            configuration_read: true,
            configuration_problems: Vec::new(),
            error_logs: vec![ErrorLog {
                path: "/var/log/nginx/error.log".to_owned(),
                level: Some("info".to_owned()),
            }],
            narrowest_log: None,
            past_functions: past(Clients::default()),
        }],
        ..Found::default()
    }
}

fn shown(found: Found, width: u16) -> String {
    let mut shown = String::new();
    let options = TextOptions {
        width,
        ..TextOptions::default()
    };
    text::render(&Diagnosis::of(found), &options, &mut shown).unwrap();
    shown
}

/// The part before the facts, each sentence on a line.
fn said(found: Found) -> String {
    let shown = shown(found, 1000);
    shown
        .split("\nWhat was found\n")
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_host_that_tells_all_is_said_to_in_one_line_and_its_facts_follow() {
    assert_eq!(
        shown(whole(), 80),
        "\
A capture here gives full verdicts.

What it would tell
  - who closed each upstream connection, how (FIN, RST, timeout) and in which
    phase
  - how many requests it carried, how long it was idle, how long nginx waited
  - when a reset came or went, and whether packets were sent again
  - why a backend's process on this host ended: exit, signal, out of memory
  - to which connection each error line belongs, exactly: nginx is seen writing
    it

What was found
  kernel    Linux 6.12.9 x86_64, type information (BTF) read, not locked down,
            clock tsc
  process   user 0
  rights    has CAP_BPF, required: to load programs and maps into the kernel
            has CAP_PERFMON, required: to attach programs to tracepoints and to
            nginx
            has CAP_SYS_PTRACE, required: to read nginx's binary, configuration
            and logs through /proc
            has CAP_DAC_READ_SEARCH, required: to read nginx's configuration and
            logs
            has CAP_SYS_ADMIN, optional: to see nginx write its log where the
            kernel lets nobody else, and ask for listening sockets in the
            network namespaces of containers
  memory    64 MiB at most, 8 of them the ring buffer; this host has 900 MiB
            free
  hooks     2 of 2 attached: inet_sock_set_state, tcp_retransmit_skb
  nginx     nginx/1.26.2 (master 812), 4 workers, names ngx_log_error_core,
            configuration /etc/nginx/nginx.conf, error log
            /var/log/nginx/error.log (info)
"
    );
}

#[test]
fn what_keeps_a_capture_from_running_comes_first_and_alone() {
    let mut found = whole();
    found.hooks = vec![hook("tcp_retransmit_skb", Some("no; without it x"))];
    found.nginx.clear();
    found.obstacles = vec![Obstacle {
        what: "this process lacks CAP_BPF (to load programs)".to_owned(),
        remedy: "run whoclosed as root".to_owned(),
    }];
    let diagnosis = Diagnosis::of(found.clone());
    assert!(!diagnosis.possible && !diagnosis.full);
    assert_eq!(
        said(found),
        "\
No capture is possible here.

Why
  - this process lacks CAP_BPF (to load programs)
    do: run whoclosed as root
"
    );
}

#[test]
fn a_hook_that_is_refused_is_said_by_what_is_lost_without_it() {
    let mut found = whole();
    found.hooks[1] = hook(
        "tcp_retransmit_skb",
        Some("no such tracepoint; without it retransmissions are not counted"),
    );
    let diagnosis = Diagnosis::of(found.clone());
    assert!(diagnosis.possible && !diagnosis.full);
    let said = said(found);
    assert!(said.starts_with("A capture would run here, but not tell all.\n"));
    assert!(
        said.contains(
            "\nWhat it would not tell
  - Retransmissions are not counted: tcp_retransmit_skb is not attached (no such tracepoint)\n"
        ),
        "{said}"
    );
    assert!(!said.contains("packets were sent again"), "{said}");
}

#[test]
fn a_second_program_that_is_refused_takes_nothing_away_that_the_first_tells() {
    let mut found = whole();
    let before = said(found.clone());
    let can = "how many requests it carried";
    assert!(before.contains(can), "{before}");
    found.hooks.push(hook(
        "sock_send_length (second program)",
        Some("too large; without it what interrupts it is missed"),
    ));
    assert!(!Diagnosis::of(found.clone()).full);
    let said = said(found);
    assert!(said.contains("What interrupts it is missed: sock_send_length (second program)"));
    assert!(said.contains(can), "{said}");
}

#[test]
fn what_takes_the_place_of_a_hook_counts_as_attached_and_is_named() {
    let mut found = whole();
    found.hooks.push(Hook {
        by: Some("fexit tcp_recvmsg".to_owned()),
        reason: Some("tracepoint: none".to_owned()),
        ..hook("sock_recv_length", None)
    });
    assert!(Diagnosis::of(found.clone()).full);
    found.hooks.push(hook("tcp_send_reset", Some("none")));
    let shown = shown(found, 1000);
    let lines = "  hooks     3 of 4 attached, 1 of them by a fallback: inet_sock_set_state, \
                 tcp_retransmit_skb, sock_recv_length by fexit tcp_recvmsg\n            \
                 not attached: tcp_send_reset\n";
    assert!(shown.contains(lines), "{shown}");
}

#[test]
fn of_a_capability_that_is_missing_it_is_said_whether_and_what_for_it_is_needed() {
    let mut found = whole();
    for capability in &mut found.process.capabilities {
        capability.held = capability.name == "CAP_BPF";
    }
    let wide = shown(found.clone(), 1000);
    for line in [
        "  rights    has CAP_BPF, required: to load programs",
        "            lacks CAP_PERFMON, required: to attach programs",
        "            lacks CAP_SYS_ADMIN, optional: to see nginx write its log",
    ] {
        assert!(wide.contains(line), "{wide}");
    }
    let narrow = shown(found, 60);
    let longest = narrow.lines().map(|line| line.chars().count()).max();
    assert!(longest <= Some(60), "{narrow}");
}

#[test]
fn what_a_fallback_does_not_see_limits_only_where_nginx_may_have_it() {
    let with = |past: Past| {
        let mut found = whole();
        found.hooks.push(Hook {
            by: Some("fexit tcp_sendmsg".to_owned()),
            reason: Some("tracepoint: none".to_owned()),
            ..hook("sock_send_length", None)
        });
        found.nginx[0].past_functions = past;
        Diagnosis::of(found)
    };
    let none = with(past(Clients::default()));
    assert!(none.full);
    assert_eq!(none.statements[0].weight, Weight::Note);
    assert!(
        none.statements[0]
            .text
            .ends_with("alone (fexit tcp_sendmsg)")
    );
    let unix = with(past(Clients {
        unix: true,
        ..Clients::default()
    }));
    assert!(!unix.full);
    let text = &unix.statements[0].text;
    let says = "It will not be known whether clients on unix sockets were served: nginx's sends";
    assert!(text.starts_with(says), "{text}");
    let unknown = with(Past::of(None));
    assert!(!unknown.full);
    let text = &unknown.statements[0].text;
    assert!(text.contains(", nor what was sent to backends"), "{text}");
    assert!(text.contains(", if there are any: "), "{text}");
    // Without such programs there is nothing to say.
    let mut found = whole();
    found.nginx[0].past_functions = Past::of(None);
    assert_eq!(Diagnosis::of(found).statements, []);
}

#[test]
fn a_refused_uprobe_names_the_capability_that_would_do() {
    let mut found = whole();
    let reason = "`perf_event_open` failed: Permission denied (os error 13); without it lines are \
                  matched to connections by their order, which is less sure";
    found
        .hooks
        .push(hook("ngx_log_error_core in /usr/sbin/nginx", Some(reason)));
    found.nginx[0].log_calls_seen = false;
    let as_root = said(found.clone());
    assert!(!as_root.contains("CAP_SYS_ADMIN"), "{as_root}");
    for capability in &mut found.process.capabilities {
        capability.held = capability.name != "CAP_SYS_ADMIN";
    }
    let said = said(found);
    assert!(said.contains("  - Lines are matched to connections by their order"));
    assert!(said.contains("give it CAP_SYS_ADMIN"), "{said}");
    assert!(said.contains("by the order of lines and closes"), "{said}");
}

#[test]
fn a_level_that_leaves_out_errors_limits_and_one_that_leaves_out_clients_does_not() {
    let with = |level: &str| {
        let mut found = whole();
        found.nginx[0].error_logs[0].level = Some(level.to_owned());
        Diagnosis::of(found)
    };
    let crit = with("crit");
    assert!(!crit.full);
    assert_eq!(crit.statements[0].weight, Weight::Limits);
    assert!(crit.statements[0].text.contains("its error log is at crit"));
    for level in ["error", "warn", "notice"] {
        let fair = with(level);
        assert!(fair.full, "{level}");
        assert_eq!(fair.statements[0].weight, Weight::Note);
        assert!(fair.statements[0].text.contains(level));
    }
    assert_eq!(with("debug").statements, []);
}

fn log(path: &str, level: &str) -> ErrorLog {
    ErrorLog {
        path: path.to_owned(),
        level: Some(level.to_owned()),
    }
}

#[test]
fn of_two_logs_of_one_context_the_wider_counts() {
    let mut found = whole();
    let logs = [log("/m.log", "error"), log("/c.log", "crit")];
    found.nginx[0].error_logs = logs.to_vec();
    for narrowest in [None, Some(logs[0].clone())] {
        found.nginx[0].narrowest_log = narrowest;
        let diagnosis = Diagnosis::of(found.clone());
        assert!(diagnosis.full);
        let text = &diagnosis.statements[0].text;
        assert!(text.ends_with("its error log is at error"), "{text}");
    }
}

#[test]
fn of_two_contexts_the_one_that_leaves_out_more_counts() {
    let mut found = whole();
    found.nginx[0].error_logs = vec![log("/m.log", "error"), log("/s.log", "crit")];
    found.nginx[0].narrowest_log = Some(log("/s.log", "crit"));
    let diagnosis = Diagnosis::of(found.clone());
    assert!(!diagnosis.full);
    let said = &diagnosis.statements[0];
    assert_eq!(said.weight, Weight::Limits);
    assert_eq!(
        said.text,
        "Most failures of requests that nginx 812 logs to /s.log will not be told: they are \
         logged at error, and that log is at crit"
    );
    let remedy = said.remedy.as_deref().unwrap();
    assert!(remedy.contains("`error_log /s.log error;`"), "{remedy}");
    // A server of which only the clients that leave are hidden is no limit.
    found.nginx[0].error_logs = vec![log("/m.log", "info"), log("/s.log", "error")];
    found.nginx[0].narrowest_log = Some(log("/s.log", "error"));
    let diagnosis = Diagnosis::of(found);
    assert!(diagnosis.full);
    let text = &diagnosis.statements[0].text;
    assert!(text.ends_with("its error log /s.log is at error"), "{text}");
}

#[test]
fn a_configuration_that_cannot_be_read_limits() {
    let mut found = whole();
    found.nginx[0].configuration_read = false;
    found.nginx[0].configuration_problems = vec!["no such file".to_owned()];
    let diagnosis = Diagnosis::of(found);
    assert!(!diagnosis.full);
    assert!(diagnosis.statements[0].text.contains("(no such file)"));
}

#[test]
fn memory_that_is_short_and_a_slow_clock_are_told() {
    let mut found = whole();
    found.memory.free_bytes = Some(20 << 20);
    found.memory.limited_by = Some("the memory cgroup /agents".to_owned());
    found.kernel.clock_source = Some("hpet".to_owned());
    let diagnosis = Diagnosis::of(found.clone());
    let weights: Vec<Weight> = diagnosis
        .statements
        .iter()
        .map(|said| said.weight)
        .collect();
    assert_eq!(weights, [Weight::Limits, Weight::Note]);
    let said = said(found);
    assert!(said.contains("the memory cgroup /agents has 20"), "{said}");
    assert!(said.contains("hpet"), "{said}");
}

#[test]
fn a_warning_with_advice_is_told_in_two() {
    let mut found = whole();
    found.warnings = vec![
        "lines will not be tied; run it on the host".to_owned(),
        "the error log /x does not exist; it is read once nginx creates it".to_owned(),
    ];
    let statements = Diagnosis::of(found).statements;
    assert_eq!(statements[0].text, "Lines will not be tied");
    assert_eq!(statements[0].remedy.as_deref(), Some("run it on the host"));
    assert_eq!(statements[1].weight, Weight::Note);
}

#[test]
fn a_capture_warns_of_all_that_limits_it_and_of_nothing_else() {
    let mut found = whole();
    found.nginx[0].error_logs[0].level = Some("crit".to_owned());
    found.nginx[0].configuration_problems = vec!["include x: no such file".to_owned()];
    found.kernel.clock_source = Some("hpet".to_owned());
    found.memory.free_bytes = Some(20 << 20);
    found.hooks[1] = hook(
        "tcp_retransmit_skb",
        Some("no such tracepoint; without it retransmissions are not counted"),
    );
    found.warnings = vec![
        "lines will not be tied; run it on the host".to_owned(),
        "the error log /x does not exist; it is read once nginx creates it".to_owned(),
    ];
    let warned = warnings(&found);
    let diagnosis = Diagnosis::of(found);
    let limits: Vec<&Statement> = (diagnosis.statements.iter())
        .filter(|said| said.weight == Weight::Limits)
        .collect();
    assert_eq!(limits.len(), 4);
    for said in limits {
        let line = match &said.remedy {
            Some(remedy) => format!("{}; {remedy}", said.text),
            None => said.text.clone(),
        };
        assert_eq!(warned.iter().filter(|warned| **warned == line).count(), 1);
    }
    // A log that is not there yet is told of though it limits nothing.
    assert_eq!(warned.len(), 5, "{warned:#?}");
    let not_there = "The error log /x does not exist";
    assert!(warned.iter().any(|line| line.starts_with(not_there)));
    assert_eq!(warnings(&whole()), [""; 0]);
}

#[test]
fn what_a_capture_warns_of_does_not_reach_the_terminal_raw() {
    let mut found = whole();
    found.nginx[0].configuration_read = false;
    found.nginx[0].configuration_path = "/etc/\u{1b}[2Jx".to_owned();
    let warned = warnings(&found);
    assert_eq!(warned.len(), 1);
    assert!(!warned[0].contains('\u{1b}'), "{warned:?}");
}

#[test]
fn names_that_are_hostile_do_not_reach_the_terminal_raw() {
    let mut found = whole();
    found.nginx[0].configuration_path = "/etc/\u{1b}[2Jx".to_owned();
    let shown = shown(found, 80);
    assert!(!shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn the_json_names_its_form_and_tells_the_same() {
    let mut json = Vec::new();
    crate::report::json::render(&Diagnosis::of(whole()), true, &mut json).unwrap();
    let read: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(read["schema"], "whoclosed.doctor/1");
    assert_eq!(read["full"], true);
    assert_eq!(read["found"]["nginx"][0]["master_pid"], 812);
    assert_eq!(
        read["found"]["process"]["capabilities"][0]["name"],
        "CAP_BPF"
    );
}
