//! The HTTP server that comes with the JDK, with its shipped defaults. It looks for idle
//! connections every 10 s (`sun.net.httpserver.idleTimerScheduleMillis`).

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::idle::{Closes, Idle};
use super::places::version;
use super::race::Race;
use super::{Checks, Places, Process, Server, Setting};
use crate::draw::Draw;
use crate::processes::bound_to_us;

pub(super) const SERVER: Server = Server {
    name: "java",
    description: "com.sun.net.httpserver: idleInterval 30 s, looked at every 10 s",
    prepare,
};

const CLOSES: Closes = Closes {
    after: Duration::from_secs(30),
    looks_every: Duration::from_secs(10),
};

/// Lowered, since nginx's workers are stopped for as long as it takes.
const RACED: Closes = Closes {
    after: Duration::from_secs(5),
    looks_every: Duration::from_secs(1),
};

fn prepare(_: &Places, draw: &mut Draw) -> Result<Checks> {
    let java = Places::system("java")?;
    let start = |properties: &[&str]| {
        Process::start(|address, folder| {
            fs::write(folder.join("Server.java"), include_str!("apps/Server.java"))?;
            let mut command = bound_to_us(&java);
            command.args(properties).arg("Server.java");
            command.arg(address.port().to_string());
            Ok(command)
        })
    };
    let idle = Setting {
        server: format!("JDK {} HttpServer", version(&java, "-version")?),
        text: "idleInterval 30 s (default)".to_owned(),
        process: Arc::new(start(&[])?),
        block: "java",
    };
    let process = start(&[
        "-Dsun.net.httpserver.idleInterval=5",
        "-Dsun.net.httpserver.idleTimerScheduleMillis=1000",
    ])?;
    let raced = Setting {
        text: "idleInterval 5 s, looked at every second".to_owned(),
        process: Arc::new(process),
        ..idle.clone()
    };
    Ok(vec![
        Box::new(Idle::new(idle, CLOSES, draw)),
        Box::new(Race::new(raced, RACED, draw)),
    ])
}
