//! Angie's JSON lines (`error_log FILE LEVEL format=json`, from Angie 1.12.0 on).
//!
//! One object a line, texts escaped, so that nothing in them can be forged
//! (`ngx_log_create_json_message`, its src/core/ngx_log.c). The context is an object
//! named after the module, `http`, `stream` or `mail`, with one inside for the request
//! or the session; of a module that knows nothing of JSON it is a string. The time is
//! UTC with milliseconds. A build with debug support adds the source's file name.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::{Level, LogLine};

/// How every such line begins.
pub(super) const OPENING: &str = "{\"time\":\"";

/// A text, borrowed from the line unless something in it was escaped.
#[derive(Debug, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A line's parts, unescaped.
#[derive(Debug, Deserialize)]
pub(super) struct JsonLine<'a> {
    #[serde(borrow)]
    time: Text<'a>,
    #[serde(borrow)]
    level: Text<'a>,
    pid: u32,
    #[serde(default)]
    tid: u32,
    connection: Option<u64>,
    #[serde(borrow)]
    message: Text<'a>,
    #[serde(borrow)]
    error: Option<Errno<'a>>,
    #[serde(borrow)]
    http: Option<Module<'a>>,
    #[serde(borrow)]
    stream: Option<Module<'a>>,
    #[serde(default)]
    truncated: bool,
}

#[derive(Debug, Deserialize)]
struct Errno<'a> {
    code: u32,
    #[serde(borrow)]
    message: Option<Text<'a>>,
}

/// `http` or `stream`; all texts of the inner object stand here too.
#[derive(Debug, Deserialize)]
struct Module<'a> {
    #[serde(borrow)]
    action: Option<Text<'a>>,
    #[serde(borrow)]
    client: Option<Text<'a>>,
    #[serde(borrow)]
    server: Option<Text<'a>>,
    #[serde(borrow)]
    request: Option<Request<'a>>,
    #[serde(borrow)]
    session: Option<Session<'a>>,
}

#[derive(Debug, Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    server: Option<Text<'a>>,
    #[serde(borrow)]
    request_line: Option<Text<'a>>,
    #[serde(borrow)]
    subrequest: Option<Text<'a>>,
    #[serde(borrow)]
    upstream: Option<Text<'a>>,
    #[serde(borrow)]
    host: Option<Text<'a>>,
    #[serde(borrow)]
    referrer: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
struct Session<'a> {
    #[serde(borrow)]
    upstream: Option<Text<'a>>,
}

impl Module<'_> {
    const NONE: Self = Self {
        action: None,
        client: None,
        server: None,
        request: None,
        session: None,
    };
}

impl Request<'_> {
    const NONE: Self = Self {
        server: None,
        request_line: None,
        subrequest: None,
        upstream: None,
        host: None,
        referrer: None,
    };
}

impl<'a> JsonLine<'a> {
    /// Reads a line; none if it is none of Angie's.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if !text.starts_with(OPENING) {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    /// Its fields under the names that all formats have.
    pub(super) fn fields(&self) -> Option<LogLine<'_>> {
        let module = self.http.as_ref().or(self.stream.as_ref());
        let module = module.unwrap_or(const { &Module::NONE });
        let request = module.request.as_ref().unwrap_or(const { &Request::NONE });
        let session = module.session.as_ref();
        Some(LogLine {
            stamp: stamp(&self.time.0)?,
            utc: true,
            level: Level::from_word(self.level.0.as_bytes())?,
            pid: self.pid,
            tid: self.tid,
            connection: self.connection,
            message: &self.message.0,
            errno: self.error.as_ref().map(|error| error.code),
            errno_text: self.error.as_ref().and_then(|error| text(&error.message)),
            action: text(&module.action),
            client: text(&module.client),
            server: text(&module.server).or_else(|| text(&request.server)),
            request: text(&request.request_line),
            subrequest: text(&request.subrequest),
            upstream: text(&request.upstream)
                .or_else(|| session.and_then(|session| text(&session.upstream))),
            host: text(&request.host),
            referrer: text(&request.referrer),
            truncated: self.truncated,
        })
    }
}

fn text<'t>(text: &'t Option<Text<'_>>) -> Option<&'t str> {
    text.as_ref().map(|text| &*text.0)
}

/// `2026-11-22T17:22:06.123Z`, whole seconds.
fn stamp(text: &str) -> Option<DateTime> {
    let time: Timestamp = text.parse().ok()?;
    let time = Timestamp::from_second(time.as_second()).ok()?;
    Some(time.to_zoned(TimeZone::UTC).datetime())
}
