//! nginx's command line, read back from a process.
//!
//! A master replaces its arguments by a title that joins them with spaces
//! (`ngx_master_process_cycle`), so that the ends of arguments with spaces are
//! guessed: a value goes on up to the next word that looks like an option.

/// Arguments of an nginx process that bear on its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// All of them, as far as they can be told apart; without the program's name.
    pub all: Vec<String>,
    /// `-c`: configuration file.
    pub configuration_file: Option<String>,
    /// `-p`: prefix.
    pub prefix: Option<String>,
    /// `-g`: global directives.
    pub directives: Option<String>,
    /// `-e`: error log (since 1.19.5).
    pub error_log: Option<String>,
    /// `-t`, `-s`, `-v` and the like: it does its work and ends.
    pub ends_at_once: bool,
}

impl Arguments {
    /// Reads `/proc/PID/cmdline`: a master's title, or arguments ended by NUL.
    pub fn from_cmdline(cmdline: &[u8]) -> Self {
        let text = String::from_utf8_lossy(cmdline);
        match text.split_once(": master process") {
            Some((name, title)) if !name.contains(['/', ' ', '\0']) => Self::from_title(title),
            _ => {
                let words = text.trim_end_matches('\0').split('\0').skip(1);
                Self::from_words(words.map(str::to_owned).collect(), false)
            }
        }
    }

    /// What follows `master process`. Angie has `v1.9.0 #1 [angie -c file]` there.
    fn from_title(title: &str) -> Self {
        let title = title.trim_matches(['\0', ' ']);
        let inside = match title.split_once(" [") {
            Some((generation, rest)) if generation.contains('#') && !generation.contains('/') => {
                rest.strip_suffix(']').unwrap_or(rest)
            }
            _ => title,
        };
        Self::from_words(inside.split(' ').skip(1).map(str::to_owned).collect(), true)
    }

    /// As `ngx_get_options` in `src/core/nginx.c` reads them; `split` says that the
    /// words come of a title.
    fn from_words(words: Vec<String>, split: bool) -> Self {
        let mut arguments = Self::default();
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next() {
            arguments.all.push(word.clone());
            let Some(options) = word.strip_prefix('-') else {
                continue;
            };
            for (at, option) in options.char_indices() {
                if "?hvVtTs".contains(option) {
                    arguments.ends_at_once = true;
                }
                if !"cpges".contains(option) {
                    continue;
                }
                let glued = &options[at + option.len_utf8()..];
                let mut value = if glued.is_empty() {
                    let Some(next) = words.next() else { break };
                    arguments.all.push(next.clone());
                    next
                } else {
                    glued.to_owned()
                };
                while let Some(more) = words.next_if(|word| split && !looks_like_option(word)) {
                    value = format!("{value} {more}");
                    if let Some(last) = arguments.all.last_mut() {
                        *last = format!("{last} {more}");
                    }
                }
                match option {
                    'c' => arguments.configuration_file = Some(value),
                    'p' => arguments.prefix = Some(value),
                    'g' => arguments.directives = Some(value),
                    'e' => arguments.error_log = Some(value),
                    _ => {}
                }
                break;
            }
        }
        arguments
    }
}

fn looks_like_option(word: &str) -> bool {
    word.strip_prefix('-')
        .and_then(|rest| rest.chars().next())
        .is_some_and(|option| "?hvVtTqspceg".contains(option))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_gives_its_options_back() {
        let arguments = Arguments::from_cmdline(
            b"nginx: master process /usr/sbin/nginx -g daemon on; master_process on; -c a b.conf\0\0",
        );
        assert_eq!(
            arguments.directives.as_deref(),
            Some("daemon on; master_process on;")
        );
        assert_eq!(arguments.configuration_file.as_deref(), Some("a b.conf"));
        assert_eq!(
            arguments.all,
            ["-g", "daemon on; master_process on;", "-c", "a b.conf"].map(str::to_owned)
        );
        assert!(!arguments.ends_at_once);
    }

    #[test]
    fn angie_brackets_its_arguments() {
        let title = b"angie: master process v1.9.0 #3 [/usr/sbin/angie -p /srv/ -e stderr]\0";
        let arguments = Arguments::from_cmdline(title);
        assert_eq!(arguments.prefix.as_deref(), Some("/srv/"));
        assert_eq!(arguments.error_log.as_deref(), Some("stderr"));
    }

    #[test]
    fn untouched_arguments_keep_their_ends() {
        let arguments = Arguments::from_cmdline(b"nginx\0-qp/srv/x\0-g\0daemon off; -t\0");
        assert_eq!(arguments.prefix.as_deref(), Some("/srv/x"));
        assert_eq!(arguments.directives.as_deref(), Some("daemon off; -t"));
        assert!(!arguments.ends_at_once);
        assert!(Arguments::from_cmdline(b"nginx\0-s\0reload\0").ends_at_once);
        assert!(Arguments::from_cmdline(b"nginx\0-tq\0").ends_at_once);
        assert_eq!(Arguments::from_cmdline(b"nginx\0"), Arguments::default());
    }
}
