//! The directives of a configuration with its includes put in their places.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use glob::{MatchOptions, Pattern};

use super::tokens::{Statement, Tokens};
use crate::nginx::processes::Root;

/// Longer files hold data, not directives.
const LONGEST_FILE: u64 = 16 << 20;
/// Files read at most: a guard against includes that multiply.
const MOST_FILES: usize = 10_000;
/// Blocks and includes nest no deeper.
const DEEPEST: usize = 64;
/// Blocks that hold data: what they include may be huge and has no directives.
pub(super) const DATA_BLOCKS: [&str; 5] = ["map", "geo", "types", "split_clients", "charset_map"];

/// A directive with all that is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    /// Empty for a directive without a block.
    pub(super) block: Vec<Self>,
}

impl Directive {
    pub(super) fn argument(&self, at: usize) -> Option<&str> {
        self.arguments.get(at).map(String::as_str)
    }

    /// The arguments joined by spaces.
    pub(super) fn value(&self) -> String {
        self.arguments.join(" ")
    }
}

/// Reads files and collects what is wrong with them.
#[derive(Debug)]
pub(super) struct Loader<'a> {
    root: &'a Root,
    /// Directory of the main file, with a slash at its end: includes are relative to
    /// it wherever they stand (`ngx_conf_full_name` with `conf_prefix`).
    directory: String,
    /// Files being read, outermost first.
    open: Vec<String>,
    files: usize,
    /// When the newest of them was changed, in seconds since 1970 UTC.
    pub(super) newest_change_s: i64,
    pub(super) problems: Vec<String>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(root: &'a Root, main_file: &str) -> Self {
        let end = main_file.rfind('/').map_or(0, |slash| slash + 1);
        Self {
            root,
            directory: main_file[..end].to_owned(),
            open: Vec::new(),
            files: 0,
            newest_change_s: 0,
            problems: Vec::new(),
        }
    }

    /// Directives of a file; `None` if it cannot be read at all.
    pub(super) fn file(&mut self, path: &str) -> Option<Vec<Directive>> {
        if self.open.iter().any(|open| open == path) {
            self.problems.push(format!("{path} includes itself"));
            return None;
        }
        if self.open.len() >= DEEPEST || self.files >= MOST_FILES {
            self.problems
                .push(format!("{path} is not read: too many files"));
            return None;
        }
        self.files += 1;
        let text = match self.root.read(Path::new(path), LONGEST_FILE) {
            Ok(text) => text,
            Err(error) => {
                self.problems.push(format!("cannot read {path}: {error}"));
                return None;
            }
        };
        if let Ok(metadata) = self.root.metadata(Path::new(path)) {
            self.newest_change_s = self.newest_change_s.max(metadata.mtime());
        }
        self.open.push(path.to_owned());
        let directives = self.text(path, &text);
        self.open.pop();
        Some(directives)
    }

    /// Directives of a text that `name` stands for in problems.
    pub(super) fn text(&mut self, name: &str, text: &[u8]) -> Vec<Directive> {
        self.block(name, &mut Tokens::new(text), 0, true)
    }

    fn block(
        &mut self,
        name: &str,
        tokens: &mut Tokens<'_>,
        depth: usize,
        include: bool,
    ) -> Vec<Directive> {
        let mut directives = Vec::new();
        loop {
            let (words, opens) = match tokens.next_statement() {
                Ok(Statement::Simple(words)) => (words, false),
                Ok(Statement::Block(words)) => (words, true),
                Ok(Statement::Close) if depth > 0 => return directives,
                Ok(Statement::Close) => {
                    self.problems.push(format!("{name}: a \"}}\" too many"));
                    continue;
                }
                Ok(Statement::End) => {
                    if depth > 0 {
                        self.problems.push(format!("{name}: a \"}}\" is missing"));
                    }
                    return directives;
                }
                Err(error) => {
                    self.problems.push(format!("{name}: {error}"));
                    // What follows cannot be told apart; end every open block.
                    *tokens = Tokens::new(b"");
                    return directives;
                }
            };
            let mut words = words.into_iter();
            let mut directive = Directive {
                name: words.next().unwrap_or_default(),
                arguments: words.collect(),
                block: Vec::new(),
            };
            if opens {
                if directive.name.ends_with("_by_lua_block") {
                    if let Err(error) = tokens.skip_lua() {
                        self.problems.push(format!("{name}: {error}"));
                    }
                } else if depth < DEEPEST {
                    let include = include && !DATA_BLOCKS.contains(&directive.name.as_str());
                    directive.block = self.block(name, tokens, depth + 1, include);
                } else {
                    self.problems
                        .push(format!("{name}: blocks are nested too deep"));
                    return directives;
                }
            } else if directive.name == "include" {
                if include {
                    for path in self.included(&directive.value()) {
                        directives.extend(self.file(&path).unwrap_or_default());
                    }
                }
                continue;
            }
            directives.push(directive);
        }
    }

    /// Paths that an include names, in the order nginx reads them (`glob(3)` sorts).
    fn included(&self, pattern: &str) -> Vec<String> {
        let pattern = super::full_name(pattern, &self.directory);
        if !pattern.contains(['*', '?', '[']) {
            return vec![pattern];
        }
        let mut found = vec![String::new()];
        for component in pattern.split('/').filter(|component| !component.is_empty()) {
            found = if component.contains(['*', '?', '[']) {
                found
                    .iter()
                    .flat_map(|directory| self.matching(directory, component))
                    .collect()
            } else {
                found
                    .iter()
                    .map(|directory| format!("{directory}/{component}"))
                    .collect()
            };
        }
        found.retain(|path| self.root.identity(Path::new(path)).is_ok());
        found
    }

    fn matching(&self, directory: &str, component: &str) -> Vec<String> {
        // `**` is a wildcard of its own to the crate, and two stars to glob(3).
        let Ok(pattern) = Pattern::new(&component.replace("**", "*")) else {
            return Vec::new();
        };
        let options = MatchOptions {
            require_literal_leading_dot: true,
            ..MatchOptions::new()
        };
        let names = self
            .root
            .names(Path::new(&format!("{directory}/")))
            .unwrap_or_default();
        let names = names.iter().filter_map(|name| name.to_str());
        names
            .filter(|name| pattern.matches_with(name, options))
            .map(|name| format!("{directory}/{name}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[track_caller]
    fn load(files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root::open(directory.path()).unwrap();
        let mut loader = Loader::new(&root, "/etc/nginx.conf");
        let directives = loader.file("/etc/nginx.conf").unwrap();
        (
            directives
                .iter()
                .map(|d| format!("{} {}", d.name, d.value()))
                .collect(),
            loader.problems,
        )
    }

    #[test]
    fn includes_are_put_in_their_places_in_order() {
        let (directives, problems) = load(&[
            (
                "etc/nginx.conf",
                "a 1; include conf.d/*.conf; include /etc/[x]/one.conf; b 2;",
            ),
            ("etc/conf.d/20.conf", "twenty;"),
            ("etc/conf.d/10.conf", "ten; include sub/x;"),
            ("etc/conf.d/.hidden.conf", "hidden;"),
            ("etc/conf.d/no.txt", "no;"),
            ("etc/sub/x", "sub;"),
            ("etc/x/one.conf", "one;"),
        ]);
        assert_eq!(
            directives,
            ["a 1", "ten ", "sub ", "twenty ", "one ", "b 2"]
        );
        assert_eq!(problems, [""; 0]);
    }

    #[test]
    fn cycles_and_missing_files_are_reported_and_the_rest_is_read() {
        let (directives, problems) = load(&[(
            "etc/nginx.conf",
            "include nginx.conf; include none; include none/*; a;",
        )]);
        assert_eq!(directives, ["a "]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!(problems[0], "/etc/nginx.conf includes itself");
        assert!(problems[1].starts_with("cannot read /etc/none: "));
    }

    #[test]
    fn a_syntax_error_keeps_what_stands_before_it() {
        let (directives, problems) = load(&[("etc/nginx.conf", "a; http { b; c 'd; }\n}")]);
        assert_eq!(directives, ["a ", "http "]);
        assert!(
            problems[0].contains("line 1: a quoted word has no end"),
            "{problems:?}"
        );
    }
}
