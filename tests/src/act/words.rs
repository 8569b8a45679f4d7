//! The words of verdicts, as reports spell them: what a truth may say, and nothing else.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

const WORDS: &[&str] = &[
    // Sides.
    "backend",
    "nginx",
    "client",
    "network",
    "unknown",
    // Means. `unreachable` is a cause too.
    "fin",
    "rst",
    "close",
    "refused",
    "timeout",
    "unreachable",
    "none",
    // Causes.
    "stale-keepalive",
    "request-limit",
    "backend-killed",
    "backend-oom",
    "backend-crashed",
    "backend-exited",
    "backend-restart",
    "worker-recycled",
    "worker-timeout",
    "request-too-large",
    "response-aborted",
    "protocol-mismatch",
    "tls-failure",
    "closed-without-answer",
    "connect-refused",
    "connect-timeout",
    "backlog-full",
    "read-timeout",
    "send-timeout",
    "response-rejected",
    "client-abort",
    "nginx-shutdown",
    "no-live-upstreams",
    "nginx-resources",
    "path-reset",
    "path-timeout",
    "unexplained",
];

/// The word of this spelling.
pub(crate) fn word(text: &str) -> Option<&'static str> {
    WORDS.iter().find(|word| **word == text).copied()
}

/// Reads words that stand in a file.
pub(super) fn read<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<&'static str>, D::Error> {
    let known = |text: String| {
        word(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no word of a verdict")))
    };
    Vec::<String>::deserialize(source)?
        .into_iter()
        .map(known)
        .collect()
}
