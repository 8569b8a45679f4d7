//! nginx as a backend of nginx.

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
use crate::nginx;
use crate::processes::bound_to_us;

pub(super) const SERVER: Server = Server {
    name: "nginx",
    description: "keepalive_timeout 75 s lowered to 3 s, keepalive_requests 1000 to 50",
    prepare,
};

const CONFIGURATION: &str = "daemon off;
worker_processes 2;
pid nginx.pid;
error_log error.log;
events {}
http {
    access_log off;
    client_body_temp_path temp/client;
    proxy_temp_path temp/proxy;
    fastcgi_temp_path temp/fastcgi;
    uwsgi_temp_path temp/uwsgi;
    scgi_temp_path temp/scgi;
    keepalive_timeout 3s;
    keepalive_requests 50;
    server {
        listen ADDRESS;
        # A `return` of the server's own comes before keepalive_requests is looked at.
        location / { return 200 answer; }
    }
}
";

fn prepare(_: &Places, draw: &mut Draw) -> Result<Checks> {
    let nginx = nginx::binary()?;
    let command = |address: SocketAddr, folder: &Path| {
        let text = CONFIGURATION.replace("ADDRESS", &address.to_string());
        fs::write(folder.join("nginx.conf"), text)?;
        fs::create_dir(folder.join("temp"))?;
        let mut command = bound_to_us(&nginx);
        command.arg("-p").arg(folder);
        command.args(["-e", "error.log", "-c", "nginx.conf"]);
        Ok(command)
    };
    let idle = Setting {
        server: format!("nginx {}", version(&nginx, "-v")?),
        text: "keepalive_timeout 3s".to_owned(),
        process: Arc::new(Process::start(command)?),
        block: "nginx",
    };
    let limit = Setting {
        text: "keepalive_requests 50".to_owned(),
        ..idle.clone()
    };
    let raced = Setting {
        process: Arc::new(Process::start(command)?),
        ..idle.clone()
    };
    let closes = Closes::at_once(Duration::from_secs(3));
    Ok(vec![
        Box::new(Idle::new(idle, closes, draw)),
        Box::new(Race::new(raced, closes, draw)),
        Box::new(Limit::new(limit, 50)),
    ])
}
