//! One record of the error log, taken apart into its fields.
//!
//! The order of the fields is that of `ngx_log_error_core` (src/core/ngx_log.c),
//! `ngx_http_log_error_handler` (src/http/ngx_http_request.c) and
//! `ngx_stream_log_error` (src/stream/ngx_stream_handler.c), the same from nginx
//! 1.14 to 1.31. nginx escapes nothing: clients write the request line, `Host` and
//! `Referer`, backends the text inside messages such as `upstream sent invalid
//! header: "..."`. Fields are therefore found from the left, each by what must follow
//! it; text to the right of a field never changes it. Where forged text cannot be told
//! from nginx's own (a backend that writes a whole tail into its header, a decoded
//! subrequest URI, an HTTP/2 path with ` HTTP/1.1"` in it before 1.21.1) the leftmost
//! reading stands, and a socket's facts outrank it.
//!
//! What a message means is the business of [`super::message`]; mail proxy lines and
//! Angie's JSON format are not read.

use std::net::IpAddr;

use jiff::civil::DateTime;
use memchr::{memchr, memchr_iter, memmem};

mod level;
mod upstream;

pub use level::Level;
pub use upstream::{UpstreamAddress, UpstreamPeer};

#[cfg(test)]
mod tests;

/// Bytes of the longest line without its LF: `NGX_MAX_ERROR_STR` is 2048 in nginx,
/// and 4096 by OpenResty's patch `larger_max_error_str`. nginx cuts without a mark.
const CUT_LENGTHS: [usize; 2] = [2047, 4095];

/// Openings of messages that quote a backend's bytes. nginx logs all of them with an
/// action, so their end is the first quote that an action and a client follow.
const QUOTING_MESSAGES: [&str; 5] = [
    "upstream sent ",
    "upstream SSL certificate does not match \"",
    "FastCGI sent in stderr: \"",
    "memcached sent invalid ",
    "key: \"",
];

/// What may follow each quoted value, besides the record's end.
const AFTER_REQUEST: [&str; 4] = [
    ", subrequest: \"",
    ", upstream: \"",
    ", host: \"",
    ", referrer: \"",
];
const AFTER_SUBREQUEST: [&str; 3] = [", upstream: \"", ", host: \"", ", referrer: \""];
const AFTER_UPSTREAM: [&str; 3] = [", host: \"", ", referrer: \"", ", bytes from/to client:"];
const AFTER_HOST: [&str; 1] = [", referrer: \""];

/// One record of the error log. All texts are as nginx wrote them: hostile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// Local time of the nginx process, whole seconds, of the event loop's last turn.
    pub stamp: DateTime,
    /// Level.
    pub level: Level,
    /// Pid in nginx's own pid namespace.
    pub pid: u32,
    /// Thread; 0 if nginx was built without threads.
    pub tid: u32,
    /// `*N`: number of the client's connection, unique per start of nginx.
    pub connection: Option<u64>,
    /// The message without errno, action and context.
    pub message: &'a str,
    /// Number in ` (104: Connection reset by peer)` at the message's end.
    pub errno: Option<u32>,
    /// Text in the same place.
    pub errno_text: Option<&'a str>,
    /// What nginx was doing, e.g. `reading response header from upstream`.
    pub action: Option<&'a str>,
    /// Client's address without port, or `unix:`.
    pub client: Option<&'a str>,
    /// First `server_name`, may be empty; listening address if there is no request.
    pub server: Option<&'a str>,
    /// Request line.
    pub request: Option<&'a str>,
    /// Decoded URI of the subrequest that the line is about.
    pub subrequest: Option<&'a str>,
    /// The upstream as printed; see [`LogLine::upstream_address`].
    pub upstream: Option<&'a str>,
    /// `Host` header.
    pub host: Option<&'a str>,
    /// `Referer` header.
    pub referrer: Option<&'a str>,
    /// nginx cut the line: it has the greatest length, or ends inside a quoted value.
    /// Fields may be missing, the last one may be incomplete.
    pub truncated: bool,
}

impl<'a> LogLine<'a> {
    /// Address of the upstream that the line names.
    #[must_use]
    pub fn upstream_address(&self) -> Option<UpstreamAddress<'a>> {
        UpstreamAddress::parse(self.upstream?, self.request)
    }
}

/// Does this physical line start a record, or continue the one before it? FastCGI
/// stderr, decoded subrequest URIs and some backend texts hold raw line feeds.
#[must_use]
pub fn starts_record(line: &[u8]) -> bool {
    Head::parse(line).is_some()
}

/// Takes a record apart; `None` if it does not begin as nginx's lines do. `text` may
/// hold several physical lines joined by LF.
#[must_use]
pub fn parse(text: &str) -> Option<LogLine<'_>> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let head = Head::parse(text.as_bytes())?;
    let (connection, body) = split_connection(text.get(head.len..)?);
    let cut = CUT_LENGTHS.contains(&text.len())
        || (text.len() > CUT_LENGTHS[0] && CUT_LENGTHS.contains(&text.chars().count()));

    let mut line = LogLine {
        stamp: head.stamp,
        level: head.level,
        pid: head.pid,
        tid: head.tid,
        connection,
        message: body,
        errno: None,
        errno_text: None,
        action: None,
        client: None,
        server: None,
        request: None,
        subrequest: None,
        upstream: None,
        host: None,
        referrer: None,
        truncated: cut,
    };
    match find_client(body) {
        Some(client) => {
            line.message = client.before;
            line.client = Some(client.address);
            read_context(&mut line, client.after, cut);
        }
        // A cut line may have lost its client but still name the action.
        None if !cut => {
            set_message(&mut line, body);
            return Some(line);
        }
        None => {}
    }
    let mut message = line.message;
    if let Some((before, action)) = split_action(message) {
        line.action = Some(action);
        message = before;
    }
    set_message(&mut line, message);
    Some(line)
}

/// `2026/11/22 18:22:06 [error] 13732#13732: `
struct Head {
    stamp: DateTime,
    level: Level,
    pid: u32,
    tid: u32,
    /// Bytes up to the message or `*N`.
    len: usize,
}

impl Head {
    fn parse(line: &[u8]) -> Option<Self> {
        let stamp = parse_stamp(line.get(..19)?)?;
        let rest = line.get(19..)?.strip_prefix(b" [")?;
        let (word, rest) = split_at_byte(rest, b']', 6)?;
        let level = Level::from_word(word)?;
        let (pid, rest) = split_at_byte(rest.strip_prefix(b" ")?, b'#', 10)?;
        let (tid, rest) = split_at_byte(rest, b':', 10)?;
        let rest = rest.strip_prefix(b" ")?;
        Some(Self {
            stamp,
            level,
            pid: u32::try_from(number(pid)?).ok()?,
            tid: u32::try_from(number(tid)?).ok()?,
            len: line.len() - rest.len(),
        })
    }
}

/// `2026/11/22 18:22:06`
fn parse_stamp(stamp: &[u8]) -> Option<DateTime> {
    let separators = [(4, b'/'), (7, b'/'), (10, b' '), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, byte)| stamp[at] != byte) {
        return None;
    }
    let two = |at: usize| i8::try_from(number(&stamp[at..at + 2])?).ok();
    DateTime::new(
        i16::try_from(number(&stamp[..4])?).ok()?,
        two(5)?,
        two(8)?,
        two(11)?,
        two(14)?,
        two(17)?,
        0,
    )
    .ok()
}

/// Splits at the first `byte`, which must stand within the first `limit` bytes and one.
fn split_at_byte(text: &[u8], byte: u8, limit: usize) -> Option<(&[u8], &[u8])> {
    let end = memchr(byte, &text[..text.len().min(limit + 1)])?;
    Some((&text[..end], &text[end + 1..]))
}

/// A decimal number of ASCII digits only.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// `*12 rest`
fn split_connection(body: &str) -> (Option<u64>, &str) {
    let split = || {
        let (digits, rest) = body.strip_prefix('*')?.split_once(' ')?;
        Some((number(digits.as_bytes())?, rest))
    };
    match split() {
        Some((connection, rest)) => (Some(connection), rest),
        None => (None, body),
    }
}

/// Where the context begins: `before, client: ADDRESS, server: after`.
struct Client<'a> {
    before: &'a str,
    address: &'a str,
    after: &'a str,
}

/// The first `, client: ADDRESS, server: `. The client writes only to its right; where
/// a backend wrote to its left, the message's closing quote and an action must precede.
fn find_client(body: &str) -> Option<Client<'_>> {
    let quoting = QUOTING_MESSAGES
        .iter()
        .any(|opening| body.starts_with(opening));
    let mut first = None;
    for at in memmem::find_iter(body.as_bytes(), "client: ") {
        let (before, after) = (&body[..at], &body[at + "client: ".len()..]);
        let Some(before) = before
            .strip_suffix(", udp ")
            .or_else(|| before.strip_suffix(", "))
        else {
            continue;
        };
        let Some((address, after)) = after.split_once(", server: ") else {
            continue;
        };
        if address != "unix:" && address.parse::<IpAddr>().is_err() {
            continue;
        }
        let client = Client {
            before,
            address,
            after,
        };
        if !quoting || quotation_is_closed(before) {
            return Some(client);
        }
        first.get_or_insert(client);
    }
    first
}

/// Does a message that quotes its backend end here? Its quoted text runs to a quote;
/// a few such messages end in nginx's own words or quote nothing.
fn quotation_is_closed(before: &str) -> bool {
    let Some((message, _)) = split_action(before) else {
        return false;
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
fn split_action(text: &str) -> Option<(&str, &str)> {
    let (message, action) = text.rsplit_once(" while ")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" /-_.".contains(&byte);
    (!action.is_empty() && action.bytes().all(plain)).then_some((message, action))
}

/// Sets the message, and the errno at its end.
fn set_message<'a>(line: &mut LogLine<'a>, text: &'a str) {
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

/// Reads what follows `, server: `. `cut` says that the line has the greatest length.
fn read_context<'a>(line: &mut LogLine<'a>, context: &'a str, cut: bool) {
    // The server's name is the configuration's, so nobody forges what ends it.
    let end = [", request: \"", ", upstream: \""]
        .iter()
        .filter_map(|field| memmem::find(context.as_bytes(), field.as_bytes()))
        .min();
    let (server, mut rest) = context.split_at(end.unwrap_or(context.len()));
    line.server = Some(server);

    if let Some(value) = rest.strip_prefix(", request: \"") {
        match split_request(value, cut) {
            Some((request, after)) => {
                line.request = Some(request);
                rest = after;
            }
            None => {
                line.request = Some(value.strip_suffix('"').unwrap_or(value));
                line.truncated |= cut || !value.ends_with('"');
                return;
            }
        }
    }
    let mut field = |name: &str, followers: &[&str]| {
        let value = rest.strip_prefix(name)?;
        let (value, after) = split_quoted(value, followers);
        line.truncated |= after.is_none();
        rest = after.unwrap_or_default();
        Some(value)
    };
    line.subrequest = field(", subrequest: \"", &AFTER_SUBREQUEST);
    line.upstream = field(", upstream: \"", &AFTER_UPSTREAM);
    line.host = field(", host: \"", &AFTER_HOST);
    line.referrer = field(", referrer: \"", &[]);
}

/// Splits at the end of the request line: the first ` HTTP/x.y"`. nginx never accepted
/// that inside an HTTP/1.x request line, though before 1.21.1 it accepted spaces and
/// with them `", upstream: "`. `None` if the end cannot be told.
fn split_request(value: &str, cut: bool) -> Option<(&str, &str)> {
    for at in memmem::find_iter(value.as_bytes(), " HTTP/") {
        let version = &value[at + " HTTP/".len()..];
        let after = version.trim_start_matches(|byte: char| byte.is_ascii_digit() || byte == '.');
        // nginx keeps spaces that follow the version.
        if after.len() < version.len()
            && let Some(after) = after.trim_start_matches(' ').strip_prefix('"')
        {
            return Some((&value[..value.len() - after.len() - 1], after));
        }
    }
    // An HTTP/0.9 request, or a request that nginx rejected or the line's end cut.
    let named_upstreams = memmem::find_iter(value.as_bytes(), "\", upstream: \"").count();
    if cut || named_upstreams > 1 {
        return None;
    }
    match split_quoted(value, &AFTER_REQUEST) {
        (request, Some(after)) => Some((request, after)),
        (_, None) => None,
    }
}

/// Splits at the first quote that one of `followers` or the record's end follows; the
/// second part is `None` if there is none, i.e. the value was cut.
fn split_quoted<'a>(value: &'a str, followers: &[&str]) -> (&'a str, Option<&'a str>) {
    for quote in memchr_iter(b'"', value.as_bytes()) {
        let after = &value[quote + 1..];
        if after.is_empty() || followers.iter().any(|field| after.starts_with(field)) {
            return (&value[..quote], Some(after));
        }
    }
    (value, None)
}
