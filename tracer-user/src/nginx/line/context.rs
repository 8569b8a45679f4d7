//! The context behind a message: client, server, request, upstream and what follows.
//!
//! Two dialects. nginx, OpenResty, Tengine, freenginx and Angie before 1.12.0 write
//! client and server bare and the request as `request: "..."`; Angie from 1.12.0 on
//! quotes every text and writes `request_line: "..."` (`ngx_log_property`, its
//! src/core/ngx_log.c). The order of the fields is the same.

use std::net::{IpAddr, SocketAddr};

use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::{memchr_iter, memmem};

use super::LogLine;
use super::message_end::{is_quoting, quotation_is_closed};

/// Searchers for what every line has; making one costs more than searching a line.
static CLIENT: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("client: "));
static VERSION: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(" HTTP/"));

/// The longest address in a line: an IPv6 address with scope and port, `unix:`.
const LONGEST_ADDRESS: usize = 80;

/// How the quoted fields follow each other in one dialect.
struct Dialect {
    /// What a client's and a server's value is enclosed in.
    quote: &'static str,
    request: &'static str,
    /// What may end the server's name.
    after_server: &'static [&'static str],
    after_upstream: &'static [&'static str],
}

const NGINX: Dialect = Dialect {
    quote: "",
    request: ", request: \"",
    after_server: &[
        ", request: \"",
        ", upstream: \"",
        // A stream session without a peer.
        ", bytes from/to client:",
    ],
    after_upstream: &[", host: \"", ", referrer: \"", ", bytes from/to client:"],
};

const ANGIE: Dialect = Dialect {
    quote: "\"",
    request: ", request_line: \"",
    after_server: &[
        "\", request_line: \"",
        "\", upstream: \"",
        "\", protocol: \"",
        "\", host: \"",
    ],
    after_upstream: &[
        ", host: \"",
        ", referrer: \"",
        ", packets_from_client: ",
        ", bytes_from_client: ",
    ],
};

/// What may follow each quoted value, besides the record's end.
const AFTER_REQUEST: [&str; 4] = [
    ", subrequest: \"",
    ", upstream: \"",
    ", host: \"",
    ", referrer: \"",
];
const AFTER_SUBREQUEST: [&str; 3] = [", upstream: \"", ", host: \"", ", referrer: \""];
const AFTER_HOST: [&str; 1] = [", referrer: \""];

/// Where the context begins: `before, client: ADDRESS, server: after`.
pub(super) struct Client<'a> {
    pub(super) before: &'a str,
    pub(super) address: &'a str,
    after: &'a str,
    dialect: &'static Dialect,
}

/// The first `, client: ADDRESS, server: `. The client writes only to its right; where
/// a backend wrote to its left, the message's closing quote and an action must precede.
pub(super) fn find_client(body: &str) -> Option<Client<'_>> {
    let quoting = is_quoting(body);
    let mut first = None;
    for at in CLIENT.find_iter(body.as_bytes()) {
        let before = &body[..at];
        let Some(before) = before
            .strip_suffix(", udp ")
            .or_else(|| before.strip_suffix(", "))
        else {
            continue;
        };
        let Some((address, after, dialect)) = split_client(&body[at + "client: ".len()..]) else {
            continue;
        };
        let client = Client {
            before,
            address,
            after,
            dialect,
        };
        if !quoting || quotation_is_closed(before) {
            return Some(client);
        }
        first.get_or_insert(client);
    }
    first
}

/// Splits `ADDRESS, server: after`.
fn split_client(text: &str) -> Option<(&str, &str, &'static Dialect)> {
    let (dialect, text) = match text.strip_prefix('"') {
        Some(text) => (&ANGIE, text),
        None => (&NGINX, text),
    };
    let comma = text
        .as_bytes()
        .iter()
        .take(LONGEST_ADDRESS)
        .position(|&byte| byte == b',')?;
    let (address, after) = text.split_at(comma);
    let address = address.strip_suffix(dialect.quote)?;
    let after = after.strip_prefix(", server: ")?;
    let after = after.strip_prefix(dialect.quote)?;
    let known = address == "unix:"
        || address.parse::<IpAddr>().is_ok()
        || address.parse::<SocketAddr>().is_ok();
    known.then_some((address, after, dialect))
}

/// Reads what follows the client. `cut` says that the line has the greatest length.
pub(super) fn read<'a>(line: &mut LogLine<'a>, client: &Client<'a>, cut: bool) {
    line.client = Some(client.address);
    let dialect = client.dialect;
    let (server, mut rest) = split_server(client.after, dialect);
    line.server = Some(server);

    if let Some(value) = rest.strip_prefix(dialect.request) {
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
    if let Some(value) = rest.strip_prefix(", subrequest: \"") {
        match split_subrequest(value, line.request) {
            Some((subrequest, after)) => {
                line.subrequest = Some(subrequest);
                line.truncated |= after.is_none();
                rest = after.unwrap_or_default();
            }
            None => {
                line.subrequest = Some(split_quoted(value, &AFTER_SUBREQUEST).0);
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
    // Angie's stream module says which protocol before the upstream.
    field(
        ", protocol: \"",
        &[
            ", upstream: \"",
            ", packets_from_client: ",
            ", bytes_from_client: ",
        ],
    );
    line.upstream = field(", upstream: \"", dialect.after_upstream);
    line.host = field(", host: \"", &AFTER_HOST);
    line.referrer = field(", referrer: \"", &[]);
}

/// The server's name is the configuration's, so nobody forges what ends it.
fn split_server<'a>(context: &'a str, dialect: &Dialect) -> (&'a str, &'a str) {
    // The first comma that one of them begins at: a name has none, as a rule.
    let start = dialect.quote.len();
    let end = memchr_iter(b',', context.as_bytes())
        .filter_map(|comma| comma.checked_sub(start))
        .find(|&end| {
            let rest = &context.as_bytes()[end..];
            dialect
                .after_server
                .iter()
                .any(|field| rest.starts_with(field.as_bytes()))
        });
    match end {
        Some(end) => {
            let (server, rest) = context.split_at(end);
            (server, rest.strip_prefix(dialect.quote).unwrap_or(rest))
        }
        None => (context.strip_suffix(dialect.quote).unwrap_or(context), ""),
    }
}

/// Splits at the end of the request line: the first ` HTTP/x.y"`. nginx never accepted
/// that inside an HTTP/1.x request line, though before 1.21.1 it accepted spaces and
/// with them `", upstream: "`. `None` if the end cannot be told.
fn split_request(value: &str, cut: bool) -> Option<(&str, &str)> {
    for at in VERSION.find_iter(value.as_bytes()) {
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

/// Splits at the end of the subrequest's URI, the second part `None` if the line was cut
/// in it. The URI is decoded, so a client whose path it is (slices, background updates
/// of a cache, includes) can write `", upstream: "` into it, if its request has a quote.
/// `None` if it cannot be told whose words name the upstream.
fn split_subrequest<'a>(
    value: &'a str,
    request: Option<&str>,
) -> Option<(&'a str, Option<&'a str>)> {
    let quotes = request.is_none_or(|request| request.contains('"') || request.contains("%22"));
    if !quotes {
        return Some(split_quoted(value, &AFTER_SUBREQUEST));
    }
    // The subrequest of a slice or of an update has its request's own path.
    let path = decoded_path(request?);
    let after = value.strip_prefix(path.as_str())?.strip_prefix('"')?;
    after_quote(after, &AFTER_SUBREQUEST).map(|after| (&value[..path.len()], after))
}

/// The path of a request line as nginx decodes it, as far as `%XX` go.
fn decoded_path(request: &str) -> String {
    let target = request.split(' ').nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default().as_bytes();
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        let pair = path.get(at + 1..at + 3).filter(|_| byte == b'%');
        let code = pair
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        decoded.push(code.unwrap_or(byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Splits at the first quote that one of `followers` or the record's end follows; the
/// second part is `None` if the line was cut, in the value or in what follows it.
fn split_quoted<'a>(value: &'a str, followers: &[&str]) -> (&'a str, Option<&'a str>) {
    for quote in memchr_iter(b'"', value.as_bytes()) {
        if let Some(after) = after_quote(&value[quote + 1..], followers) {
            return (&value[..quote], after);
        }
    }
    (value, None)
}

/// Is `text`, behind a quote, the record's end, one of `followers`, or so much of one as
/// nginx left of a line that it cut? Of the last nothing is given back.
fn after_quote<'a>(text: &'a str, followers: &[&str]) -> Option<Option<&'a str>> {
    if text.is_empty() || followers.iter().any(|field| text.starts_with(field)) {
        return Some(Some(text));
    }
    let begun = followers.iter().any(|field| field.starts_with(text));
    begun.then_some(None)
}
