//! Requests over TLS, connection by connection, as the backend counts them: handshakes,
//! tickets and farewells are no requests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use lab::backend::{Backend, Habits, IPV4};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::clock::{PATIENCE, wait_for};
use lab::load::{Client, Request};
use lab::nginx::{self, Configuration, Upstream};
use lab::processes;
use lab::tls_backend::{BOTH_VERSIONS, Identity, Tls, Version};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::bench::{Bench, alone, records};
use crate::tls::certificate;

/// Connections in all.
const CONNECTIONS: usize = 1000;
/// Clients at once.
const CLIENTS: usize = 4;

/// One way to use connections over TLS.
#[derive(Clone, Copy, Debug)]
struct Way {
    protocol: &'static str,
    /// nginx offers the session of an earlier connection (`proxy_ssl_session_reuse`).
    resumes: bool,
    /// Requests on each connection...
    requests: usize,
    /// ...after which the backend closes it, or else nginx.
    backend_closes: bool,
}

/// Each version, full and resumed, closed by either side.
fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for protocol in ["TLSv1.2", "TLSv1.3"] {
        for resumes in [false, true] {
            for backend_closes in [false, true] {
                ways.push(Way {
                    protocol,
                    resumes,
                    requests: 1 + ways.len() % 5,
                    backend_closes,
                });
            }
        }
    }
    ways
}

/// An nginx of its own that serves TLS, and writes down each request of each connection.
struct TlsNginx {
    child: Child,
    /// One for each way.
    addresses: Vec<SocketAddr>,
    folder: TempDir,
}

impl TlsNginx {
    #[track_caller]
    fn start(ways: &[Way]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (key, certificate) = certificate(folder.path());
        let free: Vec<_> = ways
            .iter()
            .map(|_| TcpListener::bind(IPV4).unwrap())
            .collect();
        let addresses: Vec<_> = free
            .iter()
            .map(|listener| listener.local_addr().unwrap())
            .collect();
        drop(free);
        let mut servers = String::new();
        for (way, address) in ways.iter().zip(&addresses) {
            let most = if way.backend_closes {
                way.requests
            } else {
                100_000
            };
            // In a location: nginx looks at keepalive_requests where it finds that.
            writeln!(
                servers,
                "server {{ listen {address} ssl; ssl_protocols {}; keepalive_requests {most};
                 location / {{ return 200 ok; }} }}",
                way.protocol
            )
            .unwrap();
        }
        let path = folder.path().display();
        let text = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;
             events {{ worker_connections 1024; }}
             http {{ log_format lab '$server_port $connection $remote_port $ssl_session_reused';
               access_log {path}/access.log lab;
               client_body_temp_path {path}/1; proxy_temp_path {path}/2;
               fastcgi_temp_path {path}/3; uwsgi_temp_path {path}/4; scgi_temp_path {path}/5;
               ssl_certificate {certificate}; ssl_certificate_key {key};
               {servers} }}",
            certificate = certificate.display(),
            key = key.display(),
        );
        let configuration = folder.path().join("nginx.conf");
        fs::write(&configuration, text).unwrap();
        let child = processes::bound_to_us(&nginx::binary().unwrap())
            .arg("-p")
            .arg(folder.path())
            .args(["-e", "error.log", "-c"])
            .arg(&configuration)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self {
            child,
            addresses,
            folder,
        };
        wait_for("the TLS nginx to serve", PATIENCE, || {
            let serves = |address| TcpStream::connect(address).is_ok();
            Ok(this.addresses.iter().all(serves).then_some(()))
        })
        .unwrap();
        this
    }

    /// What it wrote down.
    #[track_caller]
    fn served(&self) -> Served {
        let text = fs::read_to_string(self.folder.path().join("access.log")).unwrap();
        let mut requests = BTreeMap::<(u64, u64, u64), u64>::new();
        let mut served = Served::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<u64>().unwrap();
            let connection = (number(0), number(2), number(1));
            let count = requests.entry(connection).or_default();
            *count += 1;
            if *count == 1 {
                let sessions = served.sessions.entry(number(0)).or_default();
                sessions[usize::from(words[3] == "r")] += 1;
            }
        }
        for ((server, client, _), count) in requests {
            let ends = (server, client);
            served.counts.entry(ends).or_default().push(count);
        }
        served
    }
}

impl Drop for TlsNginx {
    fn drop(&mut self) {
        processes::end(&mut self.child, Signal::TERM, PATIENCE);
    }
}

/// Requests of the connections between two ports, in their order.
type Counts = BTreeMap<(u64, u64), Vec<u64>>;

#[derive(Default)]
struct Served {
    counts: Counts,
    /// Connections whose handshake was full, and resumed, by the server's port.
    sessions: BTreeMap<u64, [usize; 2]>,
}

/// nginx before that backend, each way below a path of its own.
fn configuration(ways: &[Way], backend: &TlsNginx) -> Configuration {
    let mut configuration = Configuration::new(Vec::new());
    for (number, (way, address)) in ways.iter().zip(&backend.addresses).enumerate() {
        let most = if way.backend_closes {
            100_000
        } else {
            way.requests
        };
        writeln!(
            configuration.http,
            "upstream way{number} {{ server {address}; keepalive {CLIENTS};
             keepalive_requests {most}; }}"
        )
        .unwrap();
        let resumes = if way.resumes { "on" } else { "off" };
        writeln!(
            configuration.more,
            "location /{number}/ {{ proxy_pass https://way{number};
             proxy_set_header Connection \"\"; proxy_ssl_protocols {};
             proxy_ssl_session_reuse {resumes}; }}",
            way.protocol
        )
        .unwrap();
    }
    configuration
}

#[test]
fn requests_of_a_thousand_connections_over_tls_are_those_that_the_backend_counts() {
    let _alone = alone();
    let ways = ways();
    let backend = TlsNginx::start(&ways);
    let mut bench = Bench::start(&configuration(&ways, &backend), &[]);
    let address = bench.nginx.address();
    // The pools keep some connections that are not used up, CLIENTS in a worker at most.
    let each = CONNECTIONS / ways.len() + 1;
    let done: Vec<AtomicUsize> = ways.iter().map(|_| AtomicUsize::new(0)).collect();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::connect(address).unwrap();
                let mut working = true;
                while working {
                    working = false;
                    for (number, way) in ways.iter().enumerate() {
                        let asked = done[number].fetch_add(1, Ordering::Relaxed);
                        if asked < each * way.requests {
                            let request = Request::get(format!("/{number}/x"));
                            assert_eq!(client.ask(&request).unwrap().status, 200);
                            working = true;
                        }
                    }
                }
            });
        }
    });
    let report = bench.report();
    let served = backend.served();
    let connections = served.counts.values().map(Vec::len).sum::<usize>();
    assert!(connections >= CONNECTIONS, "{connections}");
    for (way, address) in ways.iter().zip(&backend.addresses) {
        let [full, resumed] = served.sessions[&u64::from(address.port())];
        if way.resumes {
            assert!(resumed > full, "{way:?}: {resumed} of {}", full + resumed);
        } else {
            assert_eq!(resumed, 0, "{way:?}");
        }
    }

    let port = |end: &Value| {
        let address: SocketAddr = end.as_str().unwrap().parse().unwrap();
        u64::from(address.port())
    };
    let mut records = records(&bench.trace(), "connection");
    records.sort_by_key(|connection| connection["opened_ns"].as_u64());
    let mut counted = Counts::new();
    for connection in &records {
        assert!(connection["handshake_ns"].is_u64(), "{connection:#?}");
        let ends = (port(&connection["remote"]), port(&connection["local"]));
        let exchanges = connection["exchanges"].as_u64().unwrap();
        counted.entry(ends).or_default().push(exchanges);
    }
    assert_eq!(counted, served.counts);
    for (way, address) in ways.iter().zip(&backend.addresses) {
        let own = address.to_string();
        let upstream = report.upstreams.iter().find(|one| one.address == own);
        let upstream = upstream.unwrap();
        let asked = u64::try_from(each * way.requests).unwrap();
        assert_eq!(upstream.requests, Some(asked), "{way:?}");
        let served = served
            .counts
            .iter()
            .filter(|((port, _), _)| *port == u64::from(address.port()));
        let connections: usize = served.map(|(_, counts)| counts.len()).sum();
        assert_eq!(usize::try_from(upstream.connections).unwrap(), connections);
    }
}

/// Without the uprobes nobody can tell flights of a handshake from requests.
#[test]
fn requests_over_tls_are_unknown_where_handshakes_are_not_seen() {
    const SERVED: u64 = 4;
    let _alone = alone();
    let identity = Identity::self_signed("lab.test").unwrap();
    let tls = Tls::new(&identity, &Version::ALL).unwrap();
    let secret = Backend::start_tls(IPV4, Habits::default(), tls).unwrap();
    let plain = Backend::start(IPV4, Habits::default()).unwrap();
    let upstreams = vec![
        Upstream::new("secret", secret.address())
            .keepalive(4)
            .with(BOTH_VERSIONS)
            .over_tls(),
        Upstream::new("plain", plain.address()).keepalive(4),
    ];
    let mut bench = Bench::start(&Configuration::new(upstreams), &["--no-uprobe"]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    let close = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
    for name in ["secret", "plain"] {
        for number in 0..SERVED {
            let request = Request::get(format!("/{name}/{number}"));
            assert_eq!(client.ask(&request).unwrap().status, 200);
        }
        let request = Request::post(format!("/{name}/closed"), 8).asking(close);
        assert_eq!(client.ask(&request).unwrap().status, 502);
    }
    let report = bench.report();
    for backend in [&secret, &plain] {
        let address = backend.address().to_string();
        let mut upstreams = report.upstreams.iter();
        let upstream = upstreams.find(|one| one.address == address).unwrap();
        let mut incidents = report.incidents.iter();
        let incident = incidents.find(|one| one.upstream == address).unwrap();
        let connection = incident.connection.as_ref().unwrap();
        let [record] = backend.connections().try_into().unwrap();
        assert_eq!(connection.local, record.remote);
        assert_eq!(incident.cause, "closed-without-answer", "{incident:#?}");
        let known = address == plain.address().to_string();
        let all = u64::try_from(record.requests.len()).unwrap();
        assert_eq!(all, SERVED + 1);
        assert_eq!(upstream.requests, known.then_some(all));
        let own = connection.requests.map(u64::from);
        assert_eq!(own, known.then_some(all), "{incident:#?}");
        // More exchanges than any handshake has flights.
        assert_eq!(connection.reused, Some(true), "{incident:#?}");
    }
    let told = |note: &String| note.contains("cannot be told from handshakes");
    assert!(report.notes.iter().any(told), "{:#?}", report.notes);
}
