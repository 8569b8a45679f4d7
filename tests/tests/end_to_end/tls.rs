//! Upstreams over TLS: what a line that is the same for every kind of end leaves open.
//! What is counted on them is in `tls_counts.rs`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lab::backend::{Backend, Habits, IPV4};
use lab::clock::{PATIENCE, now_ns, wait_for};
use lab::load::{Client, Request};
use lab::nginx::{Configuration, Upstream};
use lab::processes;
use lab::sockets::{self, Socket, State};
use lab::tls_backend::{Authority, Identity, Tls, Version};
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
pub(crate) fn certificate(folder: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
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
