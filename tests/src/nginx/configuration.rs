//! The text of nginx's configuration.

use std::fmt::{Display, Write};
use std::net::SocketAddr;

/// One `upstream` block, reached below the location of the same name.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Name of the block and of the location (`/name/`).
    pub name: String,
    /// Its servers: addresses, or `unix:/path`.
    pub servers: Vec<String>,
    /// Size of its pool of idle connections; none: every connection serves one request.
    pub keepalive: Option<u16>,
    /// Requests after which nginx closes a connection; none: nginx's own 1000 (since 1.19.10).
    pub keepalive_requests: Option<u32>,
    /// More directives for its location, e.g. `proxy_read_timeout 1s;`.
    pub directives: String,
    /// nginx speaks TLS to it.
    pub tls: bool,
    /// nginx hands a client's wish to switch protocols on.
    pub upgrades: bool,
    /// nginx speaks FastCGI to it: its directives are `fastcgi_..`.
    pub fastcgi: bool,
    /// nginx speaks gRPC to it, HTTP/2 in the clear: its directives are `grpc_..`.
    pub grpc: bool,
}

impl Upstream {
    /// One server, a connection for each request.
    #[must_use]
    pub fn new(name: impl Into<String>, server: impl Display) -> Self {
        Self {
            name: name.into(),
            servers: vec![server.to_string()],
            keepalive: None,
            keepalive_requests: None,
            directives: String::new(),
            tls: false,
            upgrades: false,
            fastcgi: false,
            grpc: false,
        }
    }

    /// The same with one more server.
    #[must_use]
    pub fn and(mut self, server: impl Display) -> Self {
        self.servers.push(server.to_string());
        self
    }

    /// The same, spoken to over TLS.
    #[must_use]
    pub fn over_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// The same, switching protocols where a client asks for it.
    #[must_use]
    pub fn upgrading(mut self) -> Self {
        self.upgrades = true;
        self
    }

    /// The same, spoken to in FastCGI.
    #[must_use]
    pub fn over_fastcgi(mut self) -> Self {
        self.fastcgi = true;
        self
    }

    /// The same, spoken to in gRPC.
    #[must_use]
    pub fn over_grpc(mut self) -> Self {
        self.grpc = true;
        self
    }

    /// The same, keeping so many idle connections in each worker.
    #[must_use]
    pub fn keepalive(mut self, connections: u16) -> Self {
        self.keepalive = Some(connections);
        self
    }

    /// The same, with so many requests on each connection that it keeps.
    #[must_use]
    pub fn keepalive_requests(mut self, requests: u32) -> Self {
        self.keepalive_requests = Some(requests);
        self
    }

    /// The same, with one more directive in its location.
    #[must_use]
    pub fn with(mut self, directive: &str) -> Self {
        self.directives.push_str(directive);
        self
    }
}

/// An nginx's configuration.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Worker processes.
    pub workers: u16,
    /// Level of the error log; none: nginx's own, `error`. Client aborts need `info`.
    pub log_level: Option<&'static str>,
    /// Its error logs; a path is relative to the prefix.
    pub error_logs: Vec<String>,
    /// Its upstreams.
    pub upstreams: Vec<Upstream>,
    /// `worker_connections`.
    pub worker_connections: u32,
    /// How long a worker that is to end goes on; nginx's `worker_shutdown_timeout`.
    pub shutdown_timeout: &'static str,
    /// More of the main context, e.g. `worker_rlimit_nofile 64;`.
    pub main: String,
    /// More of the `http` block, e.g. another upstream or server.
    pub http: String,
    /// More of its server, e.g. a second location for one of the upstreams.
    pub more: String,
}

impl Configuration {
    /// Two workers before these upstreams, at nginx's own log level.
    #[must_use]
    pub fn new(upstreams: Vec<Upstream>) -> Self {
        Self {
            workers: 2,
            log_level: None,
            error_logs: vec!["logs/error.log".to_owned()],
            upstreams,
            worker_connections: 4096,
            shutdown_timeout: "5s",
            main: String::new(),
            http: String::new(),
            more: String::new(),
        }
    }

    /// The whole text, for a server on `address`. The error log's path is relative
    /// to the prefix, as in most packages.
    pub(super) fn text(&self, address: SocketAddr) -> String {
        let mut upstreams = String::new();
        let mut locations = String::new();
        let mut error_logs = String::new();
        for log in &self.error_logs {
            let level = self.log_level.map(|level| format!(" {level}"));
            error_logs += &format!("error_log {log}{};\n", level.unwrap_or_default());
        }
        for upstream in &self.upstreams {
            upstreams += &block(upstream);
            locations += &location(upstream);
        }
        format!(
            "daemon off;
worker_processes {workers};
worker_shutdown_timeout {shutdown_timeout};
pid nginx.pid;
{main}{error_logs}events {{
    worker_connections {worker_connections};
}}
http {{
    log_format lab '$msec $pid $connection \"$request\" $status '
                   '\"$upstream_addr\" \"$upstream_status\" \"$upstream_response_time\"';
    access_log logs/access.log lab;
    client_body_temp_path temp/client;
    proxy_temp_path temp/proxy;
    fastcgi_temp_path temp/fastcgi;
    uwsgi_temp_path temp/uwsgi;
    scgi_temp_path temp/scgi;
    keepalive_requests 100000;
{http}{upstreams}    server {{
        listen {address};
        server_name lab.test;
        proxy_http_version 1.1;
{locations}{more}    }}
}}
",
            workers = self.workers,
            worker_connections = self.worker_connections,
            shutdown_timeout = self.shutdown_timeout,
            main = self.main,
            http = self.http,
            more = self.more,
        )
    }
}

fn block(upstream: &Upstream) -> String {
    let mut text = format!("    upstream {} {{\n", upstream.name);
    for server in &upstream.servers {
        // Writing to a String does not fail.
        let _ = writeln!(text, "        server {server};");
    }
    if let Some(connections) = upstream.keepalive {
        let _ = writeln!(text, "        keepalive {connections};");
        if let Some(requests) = upstream.keepalive_requests {
            let _ = writeln!(text, "        keepalive_requests {requests};");
        }
    }
    text + "    }\n"
}

fn location(upstream: &Upstream) -> String {
    let (name, directives) = (&upstream.name, &upstream.directives);
    if upstream.grpc {
        return format!(
            "        location /{name}/ {{
            grpc_pass grpc://{name};
            {directives}
        }}
"
        );
    }
    if upstream.fastcgi {
        let keep = if upstream.keepalive.is_some() {
            "on"
        } else {
            "off"
        };
        return format!(
            "        location /{name}/ {{
            fastcgi_pass {name};
            fastcgi_keep_conn {keep};
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param REQUEST_URI $request_uri;
            fastcgi_param CONTENT_LENGTH $content_length;
            {directives}
        }}
"
        );
    }
    let connection = if upstream.upgrades {
        "$http_connection; proxy_set_header Upgrade $http_upgrade"
    } else if upstream.keepalive.is_some() {
        "\"\""
    } else {
        "close"
    };
    format!(
        "        location /{name}/ {{
            proxy_pass {scheme}://{name};
            proxy_set_header Connection {connection};
            {directives}
        }}
",
        scheme = if upstream.tls { "https" } else { "http" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_becomes_a_block_and_a_location() {
        let upstream = Upstream::new("six", "[::1]:9000")
            .keepalive(8)
            .with("proxy_read_timeout 1s;");
        let text = Configuration::new(vec![upstream]).text("127.0.0.1:20000".parse().unwrap());
        for part in [
            "listen 127.0.0.1:20000;",
            "upstream six {\n        server [::1]:9000;\n        keepalive 8;\n    }",
            "location /six/ {\n            proxy_pass http://six;",
            "proxy_set_header Connection \"\";\n            proxy_read_timeout 1s;",
            "error_log logs/error.log;",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
