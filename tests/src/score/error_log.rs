//! The lab's own reading of nginx's error log: a witness that is not the tool's.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One line that reports a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Byte of the file at which it begins.
    pub offset: u64,
    /// It.
    pub text: String,
}

impl LogLine {
    /// Target of the request that it names. A client may have forged what follows.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        let (_, request) = self.text.split_once(", request: \"")?;
        request.split(' ').nth(1)
    }
}

/// Lines below the level of an error that end an attempt all the same: the client left.
const CLIENT_LEFT: &str = "so upstream connection is closed too";

/// The lines of a log that report a failed attempt.
///
/// # Errors
/// If it cannot be read.
pub fn read(log: &Path) -> Result<Vec<LogLine>> {
    let bytes = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(failures(&bytes))
}

fn failures(bytes: &[u8]) -> Vec<LogLine> {
    let mut offset = 0;
    let mut lines = Vec::new();
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        if is_failure(&text) {
            lines.push(LogLine { offset, text });
        }
        offset += line.len() as u64;
    }
    lines
}

fn is_failure(text: &str) -> bool {
    let names_upstream = text.contains(", upstream: \"") || text.contains("connecting to upstream");
    let is_error = ["[error]", "[crit]", "[alert]"].iter().any(|level| {
        text.split(": ")
            .next()
            .is_some_and(|start| start.contains(level))
    });
    names_upstream && (is_error || text.contains(CLIENT_LEFT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_failed_attempts_are_read_each_with_its_place() {
        let refused = "2026/01/02 03:04:05 [error] 7#7: *1 connect() failed (111: Connection \
            refused) while connecting to upstream, client: 1.2.3.4, server: s, request: \"GET / \
            HTTP/1.1\", upstream: \"http://127.0.0.1:1/\", host: \"h\"";
        let disabled = refused.replace("[error]", "[warn]");
        let left = format!("{} {CLIENT_LEFT}", refused.replace("[error]", "[info]"));
        let notice = "2026/01/02 03:04:05 [notice] 7#7: start worker processes";
        let log = format!("{notice}\n{refused}\n{disabled}\n{left}\n");
        let lines = failures(log.as_bytes());
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, [refused, left.as_str()]);
        assert_eq!(lines[0].target(), Some("/"));
        assert_eq!(lines[0].offset, notice.len() as u64 + 1);
    }
}
