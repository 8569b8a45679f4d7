//! `nginx-resources`: nginx's own host had nothing to open a connection with: no local
//! port or address, no descriptor, no free `worker_connections`, no memory. Requires:
//! nginx's line with the result of its own call; there is no socket by nature.

use super::{Case, Remedy, Verdict, sentences};
use crate::judge::case::errno;
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence};

/// What was missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// All local ports towards this backend are taken.
    Ports,
    /// The address of `proxy_bind` is not this host's, or all its ports are taken.
    Address,
    /// The address and port of `proxy_bind` are taken.
    AddressInUse,
    /// Descriptors of this process.
    Descriptors,
    /// Descriptors of the whole host.
    HostDescriptors,
    WorkerConnections,
    Memory,
    /// Something else that the line names.
    Other,
}

pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    let missing = missing(case)?;
    let what = words(missing);
    Some(Verdict {
        cause: Cause::NginxResources,
        // The line is the result of nginx's own call.
        confidence: Confidence::Certain,
        evidence: sentences([Some(what.to_owned())]),
        advice: remedy(case, missing).map(|text| Remedy {
            text,
            because: what.to_owned(),
        }),
    })
}

fn missing(case: &Case<'_>) -> Option<Missing> {
    let message = case.line.summary.message.as_str();
    let at_once = case.line.kind == MessageKind::ConnectFailedAtOnce;
    if !at_once && case.line.kind != MessageKind::Resources {
        return None;
    }
    Some(match case.errno() {
        errno::EADDRNOTAVAIL if message.starts_with("bind(") => Missing::Address,
        errno::EADDRNOTAVAIL => Missing::Ports,
        errno::EADDRINUSE => Missing::AddressInUse,
        errno::EMFILE => Missing::Descriptors,
        errno::ENFILE => Missing::HostDescriptors,
        errno::ENOMEM | errno::ENOBUFS => Missing::Memory,
        _ if message.contains("worker_connections are not enough") => Missing::WorkerConnections,
        // `the new socket has number 1024, but only 1024 files are available`
        _ if message.starts_with("the new socket has number ") => Missing::Descriptors,
        _ if at_once => return None,
        _ => Missing::Other,
    })
}

fn words(missing: Missing) -> &'static str {
    match missing {
        Missing::Ports => {
            "every local port that connections to this backend may use was taken (EADDRNOTAVAIL)"
        }
        Missing::Address => {
            "the address that nginx was told to connect from is not this host's, or has no free \
             port left (EADDRNOTAVAIL)"
        }
        Missing::AddressInUse => {
            "the address and port that nginx was told to connect from were in use (EADDRINUSE)"
        }
        Missing::Descriptors => "the worker had used up its file descriptors",
        Missing::HostDescriptors => "this host had used up its file descriptors (ENFILE)",
        Missing::WorkerConnections => {
            "the worker had used up its worker_connections, which count clients and backends"
        }
        Missing::Memory => "the kernel had no memory for another socket",
        Missing::Other => "by its own line nginx could not set up a socket",
    }
}

fn remedy(case: &Case<'_>, missing: Missing) -> Option<String> {
    let now = |set: &Option<String>, default: &str| match set {
        Some(set) => format!(" (now {set})"),
        None if case.settings.known => format!(" (not set: {default})"),
        None => String::new(),
    };
    let bind = case.directive("bind");
    Some(match missing {
        Missing::Ports => {
            let reuse = match (case.settings.keepalive, &case.settings.block) {
                (Some(keeps), Some(block)) => {
                    format!("keep more than {keeps} idle connections in `upstream {block}`")
                }
                (None, Some(block)) => {
                    format!("reuse connections with `keepalive` in `upstream {block}`")
                }
                (_, None) => "reuse connections with an upstream block and `keepalive`".to_owned(),
            };
            format!(
                "{reuse} (costs: idle descriptors on the backend). A backend address can have as \
                 many connections as net.ipv4.ip_local_port_range has ports, those in TIME_WAIT \
                 included: widen it, give the backend more addresses, or connect from several \
                 with {bind}"
            )
        }
        Missing::Address => format!(
            "name an address of this host in {bind}; if it is one, its ports are used up: reuse \
             connections with `keepalive`, or connect from several addresses"
        ),
        Missing::AddressInUse => {
            format!("name no port in {bind}: two connections cannot leave from the same one")
        }
        Missing::Descriptors => format!(
            "raise worker_rlimit_nofile{} above twice worker_connections{}; it costs nothing but \
             kernel memory for what is really open",
            now(
                &case.settings.worker_rlimit_nofile,
                "the limit that nginx was started with"
            ),
            now(&case.settings.worker_connections, "512"),
        ),
        Missing::HostDescriptors => {
            "raise fs.file-max, or find the process that holds so many files (lsof, /proc/*/fd)"
                .to_owned()
        }
        Missing::WorkerConnections => format!(
            "raise worker_connections{}, and worker_rlimit_nofile{} with it; each costs some \
             hundred bytes of memory in every worker",
            now(&case.settings.worker_connections, "512"),
            now(
                &case.settings.worker_rlimit_nofile,
                "the limit that nginx was started with"
            ),
        ),
        Missing::Memory => {
            "look at net.ipv4.tcp_mem and the memory limit of nginx's cgroup".to_owned()
        }
        Missing::Other => return None,
    })
}
