//! Records of nginx itself: its instances and their configuration, its workers and the
//! lines of its error logs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One nginx instance: a master with its workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Nginx {
    /// Master's pid on the host.
    pub master_pid: u32,
    /// Flavour and version as the binary carries it, e.g. `nginx/1.22.1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Path of the binary as the master sees it.
    pub binary: String,
    /// Path of the configuration file as the master sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_path: Option<String>,
    /// Workers at the start.
    pub workers: Vec<Worker>,
    /// Error logs followed.
    pub error_logs: Vec<ErrorLog>,
    /// Level of the context of requests in which the least is logged, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub narrowest_level: Option<String>,
    /// What of the configuration bears on verdicts; absent if it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
    /// Why the configuration is absent or in part unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_problem: Option<String>,
    /// The files were changed after the workers had started: what `configuration` says may
    /// not be what they run with.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changed_before_start: bool,
    /// Whether lines of this instance are seen being written (the uprobe is attached).
    pub log_calls_seen: bool,
    /// Time zone that nginx stamps its lines in.
    pub time_zone: TimeZone,
    /// Inode number of its network namespace, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
}

/// An instance as it is from some moment on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// When that was noticed.
    pub ns: u64,
    /// When the first worker was noticed that runs so, where that was earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ns: Option<u64>,
    /// The instance.
    pub nginx: Nginx,
}

/// A worker process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Pid on the host.
    pub pid: u32,
    /// Pid in nginx's own pid namespace: the one in its log lines.
    pub inner_pid: u32,
}

/// An error log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorLog {
    /// Path as nginx sees it.
    pub path: String,
    /// Level that the configuration gives it (`error` if none), where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
}

/// A time zone's rules, so that a report made elsewhere reads local times right.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeZone {
    /// Name, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Contents of the zone file (RFC 9636), base64; absent means UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tzif: Option<String>,
}

/// nginx's settings that bear on verdicts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// Upstream blocks.
    pub upstreams: Vec<UpstreamBlock>,
    /// Places that proxy, with the settings in force there.
    pub locations: Vec<ProxyLocation>,
    /// Settings of the main and events contexts, as written: `worker_connections`,
    /// `worker_rlimit_nofile`, `worker_processes`, `worker_shutdown_timeout`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub main: BTreeMap<String, String>,
    /// How clients reach nginx; absent in older traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<Clients>,
}

/// How clients reach nginx, where it decides which of its sends to them a capture sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clients {
    /// Some server listens on a unix socket (`listen unix:`).
    pub unix: bool,
    /// The kernel may encrypt what goes to them (`ssl_conf_command Options KTLS`).
    pub kernel_tls: bool,
}

/// An `upstream` block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpstreamBlock {
    /// Its name.
    pub name: String,
    /// `server` parameters as written, e.g. `127.0.0.1:9101`, `app.example:80`.
    pub servers: Vec<String>,
    /// `keepalive N`; absent if not set (a default by version may apply).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<u64>,
    /// `keepalive_timeout` in milliseconds; absent if not set (60 s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_timeout_ms: Option<u64>,
    /// `keepalive_requests`; absent if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_requests: Option<u64>,
}

/// A place in the configuration that passes requests on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProxyLocation {
    /// `server_name`, first one, may be empty.
    pub server_name: String,
    /// `location` parameters as written, outermost first, joined by a space.
    pub location: String,
    /// Argument of `proxy_pass` (or fastcgi_pass and so on) as written.
    pub pass: String,
    /// Whose directive that is: `proxy`, `fastcgi`, `grpc`; `stream` for `proxy_pass` of
    /// a server of that part; absent in older traces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub module: String,
    /// Directive settings in force there by inheritance, as written, e.g.
    /// `proxy_read_timeout` to `5s`, `proxy_next_upstream` to `error timeout`.
    pub settings: BTreeMap<String, String>,
}

/// A log line as the file holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The file's path as nginx sees it.
    pub file: String,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Master's pid of the instance whose log it is.
    pub master_pid: u32,
    /// When the capture read it.
    pub read_ns: u64,
    /// The line without its end; further physical lines of the same record follow
    /// after LF.
    pub text: String,
    /// The line was not UTF-8: `text` holds each byte as the code point of its number.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub latin1: bool,
    /// The process that wrote it, on the host, where the kernel saw it being written:
    /// for logs that are no files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// A worker process that started or ended during the capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// When it was noticed.
    pub ns: u64,
    /// Master's pid.
    pub master_pid: u32,
    /// The worker.
    pub worker: Worker,
    /// Started (true) or gone (false).
    pub started: bool,
}
