//! nginx in pid, mount and network namespaces of its own, its log a pipe that somebody
//! else reads: the same verdicts as outside.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use lab::backend::{Backend, Habits, IPV4, Idle, Why};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, wait_for};
use lab::container::{Container, LINKED_LOG};
use lab::load::{self, Client, Method, Request};
use lab::nginx::{self, Configuration, Nginx, Upstream};
use lab::processes;
use lab::stale::{Race, race};
use lab::tool::Capture;
use lab::truth;
use lab::verdicts::{Incident, Report, compare_beside};

use crate::bench::{Bench, alone, records, report};

/// Requests that fail in many ways, by target.
fn failures() -> Vec<Request> {
    let ask =
        |target: &str, kind| Request::post(format!("/app/{target}"), 3).asking(Behaviour::of(kind));
    let mut requests = vec![
        ask("cut", Kind::CloseInHeader(Means::Fin)),
        ask("reset-amid", Kind::CloseInHeader(Means::Rst)),
        ask("big", Kind::BigHeader { bytes: 20_000 }),
    ];
    for number in 0..5 {
        requests.push(ask(
            &format!("closed-{number}"),
            Kind::CloseWithoutAnswer(Means::Fin),
        ));
        requests.push(ask(
            &format!("reset-{number}"),
            Kind::CloseWithoutAnswer(Means::Rst),
        ));
        requests.push(Request::get(format!("/nobody/{number}")));
    }
    let slow = Behaviour::ANSWER.after(Duration::from_secs(600));
    requests.push(Request::get("/slow/late").asking(slow));
    requests
}

const IDLE: Duration = Duration::from_millis(700);

/// What a report says of an incident that does not depend on when and where it was.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    cause: String,
    side: String,
    means: String,
    phase: String,
    matched: String,
    message: String,
    requests: Option<u32>,
    retried: Option<bool>,
    served: Option<bool>,
}

fn told(incident: &Incident) -> Told {
    let words = |text: &String| text.clone();
    Told {
        cause: words(&incident.cause),
        side: words(&incident.side),
        means: words(&incident.means),
        phase: words(&incident.phase),
        matched: words(&incident.matched),
        message: words(&incident.line.message),
        requests: incident
            .connection
            .as_ref()
            .and_then(|found| found.requests),
        retried: incident.retried,
        served: incident.served,
    }
}

/// By the request; those of races and their retries under one name.
fn all_told(report: &Report) -> BTreeMap<String, Told> {
    let incidents = report.incidents.iter().map(|incident| {
        let target = incident.target().unwrap().to_owned();
        (target, told(incident))
    });
    incidents
        .filter(|(target, _)| !target.contains("raced"))
        .collect()
}

/// Makes the failures, inside or outside; what is told of them, held against what the
/// backends recorded.
#[track_caller]
fn made(container: Option<&Container>, error_log: &str) -> BTreeMap<String, Told> {
    let there = |act: &mut dyn FnMut() -> anyhow::Result<()>| match container {
        Some(container) => container.enter(act).unwrap(),
        None => act().unwrap(),
    };
    let idle = Some(Idle {
        after: IDLE,
        means: Means::Fin,
    });
    let (mut app, mut stale) = (None, None);
    there(&mut || {
        app = Some(Backend::start(IPV4, Habits::default())?);
        let habits = Habits {
            idle,
            ..Habits::default()
        };
        stale = Some(Backend::start(IPV4, habits)?);
        Ok(())
    });
    let (app, stale) = (app.unwrap(), stale.unwrap());
    let configuration = Configuration {
        error_logs: vec![error_log.to_owned()],
        ..Configuration::new(vec![
            Upstream::new("app", app.address()),
            Upstream::new("nobody", "127.0.0.1:1"),
            Upstream::new("slow", app.address()).with("proxy_read_timeout 1s;"),
            Upstream::new("stale", stale.address()).keepalive(16),
        ])
    };
    let nginx = match container {
        Some(container) => container.nginx(&configuration),
        None => Nginx::start(&configuration),
    };
    let mut bench = Bench::before(nginx.unwrap(), &[]);
    let mut raced = Vec::new();
    there(&mut || {
        let _ = load::run(bench.nginx.address(), &failures(), 3, false);
        let plan = Race {
            location: "/stale/".to_owned(),
            requests: 4,
            method: Method::Post,
            served_before: 3,
        };
        raced = race(&bench.nginx, &stale, &plan)?.stale;
        Ok(())
    });
    let log = match container {
        Some(_) => bench.nginx.stderr(),
        None => bench.nginx.error_log(),
    };
    // What comes through the pipe is written down by somebody else.
    let lines = failures().len() + raced.len();
    wait_for("nginx's lines", PATIENCE, || {
        Ok((Nginx::upstream_lines_of(&log)?.len() >= lines).then_some(()))
    })
    .unwrap();
    let report = bench.report();
    let written = Nginx::upstream_lines_of(&log).unwrap().len();
    assert_eq!(report.incidents.len(), written);

    let mut truth = truth::recorded(&app.connections());
    truth.extend(truth::stale(&raced));
    let comparison = compare_beside(&truth, &report, &[&stale]);
    assert!(
        comparison.rows.iter().all(|row| row.problems.is_empty()),
        "\n{comparison}"
    );
    assert_eq!(raced.len(), 4);
    all_told(&report)
}

#[test]
fn an_nginx_in_a_container_that_logs_to_stderr_has_the_verdicts_of_one_outside() {
    let _alone = alone();
    let container = Container::create().unwrap();
    let outside = made(None, "logs/error.log");
    assert_eq!(outside.len(), failures().len());
    let inside = made(Some(&container), "stderr");
    assert_eq!(inside, outside);
    // As images have it.
    let container = Container::create().unwrap();
    let linked = made(Some(&container), LINKED_LOG);
    assert_eq!(linked, outside);
}

/// Inner pids of a process: the numbers after the first of `NSpid`.
fn inner_pid(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("NSpid:"));
    line.unwrap()
        .split_whitespace()
        .next_back()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn two_containers_with_the_same_pids_and_addresses_stay_apart() {
    const EACH: usize = 20;
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let name = format!("lab{}", std::process::id());
    let binary = folder.path().join(&name);
    fs::copy(nginx::binary().unwrap(), &binary).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&binary, mode).unwrap();
    fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();

    let containers = [Container::create().unwrap(), Container::create().unwrap()];
    let first = containers[0]
        .enter(|| Backend::start(IPV4, Habits::default()))
        .unwrap();
    let address = first.address();
    let second = containers[1]
        .enter(|| Backend::start(address, Habits::default()))
        .unwrap();
    assert_eq!(second.address(), address);
    let configuration = Configuration {
        error_logs: vec!["stderr".to_owned()],
        ..Configuration::new(vec![Upstream::new("app", address)])
    };
    let nginxes = containers
        .each_ref()
        .map(|container| container.nginx_of(&binary, &configuration).unwrap());
    let inner = nginxes.each_ref().map(|nginx| {
        let mut pids: Vec<u32> = nginx
            .workers()
            .unwrap()
            .into_iter()
            .map(inner_pid)
            .collect();
        pids.sort_unstable();
        pids
    });
    assert_eq!(inner[0], inner[1]);

    let output = folder.path().join("trace");
    let capture = Capture::start_named(&name, &output, &[]).unwrap();
    let means = [Means::Fin, Means::Rst];
    std::thread::scope(|scope| {
        for number in 0..2 {
            let (container, nginx) = (&containers[number], &nginxes[number]);
            scope.spawn(move || {
                let fail = Behaviour::of(Kind::CloseWithoutAnswer(means[number]));
                let requests: Vec<_> = (0..EACH)
                    .flat_map(|n| {
                        let target = format!("/app/{number}-{n}");
                        [
                            Request::get("/app/good"),
                            Request::post(target, 3).asking(fail),
                        ]
                    })
                    .collect();
                container
                    .enter(|| Ok(load::run(nginx.address(), &requests, 2, false)))
                    .unwrap()
            });
        }
    });
    for nginx in &nginxes {
        wait_for("nginx's lines", PATIENCE, || {
            let lines = Nginx::upstream_lines_of(&nginx.stderr())?.len();
            Ok((lines >= EACH).then_some(()))
        })
        .unwrap();
    }
    capture.finish().unwrap().succeeded().unwrap();
    let report = report(&output);
    assert_eq!(report.incidents.len(), 2 * EACH);
    for (number, backend) in [&first, &second].into_iter().enumerate() {
        let workers = nginxes[number].workers().unwrap();
        let file = format!("stderr of nginx {}", nginxes[number].master_pid());
        let mut closes: BTreeMap<String, _> = backend
            .connections()
            .iter()
            .filter(|record| record.closed_because(Why::BeforeAnswer))
            .map(|record| (record.requests[0].target.clone(), record.remote))
            .collect();
        assert_eq!(closes.len(), EACH);
        for incident in report.incidents.iter().filter(|one| one.line.file == file) {
            assert_eq!(incident.matched, "exact", "{incident:#?}");
            let found = incident.connection.as_ref().unwrap();
            let nginx_end = closes.remove(incident.target().unwrap());
            assert_eq!(nginx_end, Some(found.local), "{incident:#?}");
            assert!(workers.contains(&found.worker_pid), "{incident:#?}");
            let fault = if number == 0 { "fin" } else { "rst" };
            assert_eq!(incident.means, fault, "{incident:#?}");
            assert_eq!(incident.cause, "closed-without-answer", "{incident:#?}");
            let master = nginxes[number].master_pid();
            let name = format!("{address} of nginx {master}");
            assert_eq!(incident.upstream, name);
            assert!(report.upstreams.iter().any(|one| one.address == name));
        }
        assert!(closes.is_empty(), "never told: {closes:?}");
    }
}

#[test]
fn lines_of_workers_that_a_reload_brought_into_a_container_are_matched() {
    let _alone = alone();
    for log in ["stderr", "logs/error.log"] {
        matched_after_a_reload(log);
    }
}

/// The lines of a log that is a file show inner pids alone.
#[track_caller]
fn matched_after_a_reload(log: &str) {
    let container = Container::create().unwrap();
    let backend = container
        .enter(|| Backend::start(IPV4, Habits::default()))
        .unwrap();
    let configuration = Configuration {
        error_logs: vec![log.to_owned()],
        ..Configuration::new(vec![Upstream::new("app", backend.address())])
    };
    let mut bench = Bench::before(container.nginx(&configuration).unwrap(), &[]);
    let old = bench.nginx.reload().unwrap();
    wait_for("the old workers to go", PATIENCE, || {
        Ok((!old.iter().any(|&pid| processes::is_alive(pid))).then_some(()))
    })
    .unwrap();
    // At once: the capture has not looked for new workers since.
    let fail = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    container
        .enter(|| {
            let mut client = Client::connect(bench.nginx.address())?;
            let request = Request::post("/app/new", 3).asking(fail);
            client.ask(&request)
        })
        .unwrap();
    let new = bench.nginx.workers().unwrap();
    let report = bench.report();
    let [incident] = report.incidents.as_slice() else {
        panic!("{:#?}", report.incidents)
    };
    assert_eq!(incident.matched, "exact", "{incident:#?}");
    let found = incident.connection.as_ref().unwrap();
    assert!(new.contains(&found.worker_pid));
    assert_eq!(found.local, backend.connections()[0].remote);
    let lines = records(&bench.trace(), "line");
    let line = lines
        .iter()
        .find(|line| line["text"].as_str().unwrap().contains("/app/new"))
        .unwrap();
    let inner = inner_pid(found.worker_pid);
    assert_ne!(inner, found.worker_pid);
    if log == "stderr" {
        assert_eq!(line["pid"], found.worker_pid);
    } else {
        let shown = format!(" {inner}#{inner}: ");
        assert!(line["text"].as_str().unwrap().contains(&shown), "{line}");
    }
}
