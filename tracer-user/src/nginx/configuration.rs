//! The configuration of an nginx instance, read from its files through the master's
//! root directory. Nothing is executed, so that it is right in containers too.
//!
//! The files say what nginx would load now; a master that was not reloaded since they
//! were changed runs with older settings, which is reported as a problem, and what they
//! say is not taken as in force.

mod error_logs;
#[cfg(test)]
mod oracle;
mod settings;
mod stream;
mod time;
mod tokens;
mod tree;

use std::path::Path;

use super::binary::Binary;
use super::processes::{Arguments, Instance, Root};
use crate::trace::record::{Configuration, ErrorLog};
use tree::Loader;

pub use error_logs::{LogKind, NotFollowed};
pub use time::parse_time_ms;

/// What an instance's configuration says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InForce {
    /// The main file as nginx sees it.
    pub path: String,
    /// What bears on verdicts; `None` if the main file could not be read.
    pub configuration: Option<Configuration>,
    /// Error logs that are files, of all contexts, each path once.
    pub error_logs: Vec<ErrorLog>,
    /// Error logs that cannot be followed.
    pub not_followed: Vec<NotFollowed>,
    /// The level of the place where requests' lines are hidden the most.
    pub narrowest_level: Option<String>,
    /// The log that has it.
    pub narrowest_log: Option<String>,
    /// Value of `env TZ=value`, which workers live by instead of their environment's.
    pub time_zone: Option<String>,
    /// When the newest file of it was changed, in seconds since 1970 UTC; 0 if unknown.
    pub newest_change_s: i64,
    /// That was after the workers had started: they may run with something else.
    pub changed_since_start: bool,
    /// What could not be read or understood, a sentence each.
    pub problems: Vec<String>,
}

impl InForce {
    /// Was a file changed after this time?
    #[must_use]
    pub fn is_newer_than(&self, time_s: Option<u64>) -> bool {
        // The kernel's boot time is rounded to seconds.
        time_s
            .and_then(|time| i64::try_from(time).ok())
            .is_some_and(|time| self.newest_change_s > time + 1)
    }
}

/// Reads the configuration of an instance that runs already.
pub fn read(instance: &Instance, binary: &Binary) -> InForce {
    let mut found = read_files(instance, binary);
    if found.is_newer_than(instance.oldest_start_s()) {
        found.changed_since_start = true;
        found.problems.push(
            "the files were changed after the workers started: nginx runs with older settings, \
             so that none is named here; a reload makes it load them"
                .to_owned(),
        );
    }
    found
}

/// What the files say, whatever nginx has loaded.
pub fn read_files(instance: &Instance, binary: &Binary) -> InForce {
    match Root::open(&instance.root) {
        Ok(root) => read_in(&root, &instance.cwd, &instance.arguments, binary),
        Err(error) => InForce {
            problems: vec![format!("cannot open nginx's root directory: {error}")],
            ..InForce::default()
        },
    }
}

/// As [`read`], with the parts of the instance that it needs.
pub fn read_in(root: &Root, cwd: &Path, arguments: &Arguments, binary: &Binary) -> InForce {
    let prefix = prefix(cwd, arguments, binary);
    let compiled = binary.configuration_path();
    let path = arguments.configuration_file.as_deref().unwrap_or(&compiled);
    let path = full_name(path, &prefix);
    let mut loader = Loader::new(root, &path);
    // `-g` is read before the file (`ngx_conf_param`).
    let mut directives = loader.text(
        "the -g option",
        arguments.directives.as_deref().unwrap_or("").as_bytes(),
    );
    let main = loader.file(&path);
    let configuration = main.as_deref().map(settings::configuration);
    directives.extend(main.unwrap_or_default());
    let default = arguments
        .error_log
        .clone()
        .unwrap_or_else(|| binary.error_log_path());
    let logs = error_logs::all(root, &directives, &prefix, &default);
    let (narrowest_log, narrowest_level) = logs.narrowest.unzip();
    let time_zone = directives
        .iter()
        .filter(|directive| directive.name == "env")
        .find_map(|directive| {
            directive
                .argument(0)?
                .strip_prefix("TZ=")
                .map(str::to_owned)
        });
    InForce {
        path,
        configuration,
        error_logs: logs.files,
        not_followed: logs.others,
        narrowest_level,
        narrowest_log,
        time_zone,
        newest_change_s: loader.newest_change_s,
        changed_since_start: false,
        problems: loader.problems,
    }
}

/// Directory, with a slash at its end, that relative paths are resolved against
/// (`ngx_process_options`).
fn prefix(cwd: &Path, arguments: &Arguments, binary: &Binary) -> String {
    let mut prefix = arguments.prefix.clone().unwrap_or_else(|| binary.prefix());
    if !prefix.ends_with('/') {
        prefix.push('/');
    }
    // A relative prefix is left to the working directory, which a master keeps.
    full_name(
        &prefix,
        &format!("{}/", cwd.to_string_lossy().trim_end_matches('/')),
    )
}

/// As `ngx_get_full_name`: `base` ends with a slash.
fn full_name(path: &str, base: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{base}{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn binary() -> Binary {
        Binary {
            configure: Some("--prefix=/srv/nginx --error-log-path=/log/default.log".to_owned()),
            ..Binary::default()
        }
    }

    #[track_caller]
    fn read_text(text: &str, arguments: &Arguments) -> InForce {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("srv/nginx/conf")).unwrap();
        fs::write(directory.path().join("srv/nginx/conf/nginx.conf"), text).unwrap();
        fs::create_dir_all(directory.path().join("var")).unwrap();
        std::os::unix::fs::symlink("/dev/stderr", directory.path().join("var/link.log")).unwrap();
        let root = Root::open(directory.path()).unwrap();
        read_in(&root, Path::new("/srv"), arguments, &binary())
    }

    fn logs(found: &InForce) -> Vec<(&str, &str)> {
        let level = |log: &ErrorLog| log.level.as_ref().map_or("", String::as_str).len();
        assert!(found.error_logs.iter().all(|log| level(log) > 0));
        found
            .error_logs
            .iter()
            .map(|l| (&*l.path, l.level.as_deref().unwrap_or("")))
            .collect()
    }

    #[test]
    fn error_logs_of_all_contexts_are_listed_once() {
        let found = read_text(
            "error_log logs/main.log; http { error_log /var/http.log warn;
             server { error_log /var/http.log info; location / { error_log /var/l.log notice; } }
             server { error_log syslog:server=[::1] crit; error_log memory:32m debug; } }
             stream { server { error_log stderr info; error_log /var/link.log; } }",
            &Arguments::default(),
        );
        assert_eq!(
            logs(&found),
            [
                ("/srv/nginx/logs/main.log", "error"),
                ("/var/http.log", "info"),
                ("/var/l.log", "notice")
            ]
        );
        let not_followed: Vec<_> = found
            .not_followed
            .iter()
            .map(|log| (&*log.target, &*log.level))
            .collect();
        assert_eq!(
            not_followed,
            [
                ("syslog:server=[::1]", "crit"),
                ("memory:32m", "debug"),
                ("stderr", "info"),
                ("/var/link.log", "error"),
            ]
        );
        // What goes to memory shows nothing.
        assert_eq!(found.narrowest_level.as_deref(), Some("crit"));
        assert_eq!(found.narrowest_log.as_deref(), Some("syslog:server=[::1]"));
        assert_eq!(found.problems, [""; 0]);
        assert_eq!(found.path, "/srv/nginx/conf/nginx.conf");
    }

    #[test]
    fn the_narrowest_level_is_that_of_a_context_that_requests_log_to() {
        let narrowest = |text: &str| {
            let found = read_text(text, &Arguments::default());
            let (log, level) = (found.narrowest_log, found.narrowest_level);
            format!("{} {}", log.unwrap_or_default(), level.unwrap_or_default())
        };
        // That of a context counts where a server may inherit it.
        let own = "server { error_log /s.log info; }";
        let none = "server { }";
        let http = |inner: &str| format!("http {{ error_log /h.log warn; {inner} }}");
        for (text, expected) in [
            (format!("error_log /m.log; http {{ {own} }}"), "/s.log info"),
            (
                format!("error_log /m.log; http {{ {own} {none} }}"),
                "/m.log error",
            ),
            (
                format!("error_log /m.log; http {{ {own} }} stream {{ }}"),
                "/m.log error",
            ),
            (format!("error_log /m.log; {}", http(none)), "/h.log warn"),
            (format!("error_log /m.log; {}", http("")), "/h.log warn"),
            (format!("error_log /m.log; {}", http(own)), "/s.log info"),
        ] {
            assert_eq!(narrowest(&text), expected, "{text}");
        }
        assert_eq!(
            narrowest("error_log /m.log info; http { server { error_log /s.log; } }"),
            "/s.log error"
        );
        // Of several in one context the widest.
        assert_eq!(
            narrowest("error_log /m.log; error_log /d.log info; http { }"),
            "/d.log info"
        );
        assert_eq!(
            narrowest("error_log /m.log; http { server { error_log /s.log crit; } }"),
            "/s.log crit"
        );
    }

    #[test]
    fn a_log_that_is_no_file_stands_alone_where_no_file_beside_it_gets_its_lines() {
        let alone = |text: &str| -> Vec<(LogKind, bool)> {
            let found = read_text(text, &Arguments::default());
            let logs = found.not_followed.iter();
            logs.map(|log| (log.kind, log.alone)).collect()
        };
        let (stderr, syslog) = (LogKind::StandardError, LogKind::Syslog);
        assert_eq!(alone("error_log stderr; http {}"), [(stderr, true)]);
        assert_eq!(
            alone("error_log stderr; error_log /f.log; http {}"),
            [(stderr, false)]
        );
        assert_eq!(
            alone("error_log stderr info; error_log /f.log; http {}"),
            [(stderr, true)]
        );
        // nginx adds its default log.
        assert_eq!(
            alone("error_log syslog:server=x; http {}"),
            [(syslog, false)]
        );
        assert_eq!(
            alone("error_log /f.log; http { error_log syslog:server=x; }"),
            [(syslog, true)]
        );
        assert_eq!(
            alone("error_log stderr; http { error_log /f.log; }"),
            [(stderr, false)]
        );
        assert_eq!(
            alone("error_log stderr; http { error_log /f.log; } stream {}"),
            [(stderr, true)]
        );
        assert_eq!(
            alone("error_log stderr; http { error_log /f.log; server { error_log stderr; } }"),
            [(stderr, true)]
        );
    }

    #[test]
    fn the_compiled_log_is_used_unless_the_main_context_has_a_file() {
        let plain = read_text("http { error_log /var/http.log; }", &Arguments::default());
        assert_eq!(
            logs(&plain),
            [("/log/default.log", "error"), ("/var/http.log", "error")]
        );
        let syslog = read_text("error_log syslog:server=x warn;", &Arguments::default());
        assert_eq!(logs(&syslog), [("/log/default.log", "error")]);
        let named = Arguments {
            error_log: Some("e.log".to_owned()),
            ..Arguments::default()
        };
        assert_eq!(
            logs(&read_text("", &named)),
            [("/srv/nginx/e.log", "error")]
        );
        assert_eq!(logs(&read_text("error_log stderr;", &named)), []);
        let global = Arguments {
            directives: Some("error_log g.log warn;".to_owned()),
            ..named.clone()
        };
        assert_eq!(
            logs(&read_text("env TZ=UTC;", &global)),
            [("/srv/nginx/g.log", "warn")]
        );
        assert_eq!(
            read_text("env TZ=UTC;", &global).time_zone.as_deref(),
            Some("UTC")
        );
    }

    #[test]
    fn a_missing_main_file_is_a_problem_and_the_default_log_stays() {
        let arguments = Arguments {
            configuration_file: Some("none.conf".to_owned()),
            ..Arguments::default()
        };
        let found = read_text("", &arguments);
        assert_eq!(found.path, "/srv/nginx/none.conf");
        assert_eq!(found.configuration, None);
        assert_eq!(found.problems.len(), 1);
        assert_eq!(logs(&found), [("/log/default.log", "error")]);
    }

    #[test]
    fn a_relative_prefix_is_relative_to_the_working_directory() {
        let arguments = Arguments {
            prefix: Some("nginx".to_owned()),
            ..Arguments::default()
        };
        let found = read_text("error_log logs/main.log;", &arguments);
        assert_eq!(found.path, "/srv/nginx/conf/nginx.conf");
        assert_eq!(logs(&found), [("/srv/nginx/logs/main.log", "error")]);
    }
}
