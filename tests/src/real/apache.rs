//! Apache httpd with the event MPM and its shipped limits on kept connections.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::idle::{Closes, Idle};
use super::limit::Limit;
use super::places::version;
use super::race::Race;
use super::{Checks, Places, Process, Server, Setting};
use crate::draw::Draw;
use crate::processes::bound_to_us;

pub(super) const SERVER: Server = Server {
    name: "apache",
    description: "KeepAliveTimeout 5 s, MaxKeepAliveRequests 100",
    prepare,
};

const CONFIGURATION: &str = "ServerRoot FOLDER
ServerName lab.test
Listen ADDRESS
PidFile FOLDER/pid
DefaultRuntimeDir FOLDER
ErrorLog FOLDER/error.log
LoadModule mpm_event_module MODULES/mod_mpm_event.so
LoadModule authz_core_module MODULES/mod_authz_core.so
LoadModule alias_module MODULES/mod_alias.so
User #65534
Group #65534
Mutex file:FOLDER default
KeepAlive On
KeepAliveTimeout 5
MaxKeepAliveRequests 100
AliasMatch ^/ FOLDER/answer
";

fn prepare(places: &Places, draw: &mut Draw) -> Result<Checks> {
    let apache = places.file("apache2/usr/sbin/apache2")?;
    let modules = places.file("apache2/usr/lib/apache2/modules")?;
    let command = |address: SocketAddr, folder: &Path| {
        let text = CONFIGURATION
            .replace("FOLDER", &folder.to_string_lossy())
            .replace("MODULES", &modules.to_string_lossy())
            .replace("ADDRESS", &address.to_string());
        fs::write(folder.join("httpd.conf"), text)?;
        fs::write(folder.join("answer"), "answer\n")?;
        let mut command = bound_to_us(&apache);
        command.arg("-DFOREGROUND").arg("-f");
        command.arg(folder.join("httpd.conf"));
        Ok(command)
    };
    let idle = Setting {
        server: format!("Apache {} event", version(&apache, "-v")?),
        text: "KeepAliveTimeout 5 (default)".to_owned(),
        process: Arc::new(Process::start(command)?),
        block: "apache",
    };
    let limit = Setting {
        text: "MaxKeepAliveRequests 100 (default)".to_owned(),
        ..idle.clone()
    };
    let raced = Setting {
        process: Arc::new(Process::start(command)?),
        ..idle.clone()
    };
    let closes = Closes::at_once(Duration::from_secs(5));
    Ok(vec![
        Box::new(Idle::new(idle, closes, draw)),
        Box::new(Race::new(raced, closes, draw)),
        Box::new(Limit::new(limit, 100)),
    ])
}
