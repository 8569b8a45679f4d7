//! nginx's configuration as it bears on one upstream address.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::case::{Settings, directive};
use super::line::{STREAM, UpstreamLine};
use crate::trace::record::{Configuration, ProxyLocation, UpstreamBlock};

/// `keepalive_timeout` of an upstream block that does not set it
/// (ngx_http_upstream_keepalive_module).
const KEEPALIVE_TIMEOUT_MS: u64 = 60_000;
/// `keepalive` of an upstream block that does not set it, from nginx 1.29.7 on.
const KEEPALIVE_DEFAULT: u64 = 32;

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
    let values = |setting: &str| {
        let name = directive(line.module, setting);
        let values = places.iter().map(move |place| place.settings.get(&name));
        values.collect::<BTreeSet<_>>()
    };
    // `None` stands for the default.
    let agreed = |setting: &str| {
        let values = values(setting);
        (values.len() == 1).then(|| values.into_iter().next().flatten().cloned())?
    };
    // Which place a line is about is not known where several differ.
    let limit = |setting: &str| {
        let default = default_limit(&directive(line.module, setting));
        let values = values(setting);
        let words: Vec<&str> = values
            .iter()
            .map(|value| value.map_or(default, String::as_str))
            .collect();
        let all_default = values.iter().all(Option::is_none);
        (!all_default).then(|| words.join(" or "))
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
        connect_timeout: limit("connect_timeout"),
        read_timeout: limit("read_timeout"),
        send_timeout: limit("send_timeout"),
        buffer_size: agreed("buffer_size"),
        next_upstream: agreed("next_upstream"),
        next_upstream_differs: values("next_upstream").len() > 1,
        request_buffering: agreed("request_buffering"),
        http_version: agreed("http_version"),
        ssl_name: agreed("ssl_name"),
        ssl_server_name: agreed("ssl_server_name"),
        ssl_protocols: agreed("ssl_protocols"),
        kernel_tls: places.is_empty()
            || values("ssl_conf_command")
                .into_iter()
                .flatten()
                .any(|value| value.contains("KTLS")),
        worker_connections: main("worker_connections"),
        worker_rlimit_nofile: main("worker_rlimit_nofile"),
        worker_shutdown_timeout: main("worker_shutdown_timeout"),
    }
}

/// What a time limit is where nothing sets it.
pub(super) fn default_limit(directive: &str) -> &'static str {
    match directive {
        "proxy_timeout" => "10m",
        _ => "60s",
    }
}

/// The upstream block that lists an address, and the places that pass requests to it or
/// to the address itself.
pub(super) fn places_of(
    configuration: &Configuration,
    peer: SocketAddr,
) -> (Option<&UpstreamBlock>, Vec<&ProxyLocation>) {
    let block = block_of(configuration, Some(peer), "");
    let name = block.map(|block| block.name.as_str());
    let address = peer.to_string();
    let places = configuration
        .locations
        .iter()
        .filter(|location| passes_to(location, name, &address))
        .collect();
    (block, places)
}

/// How nginx keeps the connections to an address.
pub(super) fn of_upstream(
    configuration: &Configuration,
    version: Option<&str>,
    peer: SocketAddr,
) -> Settings {
    let block = block_of(configuration, Some(peer), "");
    let keepalive_timeout_unknown = version.is_some_and(is_before_keepalive_timeout);
    Settings {
        block: block.map(|block| block.name.clone()),
        keepalive_timeout_ms: block
            .filter(|_| !keepalive_timeout_unknown)
            .map(|block| block.keepalive_timeout_ms.unwrap_or(KEEPALIVE_TIMEOUT_MS)),
        keepalive_timeout_unknown,
        keepalive_timeout_set: block.is_some_and(|block| block.keepalive_timeout_ms.is_some()),
        ..Settings::default()
    }
}

/// Idle connections that a worker keeps: what the block says, else the version's
/// default. `None` if that is not known.
pub(super) fn keepalive_in_force(block: &UpstreamBlock, version: Option<&str>) -> Option<u64> {
    block.keepalive.or_else(|| {
        Some(if keeps_by_default(version?)? {
            KEEPALIVE_DEFAULT
        } else {
            0
        })
    })
}

/// Why every request from a place closes its connection, whatever `keepalive` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// What is set there, in a sentence.
    pub(super) because: String,
    /// What to do about it.
    pub(super) remedy: &'static str,
}

const KEEP_HTTP: &str = "set `proxy_http_version 1.1` and `proxy_set_header Connection \"\"` where \
    requests are passed to it (costs: idle connections on both sides)";
const KEEP_FASTCGI: &str = "set `fastcgi_keep_conn on` where requests are passed to it (costs: \
    idle connections on both sides; each one holds a process of a backend like PHP-FPM)";
const KEEP_NONE: &str = "remove `keepalive`, which has no effect here";

/// The obstacle in a place; `None` if there is none, or none is known.
pub(super) fn closes_each(place: &ProxyLocation, version: Option<&str>) -> Option<Obstacle> {
    let location = named(place);
    match place.module.as_str() {
        "fastcgi" => {
            let set = place.settings.get("fastcgi_keep_conn");
            (set.map(String::as_str) != Some("on")).then(|| Obstacle {
                because: format!("{location} does not set `fastcgi_keep_conn on`"),
                remedy: KEEP_FASTCGI,
            })
        }
        // They never set `u->keepalive` (ngx_http_uwsgi_module, ngx_http_scgi_module).
        module @ ("uwsgi" | "scgi") => Some(Obstacle {
            because: format!("{location} uses {module}_pass, whose connections nginx never keeps"),
            remedy: KEEP_NONE,
        }),
        _ => Some(Obstacle {
            because: closes_each_http(place, &location, version)?,
            remedy: KEEP_HTTP,
        }),
    }
}

fn closes_each_http(
    place: &ProxyLocation,
    location: &str,
    version: Option<&str>,
) -> Option<String> {
    if !place.pass.starts_with("http://") && !place.pass.starts_with("https://") {
        return None;
    }
    let set = |name: &str| place.settings.get(name).map(String::as_str);
    let newer = keeps_by_default(version?)?;
    let http_version = set("proxy_http_version").unwrap_or(if newer { "1.1" } else { "1.0" });
    if http_version == "1.0" {
        let default = if set("proxy_http_version").is_some() {
            ""
        } else {
            " (the default)"
        };
        return Some(format!("{location} speaks HTTP/1.0{default}"));
    }
    match set("proxy_set_header Connection") {
        None if newer => None,
        None => Some(format!(
            "{location} sends `Connection: close` (the default)"
        )),
        Some(value) if value.eq_ignore_ascii_case("close") => {
            Some(format!("{location} sends `Connection: close`"))
        }
        // Commonly a map whose empty case is `close`.
        Some(value) if value.starts_with('$') => Some(format!(
            "{location} sends `Connection: {value}`, which must be empty where nothing is upgraded"
        )),
        Some(_) => None,
    }
}

fn named(place: &ProxyLocation) -> String {
    let server = if place.server_name.is_empty() {
        String::new()
    } else {
        format!(" of server {}", place.server_name)
    };
    if place.location.is_empty() {
        format!("what passes to {}{server}", place.pass)
    } else {
        format!("location {}{server}", place.location)
    }
}

/// `keepalive_timeout` and `keepalive_requests` came to upstream blocks with nginx 1.15.3.
/// Of the forks only OpenResty counts as nginx does; the others are newer, or not known.
fn is_before_keepalive_timeout(version: &str) -> bool {
    numbers(version).is_some_and(|numbers| numbers < [1, 15, 3])
}

/// nginx 1.29.7 made `keepalive 32 local`, HTTP/1.1 and no `Connection` header the default
/// of upstream blocks. `None` for forks that do not count as nginx does.
fn keeps_by_default(version: &str) -> Option<bool> {
    Some(numbers(version)? >= [1, 29, 7])
}

/// The version's numbers, of nginx and of OpenResty, which counts as it does.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let (name, number) = version.split_once('/')?;
    let numbers: Vec<u32> = number
        .split(['.', ' ', '-'])
        .map_while(|part| part.parse().ok())
        .take(3)
        .collect();
    matches!(name, "nginx" | "openresty")
        .then(|| numbers.try_into().ok())
        .flatten()
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
    fn what_closes_each_connection_depends_on_the_version() {
        let place = |settings: &[(&str, &str)]| ProxyLocation {
            location: "/".to_owned(),
            pass: "http://app".to_owned(),
            settings: settings
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            ..ProxyLocation::default()
        };
        let why = |settings: &[(&str, &str)], version| {
            let obstacle = closes_each(&place(settings), Some(version));
            obstacle.map_or_else(String::new, |obstacle| obstacle.because)
        };
        const HTTP: (&str, &str) = ("proxy_http_version", "1.1");
        const HEADER: &str = "proxy_set_header Connection";
        assert!(why(&[], "nginx/1.28.3").contains("HTTP/1.0 (the default)"));
        assert!(why(&[HTTP], "nginx/1.28.3").contains("`Connection: close` (the default)"));
        assert_eq!(why(&[HTTP, (HEADER, "")], "nginx/1.28.3"), "");
        assert_eq!(why(&[], "nginx/1.29.7"), "");
        assert_eq!(why(&[], "Angie/1.12.0"), "", "not known");
        assert!(why(&[("proxy_http_version", "1.0")], "nginx/1.31.0").contains("HTTP/1.0"));
        assert!(why(&[HTTP, (HEADER, "$upgrade")], "nginx/1.31.0").contains("$upgrade"));
        let block = UpstreamBlock::default();
        assert_eq!(keepalive_in_force(&block, Some("nginx/1.29.6")), Some(0));
        assert_eq!(keepalive_in_force(&block, Some("nginx/1.29.7")), Some(32));
        assert_eq!(keepalive_in_force(&block, Some("freenginx/1.29.7")), None);
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
