//! A printer of lines: what nginx and Angie write for given fields, in each dialect.

use std::fmt::Write as _;

use super::*;

/// Whose lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// nginx, OpenResty, Tengine, freenginx, Angie before 1.12.0.
    Nginx,
    /// Angie from 1.12.0 on.
    Angie,
    /// Angie with `format=json`.
    Json,
}

pub(crate) const DIALECTS: [Dialect; 3] = [Dialect::Nginx, Dialect::Angie, Dialect::Json];

/// The fields of one line.
#[derive(Clone, Debug)]
pub(crate) struct Printed {
    pub(crate) level: Level,
    pub(crate) connection: Option<u64>,
    pub(crate) message: String,
    pub(crate) errno: Option<u32>,
    pub(crate) action: Option<&'static str>,
    pub(crate) client: &'static str,
    pub(crate) server: &'static str,
    pub(crate) of: Of,
}

/// What a module adds.
#[derive(Clone, Debug)]
pub(crate) enum Of {
    Http {
        request: String,
        subrequest: Option<String>,
        upstream: Option<String>,
        host: Option<String>,
        referrer: Option<String>,
    },
    Stream {
        udp: bool,
        upstream: Option<String>,
    },
}

impl Printed {
    /// The line as `dialect` has it, without its LF.
    pub(crate) fn print(&self, dialect: Dialect) -> String {
        match dialect {
            Dialect::Json => self.json(),
            Dialect::Nginx | Dialect::Angie => self.text(dialect == Dialect::Angie),
        }
    }

    fn text(&self, angie: bool) -> String {
        let mut text = format!("2026/11/22 18:22:06 [{}] 7#8: ", self.level.word());
        if let Some(connection) = self.connection {
            text += &format!("*{connection} ");
        }
        text += &self.message;
        if let Some(errno) = self.errno {
            text += &format!(" ({errno}: Some error)");
        }
        if let Some(action) = self.action {
            text += &format!(" while {action}");
        }
        let quote = if angie { "\"" } else { "" };
        let (client, server) = (self.client, self.server);
        let udp = matches!(self.of, Of::Stream { udp: true, .. });
        let before = if udp && !angie { "udp " } else { "" };
        text +=
            &format!(", {before}client: {quote}{client}{quote}, server: {quote}{server}{quote}");
        let mut quoted = |name: &str, value: Option<&String>| {
            if let Some(value) = value {
                let _ = write!(text, ", {name}: \"{value}\"");
            }
        };
        match &self.of {
            Of::Http {
                request,
                subrequest,
                upstream,
                host,
                referrer,
            } => {
                quoted(
                    if angie { "request_line" } else { "request" },
                    Some(request),
                );
                quoted("subrequest", subrequest.as_ref());
                quoted("upstream", upstream.as_ref());
                quoted("host", host.as_ref());
                quoted("referrer", referrer.as_ref());
            }
            Of::Stream { udp, upstream } => {
                if angie {
                    let protocol = if *udp { "udp" } else { "tcp" };
                    quoted("protocol", Some(&protocol.to_owned()));
                }
                quoted("upstream", upstream.as_ref());
                text += match (angie, udp) {
                    (false, _) => ", bytes from/to client:1/2, bytes from/to upstream:3/4",
                    (true, false) => ", bytes_from_client: 1, bytes_to_upstream: 4",
                    (true, true) => ", packets_from_client: 1, bytes_from_client: 1",
                };
            }
        }
        text
    }

    fn json(&self) -> String {
        let mut text = format!(
            "{{\"time\":\"2026-11-22T18:22:06.250Z\",\"level\":\"{}\",\"pid\":7,\"tid\":8",
            self.level.word()
        );
        if let Some(connection) = self.connection {
            text += &format!(",\"connection\":{connection}");
        }
        let pair = |name: &str, value: &str| format!(",\"{name}\":\"{}\"", escaped(value));
        text += &pair("message", &self.message);
        if let Some(errno) = self.errno {
            text += &format!(",\"error\":{{\"code\":{errno},\"message\":\"Some error\"}}");
        }
        let some = |name: &str, value: Option<&str>| {
            value.map(|value| pair(name, value)).unwrap_or_default()
        };
        let mut outer = some("action", self.action) + &pair("client", self.client);
        let (module, name, inner) = match &self.of {
            Of::Http {
                request,
                subrequest,
                upstream,
                host,
                referrer,
            } => {
                let inner = pair("server", self.server)
                    + &pair("request_line", request)
                    + &some("subrequest", subrequest.as_deref())
                    + &some("upstream", upstream.as_deref())
                    + &some("host", host.as_deref())
                    + &some("referrer", referrer.as_deref());
                ("http", "request", inner)
            }
            Of::Stream { udp, upstream } => {
                let protocol = if *udp { "udp" } else { "tcp" };
                outer += &pair("server", self.server);
                outer += &pair("protocol", protocol);
                let inner = some("upstream", upstream.as_deref()) + ",\"bytes_from_client\":1";
                ("stream", "session", inner)
            }
        };
        let (outer, inner) = (outer.trim_start_matches(','), inner.trim_start_matches(','));
        text + &format!(",\"{module}\":{{{outer},\"{name}\":{{{inner}}}}}}}")
    }
}

/// As `ngx_sprintf_json` escapes: quotes, backslashes and what is below a blank.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '"' | '\\' => escaped.extend(['\\', character]),
            '\n' => escaped += "\\n",
            '\r' => escaped += "\\r",
            '\t' => escaped += "\\t",
            character if character < ' ' => {
                let _ = write!(escaped, "\\u{:04X}", u32::from(character));
            }
            character => escaped.push(character),
        }
    }
    escaped
}
