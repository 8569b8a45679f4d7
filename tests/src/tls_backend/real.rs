//! TLS servers that are not the lab's own: openssl's and nginx.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use super::Identity;
use crate::backend::IPV4;
use crate::clock::PATIENCE;
use crate::nginx::{Configuration, Nginx};
use crate::processes;

/// How often another port is tried if somebody took the chosen one.
const PORT_ATTEMPTS: u32 = 5;

/// `openssl s_server`, which reads requests and answers none; dropping it ends it.
#[derive(Debug)]
pub struct SServer {
    child: Child,
    address: SocketAddr,
    _files: TempDir,
}

impl SServer {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// If there is no openssl, or it does not start.
    pub fn start(identity: &Identity) -> Result<Self> {
        let files = tempfile::tempdir().context("no folder for a certificate")?;
        let (certificate, key) = identity.write(files.path())?;
        let openssl = processes::which("openssl").context("no program openssl")?;
        let mut child = processes::bound_to_us(&openssl)
            .args(["s_server", "-accept", "127.0.0.1:0", "-cert"])
            .arg(certificate)
            .arg("-key")
            .arg(key)
            // It would end with its input.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run openssl s_server")?;
        let address = accepting(&mut child);
        let Ok(address) = address else {
            processes::end(&mut child, Signal::KILL, PATIENCE);
            bail!("openssl s_server did not say where it listens: {address:?}");
        };
        Ok(Self {
            child,
            address,
            _files: files,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for SServer {
    fn drop(&mut self) {
        processes::end(&mut self.child, Signal::TERM, PATIENCE);
    }
}

/// It prints `ACCEPT 127.0.0.1:40001` where the port was left to the kernel
/// (apps/lib/s_socket.c `do_server`).
fn accepting(child: &mut Child) -> Result<SocketAddr> {
    let output = child.stdout.take().context("no pipe")?;
    for line in BufReader::new(output).lines() {
        if let Some(address) = line?.strip_prefix("ACCEPT ") {
            return Ok(address.trim().parse()?);
        }
    }
    bail!("it ended")
}

/// An nginx of its own that serves TLS on one more port.
#[derive(Debug)]
pub struct TlsNginx {
    address: SocketAddr,
    _nginx: Nginx,
    _files: TempDir,
}

impl TlsNginx {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// If it does not.
    pub fn start(identity: &Identity) -> Result<Self> {
        let files = tempfile::tempdir().context("no folder for a certificate")?;
        let (certificate, key) = identity.write(files.path())?;
        let mut attempt = 0;
        loop {
            let address = TcpListener::bind(IPV4)?.local_addr()?;
            let mut configuration = Configuration::new(Vec::new());
            configuration.workers = 1;
            configuration.http = format!(
                "server {{ listen {address} ssl; ssl_certificate {}; ssl_certificate_key {};
                 location / {{ return 200 ok; }} }}\n",
                certificate.display(),
                key.display(),
            );
            attempt += 1;
            match Nginx::start(&configuration) {
                Err(_) if attempt < PORT_ATTEMPTS => {}
                nginx => {
                    return Ok(Self {
                        address,
                        _nginx: nginx?,
                        _files: files,
                    });
                }
            }
        }
    }

    /// Where it speaks TLS.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
