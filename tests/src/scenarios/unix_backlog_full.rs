//! The same on a unix socket, where connect() itself says so: EAGAIN.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use anyhow::{Context, Result};

use crate::act::Expected;
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Asked, Part, Scenario, Unconnected};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "unix_backlog_full",
    description: "a backend's unix socket whose queue of new connections is full",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let folder = tempfile::Builder::new()
        .prefix("whoclosed-socket-")
        .tempdir()?;
    let path = folder.path().join("full");
    let listening =
        UnixListener::bind(&path).with_context(|| format!("cannot bind {}", path.display()))?;
    // nginx's workers run as another user.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    fs::set_permissions(&path, Permissions::from_mode(0o777))?;
    // Room for one (net/unix/af_unix.c `unix_recvq_full`), who waits there already.
    rustix::net::listen(&listening, 0).context("cannot shorten the queue")?;
    let queued = UnixStream::connect(&path).context("cannot fill the queue")?;
    let asked = Asked {
        upstream: Upstream::new("unix_backlog_full", format!("unix:{}", path.display())),
        requests: draw.count(2..=6),
        status: 502,
        what: "its queue of new connections is full",
        expected: Some(Expected::new("backend", "refused", "backlog-full")),
    };
    let unconnected = Unconnected::new(vec![asked]).keeping((queued, listening, folder));
    Ok(Box::new(unconnected))
}
