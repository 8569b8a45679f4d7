//! Upstreams over TLS: handshakes are no requests; what a line that is the same for every
//! kind of end leaves open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use lab::backend::{Backend, Habits, IPV4};
use lab::clock::{PATIENCE, now_ns, wait_for};
use lab::load::{Client, Request};
use lab::nginx::{self, Configuration, Upstream};
use lab::processes;
use lab::sockets::{self, Socket, State};
use lab::tls_backend::{Authority, Identity, Tls, Version};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::bench::{Bench, alone, records};
use crate::causes::only;

fn one_worker(upstream: Upstream) -> Configuration {
    Configuration {
        workers: 1,
        ..Configuration::new(vec![upstream])
    }
}

/// Makes a key and a certificate of its own: their files.
#[track_caller]
fn certificate(folder: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let (key, certificate) = (folder.join("key.pem"), folder.join("certificate.pem"));
    let made = Command::new(processes::which("openssl").expect("openssl"))
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=lab.test"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    (key, certificate)
}

/// A TLS server whose plain text goes through its stdin and stdout.
struct TlsServer {
    child: Child,
    address: SocketAddr,
}

impl TlsServer {
    #[track_caller]
    fn start(folder: &Path) -> Self {
        let openssl = processes::which("openssl").expect("openssl");
        let (key, certificate) = certificate(folder);
        let address = TcpListener::bind(IPV4).unwrap().local_addr().unwrap();
        let mut child = Command::new(openssl)
            .args(["s_server", "-quiet", "-accept", &address.to_string()])
            .arg("-key")
            .arg(&key)
            .arg("-cert")
            .arg(&certificate)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let listening = wait_for("the TLS server", PATIENCE, || {
            let table = fs::read_to_string("/proc/net/tcp")?;
            let port = format!("0100007F:{:04X} 00000000:0000 0A", address.port());
            Ok(table.contains(&port).then_some(()))
        });
        if listening.is_err() {
            let _ = child.kill();
        }
        listening.unwrap();
        Self { child, address }
    }

    /// Waits for a request and answers it.
    #[track_caller]
    fn answer_one(&mut self) {
        let mut lines = BufReader::new(self.child.stdout.as_mut().unwrap());
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0);
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(answer).unwrap();
        stdin.flush().unwrap();
    }

    /// Dies without a word of TLS: the kernel sends the FIN.
    fn die(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.die();
    }
}

/// A request on a pooled connection whose backend has died meanwhile.
struct Race {
    bench: Bench,
    pooled: Socket,
    /// The pooled connection was silent from some time before this...
    quiet_ns: u64,
    /// ...until some time after this.
    resumed_ns: u64,
    _folder: TempDir,
}

#[track_caller]
fn race(protocol: &str) -> Race {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = TlsServer::start(folder.path());
    let upstream = Upstream::new("app", backend.address)
        .keepalive(4)
        .with(&format!("proxy_ssl_protocols {protocol};"))
        .over_tls();
    let bench = Bench::start(&one_worker(upstream), &[]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    client.send(&Request::get("/app/first")).unwrap();
    backend.answer_one();
    assert_eq!(client.receive().unwrap().status, 200);
    let quiet_ns = now_ns();
    // As in the races: the request waits for the worker first, then the FIN.
    let pooled = sockets::towards(backend.address).unwrap();
    let [pooled] = pooled.as_slice() else {
        panic!("{pooled:?}");
    };
    let stopped = bench.nginx.stop_workers().unwrap();
    client.send(&Request::post("/app/raced", 3)).unwrap();
    let end = [(client.remote(), client.local())];
    wait_for("the request to arrive at nginx", PATIENCE, || {
        let socket = sockets::find(&end)?[0];
        Ok(socket.filter(|socket| socket.unread > 0))
    })
    .unwrap();
    backend.die();
    wait_for("the FIN to arrive at nginx", PATIENCE, || {
        let socket = sockets::find(&[(pooled.local, pooled.remote)])?[0];
        Ok(socket.filter(|socket| socket.state == State::CLOSE_WAIT))
    })
    .unwrap();
    let resumed_ns = now_ns();
    drop(stopped);
    assert_eq!(client.receive().unwrap().status, 502);
    Race {
        bench,
        pooled: *pooled,
        quiet_ns,
        resumed_ns,
        _folder: folder,
    }
}

#[test]
fn a_fin_before_the_request_over_tls_is_not_charged_to_the_request() {
    let _alone = alone();
    let Race {
        mut bench, pooled, ..
    } = race("TLSv1.2");
    let report = bench.report();
    let incident = only(&report);
    assert_eq!(incident.matched, "exact", "{incident:#?}");
    let connection = incident.connection.as_ref().unwrap();
    assert_eq!(connection.local, pooled.local);
    assert_eq!(
        (connection.requests, connection.reused),
        (Some(2), Some(true))
    );
    // The backend's process was killed: that it was ended so, and not by an idle
    // timeout of its own, is the whole story.
    assert_eq!(incident.cause, "backend-killed", "{incident:#?}");
    let said = incident.evidence.join(". ");
    assert!(
        !said.contains("had acknowledged the whole request"),
        "{said}"
    );
}

/// nginx writes its line, a close_notify on the same connection, and closes that.
#[test]
fn a_refused_certificate_belongs_to_the_connection_that_it_came_on() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let trusted = Authority::new("lab authority").unwrap();
    let file = trusted.write(folder.path()).unwrap();
    for version in Version::ALL {
        let identity = Identity::self_signed("lab.test").unwrap();
        let tls = Tls::new(&identity, &[version]).unwrap();
        let backend = Backend::start_tls(IPV4, Habits::default(), tls).unwrap();
        let upstream = Upstream::new("app", backend.address())
            .with(&format!("proxy_ssl_protocols {};", version.name()))
            .with("proxy_ssl_verify on; proxy_ssl_name lab.test;")
            .with(&format!(
                "proxy_ssl_trusted_certificate {};",
                file.display()
            ))
            .over_tls();
        let mut bench = Bench::start(&one_worker(upstream), &[]);
        let mut client = Client::connect(bench.nginx.address()).unwrap();
        assert_eq!(client.ask(&Request::get("/app/x")).unwrap().status, 502);
        let report = bench.report();
        let incident = only(&report);
        assert_eq!(incident.matched, "exact", "{version:?}: {incident:#?}");
        assert_eq!(
            (incident.side.as_str(), incident.cause.as_str()),
            ("nginx", "tls-failure")
        );
        let connection = incident.connection.as_ref().unwrap();
        assert_eq!(connection.local, backend.connections()[0].remote);
    }
}

#[test]
fn a_stale_connection_over_tls_has_its_requests_and_its_idle_age() {
    let _alone = alone();
    for protocol in ["TLSv1.2", "TLSv1.3"] {
        let mut race = race(protocol);
        race.bench.finish();
        let ended_ns = now_ns();
        let connections = records(&race.bench.trace(), "connection");
        let [connection] = connections.as_slice() else {
            panic!("{protocol}: {connections:#?}");
        };
        let number = |name: &str| connection[name].as_u64();
        assert_eq!(connection["local"], race.pooled.local.to_string());
        assert_eq!(number("exchanges"), Some(2), "{protocol}: {connection:#?}");
        assert_eq!(number("exchanges_at_end"), Some(1), "{protocol}");
        assert!(
            number("handshake_ns") > number("established_ns"),
            "{protocol}"
        );
        assert!(
            number("handshake_ns") < number("request_started_ns"),
            "{protocol}"
        );
        let idle_ns = number("idle_before_ns").unwrap();
        assert!(
            idle_ns >= race.resumed_ns - race.quiet_ns,
            "{protocol}: {idle_ns}"
        );
        assert!(
            idle_ns < ended_ns - number("handshake_ns").unwrap(),
            "{protocol}"
        );
    }
}

/// An nginx of its own that serves TLS, and writes down each request of each connection.
struct TlsNginx {
    child: Child,
    /// For TLS 1.2 and 1.3.
    addresses: [SocketAddr; 2],
    folder: TempDir,
}

impl TlsNginx {
    /// It closes a connection after so many requests.
    #[track_caller]
    fn start(requests: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (key, certificate) = certificate(folder.path());
        let free = [(); 2].map(|()| TcpListener::bind(IPV4).unwrap());
        let addresses = free.map(|listener| listener.local_addr().unwrap());
        let path = folder.path().display();
        let server = |address: &SocketAddr, protocol: &str| {
            // In a location: nginx looks at keepalive_requests where it finds that.
            format!(
                "server {{ listen {address} ssl; ssl_protocols {protocol};
                 location / {{ return 200 ok; }} }}"
            )
        };
        let text = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;
             events {{ worker_connections 256; }}
             http {{ log_format lab '$server_port $connection $remote_port $ssl_session_reused';
               access_log {path}/access.log lab; keepalive_requests {requests};
               client_body_temp_path {path}/1; proxy_temp_path {path}/2;
               fastcgi_temp_path {path}/3; uwsgi_temp_path {path}/4; scgi_temp_path {path}/5;
               ssl_certificate {certificate}; ssl_certificate_key {key};
               {} {} }}",
            server(&addresses[0], "TLSv1.2"),
            server(&addresses[1], "TLSv1.3"),
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
            Ok(addresses
                .iter()
                .all(|address| std::net::TcpStream::connect(address).is_ok())
                .then_some(()))
        })
        .unwrap();
        this
    }

    /// Requests of each connection by the ports of both ends, oldest first, and whether
    /// sessions were resumed (`r`) or not (`.`), by the server's port.
    #[track_caller]
    fn served(&self) -> (Counts, BTreeSet<(u64, String)>) {
        let text = fs::read_to_string(self.folder.path().join("access.log")).unwrap();
        let mut requests = BTreeMap::<(u64, u64, u64), u64>::new();
        let mut sessions = BTreeSet::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<u64>().unwrap();
            *requests
                .entry((number(0), number(2), number(1)))
                .or_default() += 1;
            sessions.insert((number(0), words[3].to_owned()));
        }
        let mut counts = Counts::new();
        for ((server, client, _), count) in requests {
            counts.entry((server, client)).or_default().push(count);
        }
        (counts, sessions)
    }
}

impl Drop for TlsNginx {
    fn drop(&mut self) {
        processes::end(&mut self.child, Signal::TERM, PATIENCE);
    }
}

/// Requests of the connections between two ports, in their order.
type Counts = BTreeMap<(u64, u64), Vec<u64>>;

#[test]
fn requests_over_tls_are_counted_as_the_backend_counts_them() {
    const CLIENTS: u64 = 4;
    const REQUESTS: u64 = 60;
    let _alone = alone();
    let backend = TlsNginx::start(5);
    let upstream = |name: &str, at: usize, protocol: &str| {
        Upstream::new(name, backend.addresses[at])
            .keepalive(4)
            .with(&format!("proxy_ssl_protocols {protocol};"))
            .over_tls()
    };
    let upstreams = vec![
        upstream("two", 0, "TLSv1.2"),
        upstream("three", 1, "TLSv1.3"),
    ];
    let mut bench = Bench::start(&Configuration::new(upstreams), &[]);
    let address = bench.nginx.address();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::connect(address).unwrap();
                for _ in 0..REQUESTS {
                    for target in ["/two/x", "/three/x"] {
                        assert_eq!(client.ask(&Request::get(target)).unwrap().status, 200);
                    }
                }
            });
        }
    });
    bench.finish();
    let (served, sessions) = backend.served();
    for address in backend.addresses {
        for session in [".", "r"] {
            let seen = (u64::from(address.port()), session.to_owned());
            assert!(sessions.contains(&seen), "{seen:?} is not in {sessions:?}");
        }
    }

    let port = |end: &Value| {
        let address: SocketAddr = end.as_str().unwrap().parse().unwrap();
        u64::from(address.port())
    };
    let mut connections = records(&bench.trace(), "connection");
    connections.sort_by_key(|connection| connection["opened_ns"].as_u64());
    let mut counted = Counts::new();
    for connection in &connections {
        assert!(connection["handshake_ns"].is_u64(), "{connection:#?}");
        let ends = (port(&connection["remote"]), port(&connection["local"]));
        let exchanges = connection["exchanges"].as_u64().unwrap();
        counted.entry(ends).or_default().push(exchanges);
    }
    assert_eq!(counted, served);
    for address in backend.addresses {
        let own = u64::from(address.port());
        let upstreams = records(&bench.trace(), "upstream");
        let exchanges: u64 = upstreams
            .iter()
            .filter(|upstream| upstream["port"] == own)
            .map(|upstream| upstream["exchanges"].as_u64().unwrap())
            .sum();
        assert_eq!(exchanges, CLIENTS * REQUESTS);
    }
}
