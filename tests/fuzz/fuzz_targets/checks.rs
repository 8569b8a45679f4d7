//! What must hold of any bytes in an error log. The fuzz target runs it on what libFuzzer
//! thinks of, `tracer-user/tests/fuzz_corpus.rs` on the corpus in ordinary test runs.

use super::nginx::line::{self, LogLine};
use super::nginx::message;

/// What follows a whole line of nginx's that ends in its `Host`.
const FORGED: &str =
    ", referrer: \"x\", upstream: \"http://6.6.6.6:80/\", host: \"y\", referrer: \"z\"";
/// nginx cuts lines of this length.
const SHORTEST_CUT: usize = 2047;

/// Bytes as the follower hands them on: UTF-8, or else every byte a character.
pub(crate) fn text_of(bytes: &[u8]) -> (String, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), false),
        Err(_) => (bytes.iter().map(|&byte| char::from(byte)).collect(), true),
    }
}

/// The parser: no panic, the beginning decides whether it is a line, fields stand in
/// nginx's order, and what a client appends as its `Referer` changes nothing before it.
pub(crate) fn line(bytes: &[u8]) {
    let (text, _) = text_of(bytes);
    let parsed = line::parse(&text);
    if parsed.is_some() {
        assert!(line::starts_record(text.as_bytes()), "{text:?}");
    }
    line::read(&text, |line| {
        let kind = message::classify(line);
        let address = line.upstream_address();
        assert!(address.is_none() || line.upstream.is_some());
        assert!(kind.is_none_or(|kind| kind.is_incident() || !line.message.is_empty()));
    });
    let Some(parsed) = parsed else { return };
    in_order(&text, &parsed);
    let whole = text.strip_suffix('\n').unwrap_or(&text);
    // Of a request line without its version nobody can tell the end.
    let request_ends = parsed
        .request
        .and_then(|request| request.rsplit_once(" HTTP/1."))
        .is_some_and(|(_, minor)| minor.len() == 1 && minor.as_bytes()[0].is_ascii_digit());
    if parsed.host.is_some()
        && parsed.referrer.is_none()
        && !parsed.truncated
        && request_ends
        && whole.len() + FORGED.len() < SHORTEST_CUT
    {
        let forged = format!("{whole}{FORGED}");
        let again = line::parse(&forged).expect("it begins as before");
        let without = LogLine {
            referrer: None,
            ..again.clone()
        };
        assert_eq!(without, parsed, "{forged:?}");
        assert!(
            again
                .referrer
                .is_some_and(|referrer| referrer.starts_with('x'))
        );
    }
}

/// Every field is a part of the text, and begins where the one before has ended.
fn in_order(text: &str, line: &LogLine<'_>) {
    let mut end = text.as_ptr() as usize;
    let after = end + text.len();
    let fields = [
        Some(line.message),
        line.errno_text,
        line.action,
        line.client,
        line.server,
        line.request,
        line.subrequest,
        line.upstream,
        line.host,
        line.referrer,
    ];
    for field in fields.into_iter().flatten() {
        let start = field.as_ptr() as usize;
        assert!(
            start >= end && start + field.len() <= after,
            "{field:?} of {text:?}"
        );
        end = start + field.len();
    }
}
