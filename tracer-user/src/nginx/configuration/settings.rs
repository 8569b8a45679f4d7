//! What of the directives bears on verdicts: upstream blocks, and every place that
//! passes requests on with the settings in force there.

use std::collections::BTreeMap;

use super::stream;
use super::time::parse_time_ms;
use super::tree::Directive;
use crate::trace::record::{Clients, Configuration, ProxyLocation, UpstreamBlock};

/// Modules that pass requests on: `proxy_pass`, `proxy_read_timeout` and so on.
const MODULES: [&str; 6] = ["proxy", "fastcgi", "uwsgi", "scgi", "grpc", "memcached"];

/// Settings of those modules, without the module's name.
const SETTINGS: [&str; 17] = [
    "connect_timeout",
    "read_timeout",
    "send_timeout",
    "next_upstream",
    "next_upstream_tries",
    "next_upstream_timeout",
    "http_version",
    "buffering",
    "buffer_size",
    "request_buffering",
    "ignore_client_abort",
    "socket_keepalive",
    "keep_conn",
    "ssl_verify",
    "ssl_name",
    "ssl_server_name",
    "ssl_protocols",
];

/// What is handed on to OpenSSL may stand several times: noted if the kernel is to encrypt.
const TO_OPENSSL: &str = "ssl_conf_command";
pub(super) const KERNEL_TLS: &str = "KTLS";

/// So begins the address of a unix socket.
const UNIX: &str = "unix:";

/// A setting of the core that bears on what is passed on, whatever passes it.
const BODY_SIZE: &str = "client_max_body_size";

/// Settings of the main context, and of `events` in it.
const MAIN: [&str; 3] = [
    "worker_processes",
    "worker_rlimit_nofile",
    "worker_shutdown_timeout",
];
const EVENTS: [&str; 1] = ["worker_connections"];

/// The `http` and `stream` parts of a configuration, and what its main context says of
/// workers.
pub(super) fn configuration(directives: &[Directive]) -> Configuration {
    let mut found = Configuration {
        main: main(directives),
        clients: Some(clients(directives)),
        ..Configuration::default()
    };
    for http in directives
        .iter()
        .filter(|directive| directive.name == "http")
    {
        let in_force = InForce::default().within(&http.block);
        for directive in &http.block {
            match directive.name.as_str() {
                "upstream" => found.upstreams.push(upstream(directive)),
                "server" => server(directive, &in_force, &mut found.locations),
                _ => {}
            }
        }
    }
    stream::add(directives, &mut found);
    found
}

/// nginx refuses a second setting of the same name, so each stands at most once.
fn main(directives: &[Directive]) -> BTreeMap<String, String> {
    let events = directives
        .iter()
        .filter(|directive| directive.name == "events")
        .flat_map(|events| &events.block)
        .filter(|directive| EVENTS.contains(&directive.name.as_str()));
    directives
        .iter()
        .filter(|directive| MAIN.contains(&directive.name.as_str()))
        .chain(events)
        .map(|directive| (directive.name.clone(), directive.value()))
        .collect()
}

/// Of the servers of all parts.
fn clients(directives: &[Directive]) -> Clients {
    let parts = (directives.iter()).filter(|part| ["http", "stream"].contains(&&*part.name));
    let servers = (parts.clone().flat_map(|part| &part.block)).filter(|one| one.name == "server");
    let mut settings = (parts.chain(servers.clone())).flat_map(|around| &around.block);
    let listens_there = |setting: &Directive| {
        let address = setting.argument(0).unwrap_or_default();
        // nginx takes the prefix in any case (`ngx_parse_url`).
        let prefix = address.get(..UNIX.len()).unwrap_or_default();
        setting.name == "listen" && prefix.eq_ignore_ascii_case(UNIX)
    };
    Clients {
        unix: servers.flat_map(|one| &one.block).any(listens_there),
        kernel_tls: settings.any(|one| one.name == TO_OPENSSL && one.value().contains(KERNEL_TLS)),
    }
}

pub(super) fn upstream(directive: &Directive) -> UpstreamBlock {
    let mut block = UpstreamBlock {
        name: directive.value(),
        ..UpstreamBlock::default()
    };
    for inner in &directive.block {
        let argument = inner.argument(0).unwrap_or_default();
        match inner.name.as_str() {
            "server" => block.servers.push(inner.value()),
            "keepalive" => block.keepalive = argument.parse().ok(),
            "keepalive_timeout" => block.keepalive_timeout_ms = parse_time_ms(argument),
            "keepalive_requests" => block.keepalive_requests = argument.parse().ok(),
            _ => {}
        }
    }
    block
}

fn server(directive: &Directive, outer: &InForce, found: &mut Vec<ProxyLocation>) {
    let name = directive
        .block
        .iter()
        .find(|inner| inner.name == "server_name");
    let name = name.and_then(|name| name.argument(0)).unwrap_or_default();
    let place = Place {
        server_name: &in_lines(name),
        location: Vec::new(),
        pass: None,
    };
    place.visit(&directive.block, outer, found);
}

/// A server's first name as lines have it (`ngx_http_core_merge_srv_conf`): in small
/// letters unless it is a regular expression, and without a dot at its beginning.
fn in_lines(name: &str) -> String {
    if name.starts_with('~') {
        return name.to_owned();
    }
    name.strip_prefix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Settings in force at some place.
#[derive(Clone, Debug, Default)]
struct InForce {
    settings: BTreeMap<String, String>,
}

impl InForce {
    /// Those in force inside a block: its own over those around it.
    fn within(&self, block: &[Directive]) -> Self {
        let mut inner = self.clone();
        for directive in block.iter().filter(|inner| inner.name == BODY_SIZE) {
            inner
                .settings
                .insert(directive.name.clone(), directive.value());
        }
        for module in MODULES {
            let header = format!("{module}_set_header");
            let key = format!("{header} Connection");
            // Headers are inherited all together or not at all.
            if block.iter().any(|directive| directive.name == header) {
                inner.settings.remove(&key);
            }
            let to_openssl = format!("{module}_{TO_OPENSSL}");
            if block.iter().any(|directive| directive.name == to_openssl) {
                inner.settings.remove(&to_openssl);
            }
            for directive in block {
                if directive.name == header {
                    let is_connection = directive
                        .argument(0)
                        .is_some_and(|name| name.eq_ignore_ascii_case("connection"));
                    if is_connection {
                        let value = directive.argument(1).unwrap_or_default();
                        inner.settings.insert(key.clone(), value.to_owned());
                    }
                } else if directive.name == to_openssl {
                    let value = directive.value();
                    if value.contains(KERNEL_TLS) {
                        inner.settings.insert(to_openssl.clone(), value);
                    }
                } else if let Some(setting) = directive
                    .name
                    .strip_prefix(module)
                    .and_then(|rest| rest.strip_prefix('_'))
                    && SETTINGS.contains(&setting)
                {
                    inner
                        .settings
                        .insert(directive.name.clone(), directive.value());
                }
            }
        }
        inner
    }

    /// Those of one module, and the core's.
    fn of(&self, module: &str) -> BTreeMap<String, String> {
        let own = |name: &str| {
            name == BODY_SIZE
                || name
                    .strip_prefix(module)
                    .is_some_and(|rest| rest.starts_with('_'))
        };
        let settings = self.settings.iter().filter(|(name, _)| own(name));
        settings
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

/// A server or location on the way down.
#[derive(Clone, Debug)]
struct Place<'a> {
    server_name: &'a str,
    location: Vec<String>,
    /// The pass of the location around an `if` or `limit_except`, and what was in
    /// force for it.
    pass: Option<(&'a str, &'a str, BTreeMap<String, String>)>,
}

impl<'a> Place<'a> {
    fn visit(&self, block: &'a [Directive], outer: &InForce, found: &mut Vec<ProxyLocation>) {
        let in_force = outer.within(block);
        let mut own = None;
        for directive in block {
            if let Some(module) = directive.name.strip_suffix("_pass")
                && MODULES.contains(&module)
            {
                let pass = directive.argument(0).unwrap_or_default();
                own = Some((module, pass, in_force.of(module)));
            }
        }
        // Blocks without a name of their own take over the handler around them; they
        // are a place of their own only if something else is in force there.
        let inherited = self.pass.as_ref();
        let differs = inherited.is_some_and(|(module, _, around)| in_force.of(module) != *around);
        let pass = own
            .clone()
            .or_else(|| inherited.map(|&(module, pass, _)| (module, pass, in_force.of(module))));
        if let Some((module, pass, settings)) = pass.clone().filter(|_| own.is_some() || differs) {
            found.push(ProxyLocation {
                server_name: self.server_name.to_owned(),
                location: self.location.join(" "),
                pass: pass.to_owned(),
                module: module.to_owned(),
                settings,
            });
        }
        for directive in block {
            let named = directive.name == "location";
            let (step, pass) = match directive.name.as_str() {
                _ if named => (directive.value(), None),
                "if" | "limit_except" => (
                    format!("{} {}", directive.name, directive.value()),
                    pass.clone(),
                ),
                _ => continue,
            };
            let location = self.location.iter().cloned().chain([step]).collect();
            let inner = Place {
                server_name: self.server_name,
                location,
                pass,
            };
            inner.visit(&directive.block, &in_force, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::Loader;
    use super::*;
    use crate::nginx::processes::Root;

    #[track_caller]
    fn read(text: &str) -> Configuration {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        let mut loader = Loader::new(&root, "/nginx.conf");
        let found = configuration(&loader.text("test", text.as_bytes()));
        assert_eq!(loader.problems, [""; 0]);
        found
    }

    fn settings(location: &ProxyLocation) -> Vec<(&str, &str)> {
        location
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    #[test]
    fn upstream_blocks_have_servers_and_keepalive() {
        let found = read(
            "http { upstream app { zone app 64k; server 127.0.0.1:9101 weight=5 \
             max_fails=2 fail_timeout=5s; server unix:/run/app.sock backup; keepalive 32 local; keepalive_timeout 1m 30s; \
             keepalive_requests 100; } upstream bare { server app.example:80; } }"
                .replace("1m 30s", "'1m 30s'")
                .as_str(),
        );
        let app = UpstreamBlock {
            name: "app".to_owned(),
            servers: vec![
                "127.0.0.1:9101 weight=5 max_fails=2 fail_timeout=5s".to_owned(),
                "unix:/run/app.sock backup".to_owned(),
            ],
            keepalive: Some(32),
            keepalive_timeout_ms: Some(90_000),
            keepalive_requests: Some(100),
        };
        assert_eq!(found.upstreams[0], app);
        assert_eq!(found.upstreams[1].keepalive, None);
        assert_eq!(found.upstreams[1].servers, ["app.example:80"]);
    }

    #[test]
    fn how_clients_reach_nginx_is_told_of_servers_of_all_parts() {
        let clients = |text: &str| read(text).clients.unwrap();
        let none = Clients::default();
        assert_eq!(
            clients("http { upstream a { server unix:/a; } server { listen 80; } }"),
            none
        );
        let unix = Clients { unix: true, ..none };
        for text in [
            "http { server { listen 80; listen unix:/run/a.sock backlog=9; } }",
            "http { server { listen 80; } server { listen UNIX:/run/a.sock; } }",
            "stream { server { listen unix:/run/a.sock; proxy_pass b:1; } }",
        ] {
            assert_eq!(clients(text), unix, "{text}");
        }
        let kernel_tls = Clients {
            kernel_tls: true,
            ..none
        };
        for text in [
            "http { ssl_conf_command Options KTLS; server { listen 443 ssl; } }",
            "http { server { listen 443 ssl; ssl_conf_command Options PrioritizeChaCha,KTLS; } }",
            "stream { server { listen 443 ssl; ssl_conf_command Options KTLS; } }",
        ] {
            assert_eq!(clients(text), kernel_tls, "{text}");
        }
        // That is for backends.
        assert_eq!(
            clients("http { server { proxy_ssl_conf_command Options KTLS; } }"),
            none
        );
    }

    #[test]
    fn inner_settings_override_outer_ones() {
        let found = read(
            "http { proxy_read_timeout 5s; proxy_next_upstream error timeout;
               server { location / { proxy_pass http://app; proxy_buffering off; }
                 server_name a.example b.example; proxy_connect_timeout 1s;
                 location /slow { proxy_read_timeout 60s;
                   location ~ \\.php$ { fastcgi_pass unix:/run/php.sock; fastcgi_read_timeout 9; }
                   location /slow/x { proxy_pass http://slow; } }
                 location /static { root /srv; } }
               server { location = /m { memcached_pass 127.0.0.1:11211; } } }",
        );
        let places: Vec<_> = found
            .locations
            .iter()
            .map(|place| (&*place.server_name, &*place.location, &*place.pass))
            .collect();
        assert_eq!(
            places,
            [
                ("a.example", "/", "http://app"),
                ("a.example", "/slow ~ \\.php$", "unix:/run/php.sock"),
                ("a.example", "/slow /slow/x", "http://slow"),
                ("", "= /m", "127.0.0.1:11211"),
            ]
        );
        assert_eq!(
            settings(&found.locations[0]),
            [
                ("proxy_buffering", "off"),
                ("proxy_connect_timeout", "1s"),
                ("proxy_next_upstream", "error timeout"),
                ("proxy_read_timeout", "5s"),
            ]
        );
        assert_eq!(
            settings(&found.locations[1]),
            [("fastcgi_read_timeout", "9")]
        );
        assert_eq!(found.locations[2].settings["proxy_read_timeout"], "60s");
        assert_eq!(settings(&found.locations[3]), []);
    }

    #[test]
    fn headers_are_inherited_all_together() {
        let found = read(
            "http { server { proxy_set_header connection \"\"; proxy_http_version 1.1;
               location /keeps { proxy_pass http://a; }
               location /loses { proxy_pass http://a; proxy_set_header Host $host; }
               location /own { proxy_pass http://a; proxy_set_header Connection upgrade; } } }",
        );
        let connection = |at: usize| {
            found.locations[at]
                .settings
                .get("proxy_set_header Connection")
        };
        assert_eq!(connection(0).map(String::as_str), Some(""));
        assert_eq!(connection(1), None);
        assert_eq!(connection(2).map(String::as_str), Some("upgrade"));
    }

    #[test]
    fn settings_of_main_and_events_are_kept_as_written() {
        let found = read(
            "worker_processes auto; worker_rlimit_nofile 1024; worker_shutdown_timeout 5s;
             user www; events { worker_connections 512; multi_accept on; }
             http { server { location / { proxy_pass http://a; } } }",
        );
        let main: Vec<_> = found
            .main
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            main,
            [
                ("worker_connections", "512"),
                ("worker_processes", "auto"),
                ("worker_rlimit_nofile", "1024"),
                ("worker_shutdown_timeout", "5s"),
            ]
        );
        assert!(read("http { }").main.is_empty());
    }

    #[test]
    fn tls_retry_and_body_settings_are_those_in_force() {
        let found = read(
            "http { client_max_body_size 8m; proxy_ssl_verify on; proxy_ssl_name outer.example;
               server { proxy_next_upstream error http_502; proxy_next_upstream_tries 2;
                 location /a { proxy_pass https://a; proxy_ssl_server_name on;
                   proxy_ssl_name a.example; proxy_request_buffering off; }
                 location /b { fastcgi_pass b; client_max_body_size 0; } } }",
        );
        assert_eq!(
            settings(&found.locations[0]),
            [
                ("client_max_body_size", "8m"),
                ("proxy_next_upstream", "error http_502"),
                ("proxy_next_upstream_tries", "2"),
                ("proxy_request_buffering", "off"),
                ("proxy_ssl_name", "a.example"),
                ("proxy_ssl_server_name", "on"),
                ("proxy_ssl_verify", "on"),
            ]
        );
        assert_eq!(
            settings(&found.locations[1]),
            [("client_max_body_size", "0")]
        );
    }

    #[test]
    fn that_the_kernel_encrypts_is_noted_whatever_else_openssl_is_told() {
        let found = read(
            "http { proxy_ssl_conf_command Options KTLS; server {
                 location /a { proxy_pass https://a; }
                 location /b { proxy_pass https://b; proxy_ssl_conf_command MinProtocol TLSv1.2; }
                 location /c { proxy_pass https://c; proxy_ssl_conf_command Options -X,KTLS;
                   proxy_ssl_conf_command MinProtocol TLSv1.2; } } }",
        );
        let told: Vec<Vec<(&str, &str)>> = found.locations.iter().map(settings).collect();
        let name = "proxy_ssl_conf_command";
        assert_eq!(
            told,
            [
                vec![(name, "Options KTLS")],
                vec![],
                vec![(name, "Options -X,KTLS")]
            ]
        );
    }

    #[test]
    fn an_if_block_takes_over_the_pass_around_it() {
        let found = read(
            "http { server { location / { proxy_pass http://a;
               if ($x) { set $y 1; } if ($slow) { proxy_read_timeout 9s; }
               limit_except GET { proxy_pass http://b; } } } }",
        );
        let places: Vec<_> = found
            .locations
            .iter()
            .map(|place| (&*place.location, &*place.pass))
            .collect();
        assert_eq!(
            places,
            [
                ("/", "http://a"),
                ("/ if ($slow)", "http://a"),
                ("/ limit_except GET", "http://b")
            ]
        );
    }

    /// Directives of OpenResty, Tengine and Angie, as their documentation has them.
    #[test]
    fn what_only_forks_know_keeps_nothing_from_being_read() {
        let found = read(
            r#"http {
               init_by_lua_block { local t = { a = "}" } -- } { ' "
               }
               lua_shared_dict cache 10m;
               lua_package_path "/x/?.lua;;";
               upstream lua { server 0.0.0.1;
                 balancer_by_lua_block {
                   local b = require "ngx.balancer"  b.set_current_peer("127.0.0.1", 9101)
                 }
                 keepalive 60; keepalive_timeout 5s; }
               upstream tengine { dynamic_resolve fallback=stale fail_timeout=30s; session_sticky;
                 server 127.0.0.1:9102 id=one; check interval=3000 rise=2 fall=5 type=http;
                 check_http_send "HEAD / HTTP/1.0\r\n\r\n"; keepalive 7; }
               upstream angie { zone z 1m; sticky cookie srv_id domain=.example path=/; feedback f;
                 server app.example:80 resolve service=_http._tcp sid=a slow_start=30s;
                 response_time_factor 90; keepalive 3; queue 5 timeout=1s; }
               client { location @c { proxy_pass http://angie; } }
               acme_client example https://acme.example/directory;
               server { listen 80 quic reuseport; server_name forks.example;
                 set_by_lua_block $x { return "{" .. [[ } ]] }
                 rewrite_by_lua 'ngx.var.y = "}" ';
                 location /lua { access_by_lua_block { if true then return end }
                   proxy_pass http://lua; proxy_read_timeout 4s; }
                 location /tengine { proxy_pass http://tengine; proxy_read_timeout 5s; }
                 location /angie { proxy_pass http://angie; proxy_read_timeout 6s;
                   proxy_http_version 3; status_zone s; }
                 location /content { content_by_lua_block { ngx.say("proxy_pass http://no;") } } } }"#,
        );
        let blocks: Vec<_> = found
            .upstreams
            .iter()
            .map(|block| (&*block.name, block.servers.len(), block.keepalive))
            .collect();
        assert_eq!(
            blocks,
            [
                ("lua", 1, Some(60)),
                ("tengine", 1, Some(7)),
                ("angie", 1, Some(3))
            ]
        );
        let places: Vec<_> = found
            .locations
            .iter()
            .map(|place| (&*place.pass, &*place.settings["proxy_read_timeout"]))
            .collect();
        assert_eq!(
            places,
            [
                ("http://lua", "4s"),
                ("http://tengine", "5s"),
                ("http://angie", "6s")
            ]
        );
    }

    #[test]
    fn a_server_is_named_as_its_lines_name_it() {
        let found = read(
            r"http { server { server_name .Dotted.Example; location / { proxy_pass http://a; } }
               server { server_name ~^(?<sub>.+)\.Regex$ x; location / { proxy_pass http://b; } }
               server { server_name *.Wild; location / { proxy_pass http://c; } } }",
        );
        let names: Vec<_> = found
            .locations
            .iter()
            .map(|place| &*place.server_name)
            .collect();
        assert_eq!(names, ["dotted.example", r"~^(?<sub>.+)\.Regex$", "*.wild"]);
    }
}
