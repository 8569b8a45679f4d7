//! Where a message ends: before its errno, its action and its context.

use std::sync::LazyLock;

use memchr::memmem::FinderRev;

use super::LogLine;
use super::head::number;

/// A searcher, made once.
static WHILE: LazyLock<FinderRev<'_>> = LazyLock::new(|| FinderRev::new(" while "));

/// Openings of messages that quote a backend's bytes, or a client's by way of a variable
/// in `proxy_pass`. nginx logs all of them with an action or a closing quote, so their
/// end is the first quote that a client follows.
const QUOTING_MESSAGES: [&str; 5] = [
    "upstream sent ",
    "upstream SSL certificate does not match \"",
    "FastCGI sent in stderr: \"",
    "memcached sent invalid ",
    "key: \"",
];

/// Does the message hold text that others wrote?
pub(super) fn is_quoting(body: &str) -> bool {
    let first = body.as_bytes().first();
    QUOTING_MESSAGES
        .iter()
        .any(|opening| opening.as_bytes().first() == first && body.starts_with(opening))
        || is_evaluated_url(body)
}

/// Is it a complaint about what `proxy_pass` came to with its variables, by
/// `ngx_parse_url` or `ngx_http_proxy_eval`?
fn is_evaluated_url(body: &str) -> bool {
    body.starts_with("invalid URL prefix in \"")
        || body
            .split_once('"')
            .is_some_and(|(before, _)| before.ends_with(" in upstream "))
}

/// Does a message that quotes its backend end here? Its quoted text runs to a quote;
/// a few such messages end in nginx's own words or quote nothing.
pub(super) fn quotation_is_closed(before: &str) -> bool {
    let message = match split_action(before) {
        Some((message, _)) => message,
        // An evaluated `proxy_pass` is looked at before there is any action.
        None if before.ends_with('"') && is_evaluated_url(before) => before,
        None => return false,
    };
    let message = split_errno(message).map_or(message, |(message, _, _)| message);
    let Some((_, quoted)) = message.split_once('"') else {
        return true;
    };
    ["Content-Length\" header", "headers at the same time"]
        .iter()
        .any(|end| message.ends_with(end))
        || quoted.ends_with('"')
        || quoted.ends_with("\", ignored")
        || quoted.ends_with("\" was not found by memcached")
}

/// Splits `message while action`. Actions are constant words in nginx's source; those
/// of a message's own ` while ` would have to be the last and as plain.
pub(super) fn split_action(text: &str) -> Option<(&str, &str)> {
    let at = WHILE.rfind(text.as_bytes())?;
    let (message, action) = (&text[..at], &text[at + " while ".len()..]);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" /-_.".contains(&byte);
    (!action.is_empty() && action.bytes().all(plain)).then_some((message, action))
}

/// Sets the message, and the errno at its end.
pub(super) fn set_message<'a>(line: &mut LogLine<'a>, text: &'a str) {
    line.message = text;
    if let Some((message, errno, errno_text)) = split_errno(text) {
        line.message = message;
        line.errno = Some(errno);
        line.errno_text = Some(errno_text);
    }
}

/// Splits off what `ngx_log_errno` put at a message's end: ` (104: Connection reset)`.
fn split_errno(text: &str) -> Option<(&str, u32, &str)> {
    let (message, inner) = text.strip_suffix(')')?.rsplit_once(" (")?;
    let (digits, errno_text) = inner.split_once(": ")?;
    // `could not be resolved (3: Host not found)` holds the resolver's own number.
    if errno_text.contains(')') || message.ends_with("could not be resolved") {
        return None;
    }
    let errno = u32::try_from(number(digits.as_bytes())?).ok()?;
    Some((message, errno, errno_text))
}
