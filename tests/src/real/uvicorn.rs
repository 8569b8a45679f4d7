//! uvicorn with its shipped defaults.

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
    name: "uvicorn",
    description: "--timeout-keep-alive 5 s",
    prepare,
};

fn prepare(places: &Places, draw: &mut Draw) -> Result<Checks> {
    let uvicorn = places.python("uvicorn")?;
    let command = |address: SocketAddr, folder: &Path| {
        fs::write(folder.join("asgi_app.py"), include_str!("apps/asgi_app.py"))?;
        let mut command = bound_to_us(&uvicorn);
        command
            .args(["asgi_app:application", "--host", "127.0.0.1", "--port"])
            .arg(address.port().to_string())
            .args(["--app-dir", ".", "--lifespan", "off", "--no-access-log"]);
        Ok(command)
    };
    let idle = Setting {
        server: format!("uvicorn {}", version(&uvicorn, "--version")?),
        text: "timeout-keep-alive 5 s (default)".to_owned(),
        process: Arc::new(Process::start(command)?),
        block: "uvicorn",
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
