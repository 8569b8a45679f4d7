//! Error logs that are no files: what a capture reads, what it takes from nginx's own
//! calls, and that it does so only where it must.

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};

use lab::attached::{FOR_LOGS_WITHOUT_FILES, held_by};
use lab::backend::{Backend, Habits, IPV4};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, wait_for};
use lab::load::{self, Request};
use lab::nginx::{Configuration, Nginx, Upstream};
use lab::verdicts::Report;

use crate::bench::{Bench, alone};

const COUNT: usize = 30;

/// Requests that fail at a time.
const AT_ONCE: usize = 3;

fn failures() -> Vec<Request> {
    let fail = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    (0..COUNT)
        .map(|n| Request::post(format!("/app/{n}"), 3).asking(fail))
        .collect()
}

fn fail(bench: &Bench) {
    let _ = load::run(bench.nginx.address(), &failures(), AT_ONCE, true);
}

/// Each close that the backend recorded is told once, from this log.
#[track_caller]
fn each_is_told_once(report: &Report, backend: &Backend, file: &str) {
    let mut closes: std::collections::BTreeMap<String, SocketAddr> = backend
        .connections()
        .iter()
        .map(|record| (record.requests[0].target.clone(), record.remote))
        .collect();
    assert_eq!(closes.len(), COUNT);
    for incident in &report.incidents {
        assert_eq!(incident.matched, "exact", "{incident:#?}");
        assert_eq!(incident.line.file, file, "{incident:#?}");
        let found = incident.connection.as_ref().unwrap();
        let nginx_end = closes.remove(incident.target().unwrap());
        assert_eq!(nginx_end, Some(found.local), "{incident:#?}");
    }
    assert!(closes.is_empty(), "never told: {closes:?}");
}

/// Are nginx's write calls looked at?
#[track_caller]
fn sees_writes(bench: &Bench) -> bool {
    let held = held_by(bench.capture().pid()).unwrap();
    let mut tracepoints = held
        .links
        .values()
        .filter_map(|link| link.tracepoint.clone());
    tracepoints.any(|tracepoint| tracepoint == FOR_LOGS_WITHOUT_FILES.hooks[0].name())
}

fn configured(backend: &Backend, error_logs: &[&str]) -> Configuration {
    Configuration {
        error_logs: error_logs.iter().map(|&log| log.to_owned()).collect(),
        ..Configuration::new(vec![Upstream::new("app", backend.address())])
    }
}

#[test]
fn a_stderr_that_is_a_file_is_followed_as_a_file() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let mut bench = Bench::start(&configured(&backend, &["stderr"]), &[]);
    assert!(!sees_writes(&bench));
    fail(&bench);
    let file = bench.nginx.stderr().to_str().unwrap().to_owned();
    each_is_told_once(&bench.report(), &backend, &file);
}

#[test]
fn a_stderr_that_is_a_pipe_is_taken_from_nginxs_calls() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    // The same pipe under two names: nginx writes each line twice.
    let configuration = configured(&backend, &["stderr", "/dev/stderr"]);
    let mut bench = Bench::before(Nginx::start_piped(&configuration).unwrap(), &[]);
    assert!(sees_writes(&bench));
    fail(&bench);
    wait_for("nginx's lines", PATIENCE, || {
        let lines = Nginx::upstream_lines_of(&bench.nginx.stderr())?;
        Ok((lines.len() >= 2 * COUNT).then_some(()))
    })
    .unwrap();
    let file = format!("stderr of nginx {}", bench.nginx.master_pid());
    each_is_told_once(&bench.report(), &backend, &file);
}

#[test]
fn a_terminal_or_a_service_managers_socket_is_taken_from_nginxs_calls() {
    let _alone = alone();
    for start in [Nginx::start_at_terminal, Nginx::start_journalled] {
        let backend = Backend::start(IPV4, Habits::default()).unwrap();
        let mut bench = Bench::before(start(&configured(&backend, &["stderr"])).unwrap(), &[]);
        assert!(sees_writes(&bench));
        fail(&bench);
        wait_for("nginx's lines", PATIENCE, || {
            let lines = Nginx::upstream_lines_of(&bench.nginx.stderr())?;
            Ok((lines.len() >= COUNT).then_some(()))
        })
        .unwrap();
        let file = format!("stderr of nginx {}", bench.nginx.master_pid());
        each_is_told_once(&bench.report(), &backend, &file);
    }
}

#[test]
fn a_pipe_beside_a_file_costs_nothing() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let configuration = configured(&backend, &["stderr", "logs/error.log"]);
    let mut bench = Bench::before(Nginx::start_piped(&configuration).unwrap(), &[]);
    assert!(!sees_writes(&bench));
    fail(&bench);
    let file = bench.nginx.error_log().to_str().unwrap().to_owned();
    each_is_told_once(&bench.report(), &backend, &file);
}

#[test]
fn a_log_that_goes_nowhere_is_taken_from_nginxs_calls_if_there_is_no_other() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let mut bench = Bench::start(&configured(&backend, &["/dev/null"]), &[]);
    fail(&bench);
    let file = format!("/dev/null of nginx {}", bench.nginx.master_pid());
    each_is_told_once(&bench.report(), &backend, &file);
}

/// What came to a syslog server: each datagram, as text.
type Received = Arc<Mutex<Vec<String>>>;

fn receive(read: impl Fn(&mut [u8]) -> std::io::Result<usize> + Send + 'static) -> Received {
    let received = Received::default();
    let sink = Arc::clone(&received);
    std::thread::spawn(move || {
        let mut datagram = vec![0; 1 << 16];
        // Until the test's process ends.
        while let Ok(length) = read(&mut datagram) {
            let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
            sink.lock().unwrap().push(text);
        }
    });
    received
}

#[test]
fn lines_that_go_to_syslog_are_taken_from_nginxs_calls() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("syslog");
    let unix = UnixDatagram::bind(&path).unwrap();
    // nginx's workers are nobody.
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(folder.path(), mode(0o755)).unwrap();
    std::fs::set_permissions(&path, mode(0o777)).unwrap();
    let udp = UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = udp.local_addr().unwrap().port();
    let over_udp = receive(move |datagram| udp.recv(datagram));
    let over_unix = receive(move |datagram| unix.recv(datagram));
    let configuration = Configuration {
        http: format!(
            "error_log syslog:server=127.0.0.1:{port},tag=lab;
             error_log syslog:server=unix:{},nohostname,facility=user,severity=info;
             access_log syslog:server=127.0.0.1:{port};\n",
            path.display()
        ),
        ..configured(&backend, &["logs/error.log"])
    };
    let mut bench = Bench::start(&configuration, &[]);
    assert!(sees_writes(&bench));
    let lines = |received: &Received| {
        let received = received.lock().unwrap();
        let lines = received
            .iter()
            .filter(|text| text.contains(", upstream: \""));
        lines.count()
    };
    let mut failed = 0;
    // nginx does not wait for a server of syslog: the queue of a unix socket holds ten
    // datagrams by default (net.unix.max_dgram_qlen), and what finds it full is dropped.
    for some in failures().chunks(AT_ONCE) {
        let _ = load::run(bench.nginx.address(), some, AT_ONCE, true);
        failed += some.len();
        wait_for("the datagrams", PATIENCE, || {
            let all = lines(&over_udp) >= failed && lines(&over_unix) >= failed;
            Ok(all.then_some(()))
        })
        .unwrap();
    }
    assert!(over_unix.lock().unwrap()[0].starts_with('<'));
    let file = format!("syslog of nginx {}", bench.nginx.master_pid());
    each_is_told_once(&bench.report(), &backend, &file);
}
