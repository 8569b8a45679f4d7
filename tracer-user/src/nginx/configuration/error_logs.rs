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
    /// Why it is not followed.
    pub reason: &'static str,
}

/// Error logs that can be followed, and those that cannot.
pub(super) fn all(
    root: &Root,
    directives: &[Directive],
    prefix: &str,
    default: &str,
) -> (Vec<ErrorLog>, Vec<NotFollowed>) {
    let mut logs = Logs {
        root,
        prefix,
        files: Vec::new(),
        others: Vec::new(),
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
    if !main_has_file {
        logs.add(default, "error", false);
    }
    logs.visit(directives);
    (logs.files, logs.others)
}

struct Logs<'a> {
    root: &'a Root,
    prefix: &'a str,
    files: Vec<ErrorLog>,
    others: Vec<NotFollowed>,
}

impl Logs<'_> {
    fn visit(&mut self, directives: &[Directive]) {
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
                self.add(target, level.map_or("error", String::as_str), formatted);
            }
            self.visit(&directive.block);
        }
    }

    fn add(&mut self, target: &str, level: &str, formatted: bool) {
        let reason = if target.is_empty() || target == "stderr" {
            Some("it goes to standard error")
        } else if target.starts_with("syslog:") {
            Some("it goes to syslog")
        } else if target.starts_with("memory:") {
            Some("it stays in the worker's memory")
        } else if target.starts_with("pipe:") || target.starts_with('|') {
            Some("it goes to a program")
        } else if formatted {
            Some("its format is not nginx's own")
        } else {
            None
        };
        let path = full_name(target, self.prefix);
        let target = if reason.is_some() { target } else { &path };
        if let Some(reason) = reason.or_else(|| device(self.root, &path)) {
            let (target, level) = (target.to_owned(), level.to_owned());
            let other = NotFollowed {
                target,
                level,
                reason,
            };
            if !self.others.contains(&other) {
                self.others.push(other);
            }
            return;
        }
        let rank = |level: &str| LEVELS.iter().position(|&known| known == level).unwrap_or(7);
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
fn device(root: &Root, path: &str) -> Option<&'static str> {
    let mut path = path.to_owned();
    for _ in 0..8 {
        match path.as_str() {
            "/dev/null" => return Some("it goes to /dev/null"),
            "/dev/stderr" | "/proc/self/fd/2" => return Some("it goes to standard error"),
            "/dev/stdout" | "/proc/self/fd/1" => return Some("it goes to standard output"),
            _ => {}
        }
        let target = root.link(Path::new(&path))?;
        let end = path.rfind('/').map_or(0, |slash| slash + 1);
        path = full_name(target.to_str()?, &path[..end]);
    }
    None
}
