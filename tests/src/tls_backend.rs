//! What makes a [`Backend`](crate::backend::Backend) speak TLS: its certificate, the
//! versions that it speaks, what it does in the handshake and whether it says farewell.
//! How it serves and remembers stays in [`crate::backend`]. Beside it, TLS servers that
//! are not the lab's own.

mod authority;
mod real;
mod transport;

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde::{Deserialize, Serialize};

pub use authority::{Authority, Identity, Validity};
pub use real::{SServer, TlsNginx};
pub(crate) use transport::Transport;

use crate::backend::{Backend, Habits, IPV4};
use crate::behaviour::Means;
use crate::draw::Draw;
use crate::nginx::Upstream;

/// Both versions in nginx's configuration: without it nginx before 1.27.3 offers no 1.3.
pub const BOTH_VERSIONS: &str = "proxy_ssl_protocols TLSv1.2 TLSv1.3;";

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl Version {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tls12, Self::Tls13];

    /// Its name in nginx's `proxy_ssl_protocols`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }

    fn supported(self) -> &'static SupportedProtocolVersion {
        match self {
            Self::Tls12 => &rustls::version::TLS12,
            Self::Tls13 => &rustls::version::TLS13,
        }
    }
}

/// What a backend does in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshaking {
    /// Finishes it, if it can.
    Finish,
    /// Ends the connection once nginx's first flight is there, without a byte.
    EndAfterHello(Means),
    /// Ends it once nginx's second flight is there. (In TLS 1.3 nginx has finished then,
    /// and only the backend has not.)
    EndAfterFlight(Means),
    /// Says nothing until nginx goes.
    Stall,
}

/// How a backend speaks TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) handshaking: Handshaking,
    pub(crate) farewell: bool,
}

impl Tls {
    /// With this certificate and any of these versions; says no farewell.
    ///
    /// # Errors
    /// If the certificate is of no use to the library.
    pub fn new(identity: &Identity, versions: &[Version]) -> Result<Self> {
        Self::with(identity, versions, None)
    }

    /// The same, demanding a certificate by `clients` from nginx.
    ///
    /// # Errors
    /// As [`Tls::new`].
    pub fn demanding(
        identity: &Identity,
        versions: &[Version],
        clients: &Authority,
    ) -> Result<Self> {
        Self::with(identity, versions, Some(clients))
    }

    fn with(
        identity: &Identity,
        versions: &[Version],
        clients: Option<&Authority>,
    ) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions: Vec<_> = versions.iter().map(|version| version.supported()).collect();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .context("no such version of TLS")?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der())?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let config = builder
            .with_single_cert(identity.chain(), identity.key())
            .context("the certificate does not fit its key")?;
        Ok(Self {
            config: Arc::new(config),
            handshaking: Handshaking::Finish,
            farewell: false,
        })
    }

    /// The same, doing this in the handshake.
    #[must_use]
    pub fn handshaking(mut self, handshaking: Handshaking) -> Self {
        self.handshaking = handshaking;
        self
    }

    /// The same, with a close_notify before each FIN, or without.
    #[must_use]
    pub fn farewell(mut self, farewell: bool) -> Self {
        self.farewell = farewell;
        self
    }
}

/// A backend without habits, plain or over TLS as drawn, and the block before it.
///
/// # Errors
/// If it cannot be started.
pub fn either(draw: &mut Draw, name: &str) -> Result<(Backend, Upstream)> {
    if draw.coin() {
        let backend = Backend::start(IPV4, Habits::default())?;
        let upstream = Upstream::new(name, backend.address());
        return Ok((backend, upstream));
    }
    let version = draw.one_of(&Version::ALL);
    let tls = Tls::new(&Identity::self_signed("lab.test")?, &[version])?;
    let backend = Backend::start_tls(IPV4, Habits::default(), tls)?;
    let upstream = Upstream::new(name, backend.address())
        .over_tls()
        .with(&format!("proxy_ssl_protocols {};", version.name()));
    Ok((backend, upstream))
}

/// What a backend remembers of a connection's TLS.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Session {
    /// When its handshake was done on this side.
    pub done_ns: Option<u64>,
    /// The version agreed on.
    pub version: Option<Version>,
    /// Why there was no handshake, in the library's words; an alert told nginx, unless it
    /// was nginx's own that ended it.
    pub failed: Option<String>,
    /// A close_notify went before the FIN.
    pub farewell: bool,
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind, Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, StreamOwned};

    use super::*;
    use crate::backend::{Connection, Idle, Why};
    use crate::clock::PATIENCE;

    type Stream = StreamOwned<ClientConnection, TcpStream>;

    #[track_caller]
    fn connect(backend: &Backend, trusted: &Authority, version: Version) -> Stream {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version.supported()])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("lab.test").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(backend.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        StreamOwned::new(session, stream)
    }

    /// The answer, and what came instead of an end.
    fn ask(stream: &mut Stream, target: &str) -> (String, Option<Error>) {
        let request = format!("GET {target} HTTP/1.1\r\nHost: lab.test\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let error = stream.read_to_end(&mut answer).err();
        (String::from_utf8(answer).unwrap(), error)
    }

    #[track_caller]
    fn ended(backend: &Backend) -> Connection {
        let all = |records: &[Connection]| {
            !records.is_empty() && records.iter().all(|record| !record.is_open())
        };
        let records = backend.wait_until("the end", PATIENCE, all).unwrap();
        records.last().unwrap().clone()
    }

    #[test]
    fn a_backend_over_tls_answers_records_and_ends_as_told() {
        let authority = Authority::new("lab authority").unwrap();
        let identity = authority.issue("lab.test", Validity::Now).unwrap();
        for version in Version::ALL {
            for (means, farewell) in [(Means::Fin, false), (Means::Fin, true), (Means::Rst, false)]
            {
                let idle = Some(Idle {
                    after: Duration::from_millis(20),
                    means,
                });
                let habits = Habits {
                    idle,
                    ..Habits::default()
                };
                let tls = Tls::new(&identity, &Version::ALL)
                    .unwrap()
                    .farewell(farewell);
                let backend = Backend::start_tls(IPV4, habits, tls).unwrap();
                let mut stream = connect(&backend, &authority, version);
                let (answer, error) = ask(&mut stream, "/x");
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                let expected = match (means.resets(), farewell) {
                    (true, _) => Some(ErrorKind::ConnectionReset),
                    (false, false) => Some(ErrorKind::UnexpectedEof),
                    (false, true) => None,
                };
                assert_eq!(error.map(|error| error.kind()), expected);
                let connection = ended(&backend);
                assert_eq!(connection.requests[0].target, "/x");
                assert!(connection.closed_because(Why::Idle));
                let session = connection.tls.unwrap();
                assert_eq!(
                    (session.version, session.farewell),
                    (Some(version), farewell)
                );
                assert!(session.done_ns.unwrap() < connection.requests[0].read_ns);
            }
        }
    }

    #[test]
    fn plain_bytes_get_an_alert_and_the_reason_stands_in_the_record() {
        let identity = Identity::self_signed("lab.test").unwrap();
        let tls = Tls::new(&identity, &Version::ALL).unwrap();
        let backend = Backend::start_tls(IPV4, Habits::default(), tls).unwrap();
        let mut stream = TcpStream::connect(backend.address()).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!((answer.len(), answer[0]), (7, 0x15), "{answer:?}");
        drop(stream);
        let connection = ended(&backend);
        assert!(connection.closed_because(Why::HandshakeFailed));
        assert!(connection.tls.unwrap().failed.is_some());
    }

    #[test]
    fn a_handshake_ends_where_it_was_told_to() {
        let authority = Authority::new("lab authority").unwrap();
        let identity = authority.issue("lab.test", Validity::Now).unwrap();
        for handshaking in [
            Handshaking::EndAfterHello(Means::Fin),
            Handshaking::EndAfterFlight(Means::Rst),
        ] {
            let tls = Tls::new(&identity, &[Version::Tls12])
                .unwrap()
                .handshaking(handshaking);
            let backend = Backend::start_tls(IPV4, Habits::default(), tls).unwrap();
            let mut stream = connect(&backend, &authority, Version::Tls12);
            assert!(stream.write_all(b"x").is_err(), "{handshaking:?}");
            let connection = ended(&backend);
            assert!(connection.closed_because(Why::InHandshake));
            assert!(connection.requests.is_empty());
        }
    }
}
