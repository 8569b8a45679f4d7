//! nginx's other modules: FastCGI, uwsgi, SCGI, gRPC, memcached and stream. What ends an
//! attempt has the words that it has behind `proxy_pass`, on the connection that the
//! backend knows.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use lab::abrupt::{Abrupt, Deed, Seen};
use lab::backend::{IPV4, Refusing};
use lab::clock::PATIENCE;
use lab::load::{Client, Request};
use lab::nginx::{self, Configuration};
use lab::verdicts::{Incident, Report};

use crate::bench::{Bench, alone};
use crate::causes::says;

/// Name, scheme in lines, directives that pass a request to an address.
const MODULES: [(&str, &str, &str); 5] = [
    (
        "fastcgi",
        "fastcgi",
        "fastcgi_param QUERY_STRING a; fastcgi_pass ",
    ),
    ("uwsgi", "uwsgi", "uwsgi_param QUERY_STRING a; uwsgi_pass "),
    ("scgi", "scgi", "scgi_param QUERY_STRING a; scgi_pass "),
    (
        "memcached",
        "memcached",
        "set $memcached_key a; memcached_pass ",
    ),
    ("grpc", "grpc", "grpc_pass grpc://"),
];

/// Bytes that no module takes for the beginning of a response.
const NO_RESPONSE: &[u8] = b"\x00 this is \x01 nothing\r\n\r\n";

#[track_caller]
fn is_on(incident: &Incident, seen: Seen) {
    let connection = incident.connection.as_ref().unwrap();
    assert_eq!(connection.local, seen.remote, "{incident:#?}");
    assert_eq!(connection.remote, seen.local, "{incident:#?}");
    assert_eq!(incident.upstream, seen.local.to_string());
}

/// The only incident at a backend.
#[track_caller]
fn at(report: &Report, address: SocketAddr) -> &Incident {
    let wanted = address.to_string();
    let mut incidents = report
        .incidents
        .iter()
        .filter(|incident| incident.upstream == wanted);
    let first = incidents
        .next()
        .unwrap_or_else(|| panic!("none at {wanted}: {report:#?}"));
    assert!(incidents.next().is_none(), "{report:#?}");
    first
}

fn abrupt(deed: Deed) -> Abrupt {
    Abrupt::start(IPV4, deed).unwrap()
}

/// The backends of one module.
struct Five {
    fin: Abrupt,
    rst: Abrupt,
    silent: Abrupt,
    nonsense: Abrupt,
    nobody: Refusing,
}

impl Five {
    fn start() -> Self {
        Self {
            fin: abrupt(Deed::Fin),
            rst: abrupt(Deed::Rst),
            silent: abrupt(Deed::Wait),
            nonsense: abrupt(Deed::Write(NO_RESPONSE.to_vec())),
            nobody: Refusing::start(IPV4).unwrap(),
        }
    }

    fn addresses(&self) -> [(&'static str, SocketAddr); 5] {
        [
            ("fin", self.fin.address()),
            ("rst", self.rst.address()),
            ("silent", self.silent.address()),
            ("nonsense", self.nonsense.address()),
            ("nobody", self.nobody.address()),
        ]
    }
}

#[test]
fn every_module_has_the_verdicts_that_proxy_has() {
    let _alone = alone();
    let backends = MODULES.map(|_| Five::start());
    let mut locations = String::new();
    for ((name, _, pass), five) in MODULES.iter().zip(&backends) {
        for (deed, address) in five.addresses() {
            let timeout = format!("{name}_read_timeout 1s;");
            let _ = writeln!(
                locations,
                "location /{name}/{deed} {{ {pass}{address}; {timeout} }}"
            );
        }
    }
    let configuration = Configuration {
        workers: 1,
        more: locations,
        ..Configuration::new(Vec::new())
    };
    let mut bench = Bench::start(&configuration, &[]);
    for ((name, ..), five) in MODULES.iter().zip(&backends) {
        for (deed, _) in five.addresses() {
            let mut client = Client::connect(bench.nginx.address()).unwrap();
            let request = Request::get(format!("/{name}/{deed}"));
            let status = client.ask(&request).unwrap().status;
            let expected = if deed == "silent" { 504 } else { 502 };
            assert_eq!(status, expected, "{name} {deed}");
        }
    }
    let report = bench.report();
    for ((name, scheme, _), five) in MODULES.iter().zip(&backends) {
        let the = |backend: &Abrupt, words| {
            let incident = at(&report, backend.address());
            let upstream = incident.line.upstream.as_deref().unwrap();
            assert!(upstream.starts_with(&format!("{scheme}://")), "{upstream}");
            says(incident, words);
            is_on(incident, backend.only().unwrap());
            incident.evidence.join(". ")
        };
        let unanswered = "closed-without-answer";
        the(
            &five.fin,
            ["backend", "fin", "wait", unanswered, "sure", "exact"],
        );
        the(
            &five.rst,
            ["backend", "rst", "wait", unanswered, "sure", "exact"],
        );
        let said = the(
            &five.silent,
            [
                "nginx",
                "timeout",
                "wait",
                "read-timeout",
                "certain",
                "exact",
            ],
        );
        assert!(said.contains(&format!("{name}_read_timeout")), "{said}");
        the(
            &five.nonsense,
            [
                "nginx",
                "close",
                "header",
                "response-rejected",
                "certain",
                "exact",
            ],
        );
        let refused = at(&report, five.nobody.address());
        says(
            refused,
            [
                "backend",
                "refused",
                "connect",
                "connect-refused",
                "certain",
                "exact",
            ],
        );
    }
    assert_eq!(report.incidents.len(), 5 * MODULES.len(), "{report:#?}");
}

/// One session through nginx's stream module: sends something and reads to the end.
fn session(socket: &std::path::Path) {
    let mut client = UnixStream::connect(socket).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    // nginx may have closed it by then.
    let _ = client.write_all(b"hello there");
    let _ = client.read_to_end(&mut Vec::new());
}

#[test]
fn failures_of_stream_sessions_are_told_and_their_ordinary_ends_are_not() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let five = Five::start();
    let answering = abrupt(Deed::Write(b"hello to you".to_vec()));
    let socket = |name: &str| folder.path().join(name);
    let mut servers = String::new();
    let backends = [
        ("rst", five.rst.address()),
        ("silent", five.silent.address()),
        ("nobody", five.nobody.address()),
        ("fin", five.fin.address()),
        ("answering", answering.address()),
    ];
    for (name, address) in backends {
        let _ = writeln!(
            servers,
            "server {{ listen unix:{}; proxy_timeout 1s; proxy_pass {address}; }}",
            socket(name).display()
        );
    }
    let configuration = Configuration {
        workers: 1,
        log_level: Some("info"),
        main: format!(
            "{}stream {{\n{servers}}}\n",
            nginx::stream_loader().unwrap()
        ),
        ..Configuration::new(Vec::new())
    };
    let mut bench = Bench::start(&configuration, &[]);
    for (name, _) in backends {
        session(&socket(name));
    }
    let report = bench.report();
    let rst = at(&report, five.rst.address());
    says(
        rst,
        [
            "backend",
            "rst",
            "wait",
            "closed-without-answer",
            "sure",
            "exact",
        ],
    );
    is_on(rst, five.rst.only().unwrap());
    let silent = at(&report, five.silent.address());
    says(
        silent,
        [
            "nginx",
            "timeout",
            "wait",
            "read-timeout",
            "certain",
            "exact",
        ],
    );
    is_on(silent, five.silent.only().unwrap());
    let said = silent.evidence.join(". ");
    assert!(said.contains("proxy_timeout"), "{said}");
    let nobody = at(&report, five.nobody.address());
    says(
        nobody,
        [
            "backend",
            "refused",
            "connect",
            "connect-refused",
            "certain",
            "exact",
        ],
    );
    // A backend that ends a session with FIN ends it as it should.
    assert_eq!(report.incidents.len(), 3, "{report:#?}");
}
