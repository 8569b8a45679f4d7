//! The nginx that the tests and the demo run: the distribution's own build, unpacked
//! into the cache. The lab runs a newer one too, built from source.

mod built;

use std::path::PathBuf;

use anyhow::Result;

use crate::unpacked::Unpacked;
use crate::{apt, workspace};

const NGINX: Unpacked = Unpacked {
    name: "nginx",
    folder: "nginx",
    packages: &["nginx", "nginx-core", "nginx-light"],
    beside: &[],
    within: "usr/sbin",
    program: "nginx",
    version: "-v",
};

/// The stream module of the distribution's build, a file that it loads.
const STREAM: Unpacked = Unpacked {
    name: "nginx's stream module",
    folder: "nginx-stream",
    packages: &["libnginx-mod-stream"],
    beside: &[],
    within: "usr/lib/nginx/modules",
    program: "ngx_stream_module.so",
    version: "",
};

/// Unpacks the stream module for the unpacked nginx. An nginx that was not unpacked has
/// its own, or has it beside it.
pub(crate) fn stream_module() -> Result<()> {
    if unpacked()?.is_some() && apt::is_here() {
        STREAM.install()?;
    }
    Ok(())
}

/// The unpacked nginx, if it is there and runs.
pub(crate) fn unpacked() -> Result<Option<PathBuf>> {
    NGINX.find()
}

/// nginx 1.28; built into the cache first if it is not there.
pub(crate) fn version_1_28() -> Result<PathBuf> {
    built::install(built::SHARED)
}

/// The same, linked statically and without symbols.
pub(crate) fn static_1_28() -> Result<PathBuf> {
    built::install(built::STATIC)
}

/// Unpacks an nginx; where no package can be had, takes the one in PATH.
pub(crate) fn install() -> Result<PathBuf> {
    let outcome = if apt::is_here() {
        NGINX.install()
    } else {
        Err(anyhow::anyhow!("no apt here"))
    };
    let in_path = || workspace::find_program("nginx").filter(|program| NGINX.runs(program));
    match (outcome, in_path()) {
        (Ok(program), _) => Ok(program),
        (Err(error), Some(program)) => {
            println!(
                "setup: uses {}, because none was unpacked: {error:#}",
                program.display()
            );
            Ok(program)
        }
        (Err(error), None) => Err(error.context("no nginx for the tests, in PATH neither")),
    }
}
