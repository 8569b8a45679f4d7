//! The lab's own reading of nginx's access log: which attempts each request made.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What the access log says of all requests for one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accessed {
    /// Requests of clients.
    pub requests: usize,
    /// The upstream that the last one's last attempt was made at, if that brought an answer.
    pub answered_by: Option<String>,
}

/// The log, by target. Its format is `lab` of [`crate::nginx::Configuration`].
///
/// # Errors
/// If it cannot be read.
pub fn read(log: &Path) -> Result<HashMap<String, Accessed>> {
    let bytes = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(parse(&String::from_utf8_lossy(&bytes)))
}

fn parse(text: &str) -> HashMap<String, Accessed> {
    let mut accessed: HashMap<String, Accessed> = HashMap::new();
    for line in text.lines() {
        // nginx writes a quote of a client's as \x22.
        let fields: Vec<&str> = line.split('"').collect();
        let [_, request, _, upstreams, _, statuses, ..] = fields[..] else {
            continue;
        };
        let Some(target) = request.split(' ').nth(1) else {
            continue;
        };
        let of_target = accessed.entry(target.to_owned()).or_default();
        of_target.requests += 1;
        // Attempts are divided by ", ", redirects within nginx by " : ".
        let last = |list: &str| list.split([',', ' ']).next_back().map(str::to_owned);
        let failed =
            last(statuses).is_none_or(|status| ["502", "504", "-", ""].contains(&&*status));
        of_target.answered_by = last(upstreams).filter(|_| !failed);
    }
    accessed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_and_the_last_attempt_of_each_tells_who_answered() {
        let log = "1.0 7 1 \"GET /a HTTP/1.1\" 200 \"127.0.0.1:1, 127.0.0.1:2\" \"502, 200\" \"0, 0\"\n\
            1.0 7 1 \"POST /b HTTP/1.1\" 502 \"127.0.0.1:1\" \"502\" \"0\"\n\
            1.0 7 1 \"GET /c HTTP/1.1\" 499 \"127.0.0.1:1\" \"-\" \"0\"\n\
            1.0 7 2 \"POST /b HTTP/1.1\" 502 \"127.0.0.1:1\" \"502\" \"0\"\n\
            1.0 7 2 \"\" 400 \"-\" \"-\" \"-\"\n";
        let accessed = parse(log);
        let of = |target: &str| {
            let found = &accessed[target];
            (found.requests, found.answered_by.as_deref())
        };
        assert_eq!(of("/a"), (1, Some("127.0.0.1:2")));
        assert_eq!(of("/b"), (2, None));
        assert_eq!(of("/c"), (1, None));
    }
}
