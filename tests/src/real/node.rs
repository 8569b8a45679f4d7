//! Node's http server with its shipped defaults.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
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
    name: "node",
    description: "keepAliveTimeout 5 s",
    prepare,
};

fn prepare(_: &Places, draw: &mut Draw) -> Result<Checks> {
    let node = Places::system("node")?;
    let command = |address: SocketAddr, folder: &Path| {
        fs::write(folder.join("server.js"), include_str!("apps/server.js"))?;
        let mut command = bound_to_us(&node);
        command.arg("server.js").arg(address.port().to_string());
        Ok(command)
    };
    let idle = Setting {
        server: format!("Node {} http", version(&node, "--version")?),
        text: "keepAliveTimeout 5000 ms (default)".to_owned(),
        process: Arc::new(Process::start(command)?),
        block: "node",
    };
    let raced = Setting {
        process: Arc::new(Process::start(command)?),
        ..idle.clone()
    };
    let closes = Closes::at_once(Duration::from_secs(5));
    Ok(vec![
        Box::new(Idle::new(idle, closes, draw)),
        Box::new(Race::new(raced, closes, draw)),
    ])
}
