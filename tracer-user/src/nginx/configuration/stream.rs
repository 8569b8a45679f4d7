//! The `stream` part of a configuration: its upstream blocks, and the servers that pass
//! sessions on with the settings in force there.

use std::collections::BTreeMap;

use super::settings::{KERNEL_TLS, upstream};
use super::tree::Directive;
use crate::trace::record::{Configuration, ProxyLocation};

/// What stands for the module: its directives begin with `proxy` as those of http do.
const MODULE: &str = "stream";

/// Settings of `ngx_stream_proxy_module`. Its `proxy_timeout` is for both directions.
const SETTINGS: [&str; 10] = [
    "proxy_timeout",
    "proxy_connect_timeout",
    "proxy_next_upstream",
    "proxy_next_upstream_tries",
    "proxy_next_upstream_timeout",
    "proxy_ssl",
    "proxy_ssl_name",
    "proxy_ssl_server_name",
    "proxy_ssl_protocols",
    TO_OPENSSL,
];
const TO_OPENSSL: &str = "proxy_ssl_conf_command";

/// Adds what the part says.
pub(super) fn add(directives: &[Directive], found: &mut Configuration) {
    let parts = directives.iter().filter(|part| part.name == "stream");
    for part in parts {
        let around = settings(&part.block, &BTreeMap::new());
        for directive in &part.block {
            match directive.name.as_str() {
                "upstream" => found.upstreams.push(upstream(directive)),
                "server" => found.locations.extend(server(directive, &around)),
                _ => {}
            }
        }
    }
}

fn server(server: &Directive, around: &BTreeMap<String, String>) -> Option<ProxyLocation> {
    let pass = server
        .block
        .iter()
        .find(|inner| inner.name == "proxy_pass")?;
    Some(ProxyLocation {
        server_name: String::new(),
        location: String::new(),
        module: MODULE.to_owned(),
        pass: pass.argument(0).unwrap_or_default().to_owned(),
        settings: settings(&server.block, around),
    })
}

/// The settings of a block over those around it.
fn settings(block: &[Directive], around: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut settings = around.clone();
    let own = block
        .iter()
        .filter(|directive| SETTINGS.contains(&directive.name.as_str()))
        // It may stand several times: noted if the kernel is to encrypt.
        .filter(|directive| directive.name != TO_OPENSSL || directive.value().contains(KERNEL_TLS));
    settings.extend(own.map(|directive| (directive.name.clone(), directive.value())));
    settings
}

#[cfg(test)]
mod tests {
    use super::super::tree::Loader;
    use super::*;
    use crate::nginx::processes::Root;

    #[test]
    fn servers_have_the_settings_around_them_and_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        let text = "stream { proxy_timeout 5s; upstream two { server 10.0.0.1:1; } \
                    server { listen 1; proxy_pass two; proxy_connect_timeout 1s; } \
                    server { listen 2; proxy_timeout 9s; proxy_pass 10.0.0.2:2; } \
                    server { listen 3; return x; } }";
        let mut found = Configuration::default();
        add(
            &Loader::new(&root, "/nginx.conf").text("test", text.as_bytes()),
            &mut found,
        );
        assert_eq!(found.upstreams[0].name, "two");
        let [first, second] = found.locations.as_slice() else {
            panic!("{:?}", found.locations);
        };
        assert_eq!(
            (
                first.pass.as_str(),
                first.settings["proxy_timeout"].as_str()
            ),
            ("two", "5s")
        );
        assert_eq!(first.settings["proxy_connect_timeout"], "1s");
        assert_eq!(second.settings["proxy_timeout"], "9s");
        assert_eq!(second.module, MODULE);
    }
}
