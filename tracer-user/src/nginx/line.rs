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
//! What a message means is the business of [`super::message`]; the context of mail
//! proxy lines is not read.

use jiff::civil::DateTime;

use self::head::{Head, number};
use self::json::JsonLine;
use self::message_end::{set_message, split_action};

mod context;
mod head;
mod json;
mod level;
mod message_end;
mod upstream;

pub use head::pid_of_line;
pub use level::Level;
pub use upstream::{UpstreamAddress, UpstreamPeer};

#[cfg(test)]
mod tests;

/// Bytes of the longest line without its LF: `NGX_MAX_ERROR_STR` is 2048 in nginx,
/// and 4096 by OpenResty's patch `larger_max_error_str`. nginx cuts without a mark.
const CUT_LENGTHS: [usize; 2] = [2047, 4095];

/// One record of the error log. All texts are as nginx wrote them: hostile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// Whole seconds of the event loop's last turn, in the nginx process's local time
    /// unless [`LogLine::utc`] says otherwise.
    pub stamp: DateTime,
    /// The stamp is UTC: Angie's JSON lines.
    pub utc: bool,
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
    Head::parse(line).is_some() || line.starts_with(json::OPENING.as_bytes())
}

/// Takes a record in any of the formats apart and hands its fields on; `None` if it
/// begins in none of them.
pub fn read<T>(text: &str, with: impl FnOnce(&LogLine<'_>) -> T) -> Option<T> {
    if let Some(line) = parse(text) {
        return Some(with(&line));
    }
    let json = JsonLine::parse(text)?;
    Some(with(&json.fields()?))
}

/// Takes a record in nginx's own format apart; `None` if it does not begin so. `text` may
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
        utc: false,
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
    match context::find_client(body) {
        Some(client) => {
            line.message = client.before;
            context::read(&mut line, &client, cut);
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
