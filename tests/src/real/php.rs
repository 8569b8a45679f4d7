//! php-fpm: scripts that take longer than it lets them, and children that end after so
//! many requests.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::limit::{Limit, Unannounced};
use super::places::version;
use super::recycling::{Recycler, Recycling};
use super::timeout::{Supervisor, Timeout};
use super::{Checks, Places, Process, Server, Setting, journal};
use crate::draw::Draw;
use crate::nginx::Configuration;
use crate::processes::bound_to_us;

pub(super) const SERVER: Server = Server {
    name: "php",
    description: "php-fpm: request_terminate_timeout 2 s, pm.max_requests 30",
    prepare,
};

const CONFIGURATION: &str = "[global]
daemonize = no
error_log = FOLDER/log
log_level = notice
[lab]
listen = ADDRESS
user = 65534
group = 65534
pm = static
pm.max_children = 4
";

fn prepare(places: &Places, draw: &mut Draw) -> Result<Checks> {
    let fpm = places.beginning("php-fpm/usr/sbin", "php-fpm")?;
    let server = format!("php-fpm {}", version(&fpm, "-v")?);
    let start = |block, text: &str| -> Result<Setting> {
        Ok(Setting {
            server: server.clone(),
            text: text.to_owned(),
            process: Arc::new(started(&fpm, text)?),
            block,
        })
    };
    let slow = start("php_slow", "request_terminate_timeout = 2s")?;
    let recycled = start("php", "pm.max_requests = 30")?;
    let supervisor = Supervisor {
        ended: |process| children(process, &["timed out (", "terminating"]),
        configure,
        lost: "?hang",
        answered: None,
        measured: Some(executed),
        means: &["rst", "fin"],
    };
    let kept = start("php_kept", "pm.max_requests = 20")?;
    let unannounced = Unannounced {
        configure: configure_kept,
        measured: requests_of_children,
    };
    let recycler = Recycler {
        ended: |process| children(process, &["exited with code 0"]),
        configure,
    };
    let after = Duration::from_secs(2);
    Ok(vec![
        Box::new(Timeout::new(slow, after, supervisor, draw)),
        Box::new(Recycling::new(recycled, 30, recycler)),
        Box::new(Limit::unannounced(kept, 20, unannounced)),
    ])
}

fn started(fpm: &Path, setting: &str) -> Result<Process> {
    Process::start(|address, folder| {
        let mut text = CONFIGURATION
            .replace("FOLDER", &folder.to_string_lossy())
            .replace("ADDRESS", &address.to_string());
        text += setting;
        text += "\n";
        fs::write(folder.join("fpm.conf"), text)?;
        fs::write(folder.join("index.php"), include_str!("apps/index.php"))?;
        let mut command = bound_to_us(fpm);
        command.args(["-n", "-F", "-y", "fpm.conf"]);
        Ok(command)
    })
}

/// The same, through a pool of kept connections: a child has one at a time, and ends it
/// when it ends.
fn configure_kept(setting: &Setting, block: &str, configuration: &mut Configuration) {
    let address = setting.process.address();
    let _ = writeln!(
        configuration.http,
        "    upstream {block} {{ server {address}; keepalive 4; }}"
    );
    locate(
        setting,
        block,
        block,
        "fastcgi_keep_conn on;",
        configuration,
    );
}

fn configure(setting: &Setting, block: &str, configuration: &mut Configuration) {
    let address = setting.process.address().to_string();
    locate(setting, block, &address, "", configuration);
}

fn locate(
    setting: &Setting,
    block: &str,
    pass: &str,
    more: &str,
    configuration: &mut Configuration,
) {
    // Writing to a String does not fail.
    let _ = write!(
        configuration.more,
        "        location /{block}/ {{
            fastcgi_pass {pass};
            {more}
            fastcgi_param SCRIPT_FILENAME {script};
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param REQUEST_URI $request_uri;
            fastcgi_param QUERY_STRING $query_string;
        }}
",
        script = setting.process.path("index.php").display(),
    );
}

/// Requests that each child which has ended had received.
fn requests_of_children(process: &Process) -> Vec<usize> {
    let ended = children(process, &["exited with code 0"]);
    let entries = journal::read(process);
    let of = |pid: &u32| entries.iter().filter(|entry| entry.pid == *pid).count();
    ended.iter().map(of).collect()
}

/// How long the scripts that it ended had run, by its own log.
fn executed(process: &Process) -> Vec<Duration> {
    let log = process.text("log");
    log.lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once("timed out (")?;
            let seconds = rest.split(' ').next()?.parse().ok()?;
            Duration::try_from_secs_f64(seconds).ok()
        })
        .collect()
}

/// Children in the lines of its log that hold all these words: `... child 12, ...`.
fn children(process: &Process, words: &[&str]) -> BTreeSet<u32> {
    let log = process.text("log");
    log.lines()
        .filter(|line| words.iter().all(|word| line.contains(word)))
        .filter_map(|line| {
            let (_, rest) = line.split_once("child ")?;
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            rest.get(..end)?.parse().ok()
        })
        .collect()
}
