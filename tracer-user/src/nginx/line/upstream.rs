//! The `upstream: "..."` field: scheme and peer.

use std::net::SocketAddr;

/// Whom a line names as its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamAddress<'a> {
    /// `http`, `https`, `fastcgi`, `uwsgi`, `suwsgi`, `scgi`, `memcached`, `grpc`,
    /// `grpcs`; empty for the stream module, which prints none.
    pub scheme: &'a str,
    /// The peer.
    pub peer: UpstreamPeer<'a>,
}

/// The peer's name as nginx's balancer gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamPeer<'a> {
    /// Address and port, the usual case.
    Peer(SocketAddr),
    /// Path of a unix socket.
    Unix(&'a str),
    /// Name of the upstream block (`no live upstreams`).
    Name(&'a str),
}

impl<'a> UpstreamAddress<'a> {
    /// Reads the field's value. `request` is the line's request line: it helps to find
    /// where a unix socket's path ends.
    pub(super) fn parse(value: &'a str, request: Option<&str>) -> Option<Self> {
        let (scheme, rest) = match value.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                (scheme, rest)
            }
            _ => ("", value),
        };
        let peer = match rest.strip_prefix("unix:") {
            Some(rest) => UpstreamPeer::Unix(socket_path(rest, request)),
            None => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                let authority = &rest[..end];
                if authority.is_empty() {
                    return None;
                }
                match authority.parse() {
                    Ok(address) => UpstreamPeer::Peer(address),
                    Err(_) => UpstreamPeer::Name(authority),
                }
            }
        };
        Some(Self { scheme, peer })
    }

    /// Does nginx speak TLS to it?
    #[must_use]
    pub fn is_tls(&self) -> bool {
        ["https", "grpcs", "suwsgi"].contains(&self.scheme)
    }

    /// Address and port, if it has them.
    #[must_use]
    pub fn socket_address(&self) -> Option<SocketAddr> {
        match self.peer {
            UpstreamPeer::Peer(address) => Some(address),
            UpstreamPeer::Unix(_) | UpstreamPeer::Name(_) => None,
        }
    }
}

/// The path in `PATH:URI`. nginx omits the colon in `upstream timed out` lines: it has
/// released the peer before it logs them (`ngx_http_upstream_next`).
fn socket_path<'a>(rest: &'a str, request: Option<&str>) -> &'a str {
    let target = request
        .and_then(|request| request.split_once(' '))
        .map(|(_, rest)| {
            rest.trim_end_matches(' ')
                .rsplit_once(" HTTP/")
                .map_or(rest, |(target, _)| target)
        });
    if let Some(path) = target
        .filter(|target| target.starts_with('/'))
        .and_then(|target| rest.strip_suffix(target))
        .filter(|path| !path.is_empty())
    {
        return path.strip_suffix(':').unwrap_or(path);
    }
    if let Some((path, _)) = rest.split_once(':') {
        return path;
    }
    match rest.find(".sock/") {
        Some(at) => &rest[..at + ".sock".len()],
        None => rest,
    }
}
