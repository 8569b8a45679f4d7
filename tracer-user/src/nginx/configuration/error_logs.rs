//! Where a configuration sends error lines.

use std::path::Path;

use super::full_name;
use super::tree::Directive;
use crate::nginx::processes::Root;
use crate::trace::record::ErrorLog;

/// Levels from few lines to many.
const LEVELS: [&str; 8] = [
    "emerg", "alert", "crit", "error", "warn", "notice", "info", "debug",
];

/// An error log that is no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFollowed {
    /// As the directive has it; a file's path is resolved.
    pub target: String,
    /// Its level.
    pub level: String,
    /// What it is.
    pub kind: LogKind,
    /// No file of the same context gets all of its lines.
    pub alone: bool,
}

/// Where an error log goes that is no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// nginx's descriptor 2.
    StandardError,
    /// nginx's descriptor 1.
    StandardOutput,
    /// Nowhere.
    Null,
    /// A syslog server.
    Syslog,
    /// The worker's memory.
    Memory,
    /// A program's standard input.
    Program,
    /// A file or device, in another format.
    Formatted,
}

impl LogKind {
    /// Are its lines seen by any means?
    const fn is_read(self) -> bool {
        !matches!(self, Self::Memory | Self::Program | Self::Formatted)
    }

    /// Why it is not followed as a file is.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::StandardError => "it goes to standard error",
            Self::StandardOutput => "it goes to standard output",
            Self::Null => "it goes to /dev/null",
            Self::Syslog => "it goes to syslog",
            Self::Memory => "it stays in the worker's memory",
            Self::Program => "it goes to a program",
            Self::Formatted => "its format is not nginx's own",
        }
    }
}

/// What a configuration says of error lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorLogs {
    /// Those that can be followed.
    pub(super) files: Vec<ErrorLog>,
    /// Those that cannot.
    pub(super) others: Vec<NotFollowed>,
    /// The place where requests' lines are hidden the most, if it is known: the log that
    /// gets the most lines there, and its level.
    pub(super) narrowest: Option<(String, String)>,
}

/// Error logs that can be followed, and those that cannot.
pub(super) fn all(root: &Root, directives: &[Directive], prefix: &str, default: &str) -> ErrorLogs {
    let mut logs = Logs {
        root,
        prefix,
        files: Vec::new(),
        others: Vec::new(),
        narrowest: None,
    };
    // Without a file or stderr in the main context nginx opens the compiled-in log as
    // well, whatever inner contexts name (`ngx_log_open_default`).
    let main_has_file = directives.iter().any(|directive| {
        directive.name == "error_log"
            && !["syslog:", "memory:"].iter().any(|kind| {
                directive
                    .argument(0)
                    .is_some_and(|target| target.starts_with(kind))
            })
    });
    let mut main = Context::default();
    if !main_has_file {
        logs.add(default, "error", false, &mut main);
    }
    let is_inherited = |wholly: bool| {
        directives
            .iter()
            .filter(|directive| has_servers(directive))
            .any(|part| !names_a_log(part) && (!wholly || is_logged_around_servers(part)))
    };
    let use_of_main = Use {
        in_force: is_inherited(false),
        of_requests: is_inherited(true),
    };
    logs.visit(directives, main, use_of_main);
    ErrorLogs {
        files: logs.files,
        others: logs.others,
        narrowest: logs
            .narrowest
            .and_then(|(rank, log)| Some((log, (*LEVELS.get(rank)?).to_owned()))),
    }
}

fn has_servers(directive: &Directive) -> bool {
    matches!(directive.name.as_str(), "http" | "stream" | "mail")
}

fn names_a_log(directive: &Directive) -> bool {
    directive
        .block
        .iter()
        .any(|inner| inner.name == "error_log")
}

/// Is there a server whose lines go to the log around it? One without servers may get them.
fn is_logged_around_servers(part: &Directive) -> bool {
    let mut servers = part.block.iter().filter(|inner| inner.name == "server");
    let all_have_their_own = servers.clone().all(names_a_log);
    servers.next().is_none() || !all_have_their_own
}

/// What the logs of a context are for.
#[derive(Clone, Copy)]
struct Use {
    /// Lines go there that are of no request, or of one.
    in_force: bool,
    /// Lines of requests or sessions do.
    of_requests: bool,
}

fn rank(level: &str) -> usize {
    LEVELS.iter().position(|&known| known == level).unwrap_or(7)
}

/// The logs of one context: a line goes to all of them, and to none further out.
#[derive(Default)]
struct Context {
    /// The widest level of a file, and the file.
    file: Option<(usize, String)>,
    /// The others, by their place in the list, and their levels.
    others: Vec<(usize, usize)>,
}

struct Logs<'a> {
    root: &'a Root,
    prefix: &'a str,
    files: Vec<ErrorLog>,
    others: Vec<NotFollowed>,
    /// Of the contexts that lines of requests go to, the smallest of their widest levels, and
    /// the log that has it.
    narrowest: Option<(usize, String)>,
}

impl Logs<'_> {
    fn visit(&mut self, directives: &[Directive], mut context: Context, is_for: Use) {
        for directive in directives {
            if directive.name == "error_log" {
                let (target, options) = match directive.arguments.split_first() {
                    Some((target, options)) => (target.as_str(), options),
                    None => continue,
                };
                let level = options.iter().find(|option| !option.contains('='));
                // Angie from 1.12.0 on writes JSON if told so, which is read.
                let formatted = options.iter().any(|option| {
                    option
                        .strip_prefix("format=")
                        .is_some_and(|format| format != "json")
                });
                let level = level.map_or("error", String::as_str);
                self.add(target, level, formatted, &mut context);
            }
            let inner = Use {
                in_force: true,
                of_requests: !has_servers(directive) || is_logged_around_servers(directive),
            };
            self.visit(&directive.block, Context::default(), inner);
        }
        let others = context.others.iter().filter_map(|(index, level)| {
            let log = self.others.get(*index)?;
            log.kind.is_read().then(|| (*level, log.target.clone()))
        });
        let widest = others
            .chain(context.file.clone())
            .max_by_key(|(level, _)| *level);
        if is_for.of_requests
            && let Some(widest) = widest
            && self
                .narrowest
                .as_ref()
                .is_none_or(|(known, _)| widest.0 < *known)
        {
            self.narrowest = Some(widest);
        }
        for (index, level) in context.others {
            if is_for.in_force
                && context.file.as_ref().is_none_or(|(file, _)| *file < level)
                && let Some(other) = self.others.get_mut(index)
            {
                other.alone = true;
            }
        }
    }

    fn add(&mut self, target: &str, level: &str, formatted: bool, context: &mut Context) {
        let kind = if target.is_empty() || target == "stderr" {
            Some(LogKind::StandardError)
        } else if target.starts_with("syslog:") {
            Some(LogKind::Syslog)
        } else if target.starts_with("memory:") {
            Some(LogKind::Memory)
        } else if target.starts_with("pipe:") || target.starts_with('|') {
            Some(LogKind::Program)
        } else {
            None
        };
        // Another format hides what a device would show.
        let kind = if formatted {
            Some(LogKind::Formatted)
        } else {
            kind
        };
        let path = full_name(target, self.prefix);
        let target = if kind.is_some() { target } else { &path };
        if let Some(kind) = kind.or_else(|| device(self.root, &path)) {
            let known = self
                .others
                .iter()
                .position(|other| other.target == target && other.level == level);
            let index = known.unwrap_or(self.others.len());
            if known.is_none() {
                self.others.push(NotFollowed {
                    target: target.to_owned(),
                    level: level.to_owned(),
                    kind,
                    alone: false,
                });
            }
            context.others.push((index, rank(level)));
            return;
        }
        let is_wider = |(known, _): &(usize, String)| *known < rank(level);
        if context.file.as_ref().is_none_or(is_wider) {
            context.file = Some((rank(level), path.clone()));
        }
        match self.files.iter_mut().find(|known| known.path == path) {
            Some(known) => {
                // One file with two levels gets the lines of the wider one.
                if known
                    .level
                    .as_deref()
                    .is_some_and(|level_now| rank(level_now) < rank(level))
                {
                    known.level = Some(level.to_owned());
                }
            }
            None => self.files.push(ErrorLog {
                path,
                level: Some(level.to_owned()),
            }),
        }
    }
}

/// Images make logs links to `/dev/stderr`. Links are followed by name: opening
/// `/proc/self/fd/2` would lead to the reader's own descriptor.
fn device(root: &Root, path: &str) -> Option<LogKind> {
    let mut path = path.to_owned();
    for _ in 0..8 {
        match path.as_str() {
            "/dev/null" => return Some(LogKind::Null),
            "/dev/stderr" | "/proc/self/fd/2" => return Some(LogKind::StandardError),
            "/dev/stdout" | "/proc/self/fd/1" => return Some(LogKind::StandardOutput),
            _ => {}
        }
        let target = root.link(Path::new(&path))?;
        let end = path.rfind('/').map_or(0, |slash| slash + 1);
        path = full_name(target.to_str()?, &path[..end]);
    }
    None
}
