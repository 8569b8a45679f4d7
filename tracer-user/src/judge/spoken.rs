//! What nginx speaks to an upstream, as far as its configuration and its lines tell, and
//! so whether the exchanges that the kernel counts are requests.

use std::net::SocketAddr;

use super::settings;
use crate::trace::record::{Capture, Configuration, ProxyLocation};

/// nginx's function whose calls tell handshakes from requests; it stands in its hook's
/// name, alone or beside another.
const HANDSHAKE_FUNCTION: &str = "ngx_ssl_handshake";

/// What an upstream's exchanges are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Counted {
    /// Requests.
    #[default]
    Requests,
    /// Requests, and flights of TLS handshakes that were not seen as such.
    TlsFlights,
    /// HTTP/2 sends acknowledgements, pings and windows between requests, and streams in
    /// both directions send whenever they like.
    Http2,
}

/// What is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spoken {
    /// TLS, or it may be TLS and nobody would have noticed.
    pub(super) tls: bool,
    /// HTTP/2.
    pub(super) http2: bool,
}

impl Spoken {
    /// By all instances' configurations.
    pub(super) fn to(capture: &Capture, upstream: SocketAddr) -> Self {
        let blind = capture
            .hooks
            .iter()
            .any(|hook| hook.name.contains(HANDSHAKE_FUNCTION) && !hook.attached);
        let mut spoken = Self::default();
        for nginx in &capture.nginx {
            let Some(configuration) = &nginx.configuration else {
                spoken.tls |= blind;
                continue;
            };
            let found = by_configuration(configuration, upstream, blind);
            spoken.tls |= found.tls;
            spoken.http2 |= found.http2;
        }
        spoken
    }
}

fn by_configuration(configuration: &Configuration, upstream: SocketAddr, blind: bool) -> Spoken {
    let block = settings::block_of(configuration, Some(upstream), "");
    let name = block.map(|block| block.name.as_str());
    let text = upstream.to_string();
    let mut places = configuration
        .locations
        .iter()
        .filter(|place| settings::passes_to(place, name, &text))
        .peekable();
    if places.peek().is_some() {
        let mut spoken = Spoken::default();
        for place in places {
            spoken.tls |= scheme(place) == Scheme::Tls;
            spoken.http2 |= is_http2(place);
        }
        return spoken;
    }
    // Reached by a name, or one that a variable gives: by which of the places is not known.
    Spoken {
        tls: blind
            && configuration
                .locations
                .iter()
                .any(|place| scheme(place) != Scheme::Plain),
        // All of them are HTTP/2, or it is not known.
        http2: !configuration.locations.is_empty() && configuration.locations.iter().all(is_http2),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Plain,
    Tls,
    /// A variable.
    Unknown,
}

fn scheme(place: &ProxyLocation) -> Scheme {
    // A server of the stream part names no scheme.
    if place
        .settings
        .get("proxy_ssl")
        .is_some_and(|ssl| ssl == "on")
    {
        return Scheme::Tls;
    }
    match place.pass.split_once("://") {
        Some(("https" | "grpcs" | "suwsgi", _)) => Scheme::Tls,
        Some((scheme, _)) if scheme.contains('$') => Scheme::Unknown,
        None if place.pass.contains('$') => Scheme::Unknown,
        _ => Scheme::Plain,
    }
}

/// `grpc_pass`, or `proxy_http_version 2` (nginx 1.29.4 and newer).
fn is_http2(place: &ProxyLocation) -> bool {
    place.module == "grpc"
        || place.pass.starts_with("grpc://")
        || place.pass.starts_with("grpcs://")
        || place
            .settings
            .get("proxy_http_version")
            .is_some_and(|version| version == HTTP2)
}

/// As `proxy_http_version` has it.
pub(super) const HTTP2: &str = "2";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::record::{Hook, Nginx, UpstreamBlock};

    fn capture(attached: bool, places: &[(&str, &str)]) -> Capture {
        let locations = places
            .iter()
            .map(|(module, pass)| ProxyLocation {
                module: (*module).to_owned(),
                pass: (*pass).to_owned(),
                ..ProxyLocation::default()
            })
            .collect();
        let block = UpstreamBlock {
            name: "app".to_owned(),
            servers: vec!["127.0.0.1:9101".to_owned()],
            ..UpstreamBlock::default()
        };
        Capture {
            host: String::new(),
            kernel: String::new(),
            start_ns: 0,
            duration_ns: 0,
            nginx: vec![Nginx {
                configuration: Some(Configuration {
                    upstreams: vec![block],
                    locations,
                    ..Configuration::default()
                }),
                ..Nginx::default()
            }],
            hooks: vec![Hook {
                name: format!("{HANDSHAKE_FUNCTION} in /usr/sbin/nginx"),
                attached,
                by: None,
                reason: None,
            }],
            ..Capture::default()
        }
    }

    fn tls_and_http2(capture: &Capture) -> (bool, bool) {
        let spoken = Spoken::to(capture, "127.0.0.1:9101".parse().unwrap());
        (spoken.tls, spoken.http2)
    }

    #[test]
    fn a_place_that_passes_to_the_upstream_says_what_is_spoken() {
        for (module, pass, expected) in [
            ("proxy", "http://app/x", (false, false)),
            ("proxy", "https://app", (true, false)),
            ("proxy", "https://127.0.0.1:9101/", (true, false)),
            ("grpc", "app", (false, true)),
            ("", "grpc://app", (false, true)),
            ("grpc", "grpcs://app", (true, true)),
            ("fastcgi", "app", (false, false)),
        ] {
            let places = [(module, pass), ("proxy", "https://other")];
            for attached in [true, false] {
                assert_eq!(
                    tls_and_http2(&capture(attached, &places)),
                    expected,
                    "{pass}"
                );
            }
        }
    }

    #[test]
    fn what_a_variable_gives_may_be_tls_where_handshakes_are_not_seen() {
        for pass in [
            "$scheme://$backend",
            "https://$backend",
            "$target",
            "https://app.example",
        ] {
            let places = [("proxy", pass)];
            assert_eq!(
                tls_and_http2(&capture(false, &places)),
                (true, false),
                "{pass}"
            );
            assert_eq!(
                tls_and_http2(&capture(true, &places)),
                (false, false),
                "{pass}"
            );
        }
        let mut unknown = capture(false, &[]);
        unknown.nginx[0].configuration = None;
        assert_eq!(tls_and_http2(&unknown), (true, false));
    }
}
