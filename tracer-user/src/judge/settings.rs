//! nginx's configuration as it bears on one upstream address.

use std::net::SocketAddr;

use super::case::{Settings, directive};
use super::line::{STREAM, UpstreamLine};
use crate::trace::record::{Configuration, ProxyLocation, UpstreamBlock};

/// `keepalive_timeout` of an upstream block that does not set it
/// (ngx_http_upstream_keepalive_module).
const KEEPALIVE_TIMEOUT_MS: u64 = 60_000;

/// The upstream block that lists an address, or has the name given.
pub(super) fn block_of<'a>(
    configuration: &'a Configuration,
    peer: Option<SocketAddr>,
    name: &str,
) -> Option<&'a UpstreamBlock> {
    configuration.upstreams.iter().find(|block| match peer {
        Some(peer) => block.servers.iter().any(|server| is_server(server, peer)),
        None => block.name == name,
    })
}

/// Does a `server` parameter, `127.0.0.1:9101 weight=2` or `[::1]:80`, name this address?
fn is_server(server: &str, peer: SocketAddr) -> bool {
    let Some(address) = server.split_whitespace().next() else {
        return false;
    };
    let parsed = address
        .parse::<SocketAddr>()
        .or_else(|_no_port| format!("{address}:80").parse::<SocketAddr>());
    parsed.is_ok_and(|found| {
        (found.ip().to_canonical(), found.port()) == (peer.ip().to_canonical(), peer.port())
    })
}

/// Does a place pass requests to this block or address?
pub(super) fn passes_to(location: &ProxyLocation, block: Option<&str>, upstream: &str) -> bool {
    let pass = location.pass.as_str();
    let rest = pass.split_once("://").map_or(pass, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    Some(authority) == block || authority == upstream
}

/// The settings for a line's upstream, as far as all places that use it agree.
pub(super) fn settings_for(
    configuration: &Configuration,
    version: Option<&str>,
    line: &UpstreamLine,
) -> Settings {
    let block = block_of(configuration, line.peer, &line.upstream);
    let name = block.map(|block| block.name.as_str());
    let places: Vec<&ProxyLocation> = configuration
        .locations
        .iter()
        .filter(|location| (location.module == STREAM) == (line.module == STREAM))
        .filter(|location| passes_to(location, name, &line.upstream))
        .collect();
    // The line names the server; among several places, its own count.
    let own: Vec<&ProxyLocation> = places
        .iter()
        .filter(|location| Some(location.server_name.as_str()) == line.summary.server.as_deref())
        .copied()
        .collect();
    let places = if own.is_empty() { places } else { own };
    let agreed = |setting: &str| {
        let name = directive(line.module, setting);
        let mut values = places.iter().map(|place| place.settings.get(&name));
        let first = values.next()??.clone();
        values.all(|value| value == Some(&first)).then_some(first)
    };
    let keepalive_timeout_unknown = version.is_some_and(is_before_keepalive_timeout);
    let main = |setting: &str| configuration.main.get(setting).cloned();
    Settings {
        known: !places.is_empty(),
        keepalive: block.and_then(|block| block.keepalive),
        servers: block.map_or(0, |block| block.servers.len()),
        block: name.map(str::to_owned),
        keepalive_timeout_ms: block
            .filter(|_| !keepalive_timeout_unknown)
            .map(|block| block.keepalive_timeout_ms.unwrap_or(KEEPALIVE_TIMEOUT_MS)),
        keepalive_timeout_unknown,
        keepalive_timeout_set: block.is_some_and(|block| block.keepalive_timeout_ms.is_some()),
        keepalive_requests: block.and_then(|block| block.keepalive_requests),
        connect_timeout: agreed("connect_timeout"),
        read_timeout: agreed("read_timeout"),
        send_timeout: agreed("send_timeout"),
        buffer_size: agreed("buffer_size"),
        next_upstream: agreed("next_upstream"),
        request_buffering: agreed("request_buffering"),
        http_version: agreed("http_version"),
        ssl_name: agreed("ssl_name"),
        ssl_server_name: agreed("ssl_server_name"),
        ssl_protocols: agreed("ssl_protocols"),
        worker_connections: main("worker_connections"),
        worker_rlimit_nofile: main("worker_rlimit_nofile"),
        worker_shutdown_timeout: main("worker_shutdown_timeout"),
    }
}

/// `keepalive_timeout` and `keepalive_requests` came to upstream blocks with nginx 1.15.3.
/// Of the forks only OpenResty counts as nginx does; the others are newer, or not known.
fn is_before_keepalive_timeout(version: &str) -> bool {
    let Some((name, number)) = version.split_once('/') else {
        return false;
    };
    let numbers: Vec<u32> = number
        .split(['.', ' ', '-'])
        .map_while(|part| part.parse().ok())
        .take(3)
        .collect();
    matches!(name, "nginx" | "openresty") && numbers.len() == 3 && numbers < vec![1, 15, 3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nginx_before_1_15_3_lacks_the_directive() {
        for version in ["nginx/1.14.2", "nginx/1.15.2", "openresty/1.13.6.2"] {
            assert!(is_before_keepalive_timeout(version), "{version}");
        }
        for version in [
            "nginx/1.15.3",
            "nginx/1.22.1 (Debian)",
            "Angie/1.9.0",
            "odd",
        ] {
            assert!(!is_before_keepalive_timeout(version), "{version}");
        }
    }

    #[test]
    fn a_server_parameter_names_an_address_with_or_without_port_and_options() {
        let peer = "127.0.0.1:9101".parse().unwrap();
        assert!(is_server("127.0.0.1:9101 weight=2", peer));
        assert!(!is_server("127.0.0.1:9102", peer));
        assert!(is_server("[::1]", "[::1]:80".parse().unwrap()));
        assert!(!is_server("app.example:9101", peer));
    }
}
