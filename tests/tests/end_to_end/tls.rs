//! Upstreams over TLS: what a line that is the same for every kind of end leaves open.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use lab::backend::IPV4;
use lab::clock::{PATIENCE, wait_for};
use lab::load::{Client, Request};
use lab::nginx::{Configuration, Upstream};
use lab::processes;
use lab::sockets::{self, State};

use crate::bench::{Bench, alone};
use crate::causes::only;

fn one_worker(upstream: Upstream) -> Configuration {
    Configuration {
        workers: 1,
        ..Configuration::new(vec![upstream])
    }
}

/// A TLS server whose plain text goes through its stdin and stdout.
struct TlsServer {
    child: Child,
    address: SocketAddr,
}

impl TlsServer {
    #[track_caller]
    fn start(folder: &std::path::Path) -> Self {
        let openssl = processes::which("openssl").expect("openssl");
        let (key, certificate) = (folder.join("key.pem"), folder.join("certificate.pem"));
        let made = Command::new(&openssl)
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
            .args(["ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=lab.test"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .stderr(Stdio::null())
            .status();
        assert!(made.unwrap().success());
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

/// That the FIN came before the request is plain without knowing how many requests
/// there were; yet the verdict is `closed-without-answer`, certain, and says that the
/// backend's host had acknowledged the request.
#[test]
fn a_fin_before_the_request_over_tls_is_not_charged_to_the_request() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let mut backend = TlsServer::start(folder.path());
    let upstream = Upstream::new("app", backend.address)
        .keepalive(4)
        .over_tls();
    let mut bench = Bench::start(&one_worker(upstream), &[]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    client.send(&Request::get("/app/first")).unwrap();
    backend.answer_one();
    assert_eq!(client.receive().unwrap().status, 200);
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
    drop(stopped);
    assert_eq!(client.receive().unwrap().status, 502);
    let report = bench.report();
    let incident = only(&report);
    assert_eq!(incident.matched, "exact", "{incident:#?}");
    let connection = incident.connection.as_ref().unwrap();
    assert_eq!(connection.local, pooled.local);
    assert_eq!((connection.requests, connection.reused), (None, None));
    // The backend's process was killed: that it was ended so, and not by an idle
    // timeout of its own, is the whole story.
    assert_eq!(incident.cause, "backend-killed", "{incident:#?}");
    let said = incident.evidence.join(". ");
    assert!(
        !said.contains("had acknowledged the whole request"),
        "{said}"
    );
}
