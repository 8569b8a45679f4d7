//! An nginx newer than the distribution's, built once from the source that a crate
//! carries and kept in the cache: as distributions link it, and whole in one file without
//! a symbol, as some containers have it. Only the lab wants them; the crate is no
//! dependency of the workspace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{apt, step, workspace};

/// The crate whose folder `nginx` is nginx's own source tree.
const CRATE: &str = "nginx-src";
/// Its version; the nginx in it is [`NGINX`].
const VERSION: &str = "=1.28.5";
const NGINX: &str = "nginx/1.28.3";
const PROGRAM: &str = "sbin/nginx";
/// What the compiler, the libraries and make come with on Debian.
const PACKAGES: [&str; 6] = [
    "gcc",
    "libc6-dev",
    "libpcre2-dev",
    "libssl-dev",
    "make",
    "zlib1g-dev",
];
/// The folders are those of nginx.org's packages; the lab names its own for all of them.
const CONFIGURE: &[&str] = &[
    "--prefix=/etc/nginx",
    "--conf-path=/etc/nginx/nginx.conf",
    "--error-log-path=/var/log/nginx/error.log",
    "--http-log-path=/var/log/nginx/access.log",
    "--pid-path=/run/nginx.pid",
    "--lock-path=/run/nginx.lock",
    "--with-compat",
    "--with-threads",
    "--with-http_realip_module",
    "--with-http_ssl_module",
    "--with-http_stub_status_module",
    "--with-http_v2_module",
    "--with-stream",
    "--with-stream_ssl_module",
];

/// A way to link it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linked {
    folder: &'static str,
    /// More arguments of `configure`.
    configure: &'static [&'static str],
    stripped: bool,
}

/// Position-independent, as distributions build it: uprobes then meet the same kind of
/// file.
pub(super) const SHARED: Linked = Linked {
    folder: "nginx-1.28",
    configure: &[
        "--with-cc-opt=-g -O2 -fstack-protector-strong -fPIC",
        "--with-ld-opt=-pie -Wl,-z,relro -Wl,-z,now",
    ],
    stripped: false,
};

/// With all libraries in it and no symbol left: nothing can be attached to it by name.
pub(super) const STATIC: Linked = Linked {
    folder: "nginx-1.28-static",
    configure: &["--with-cc-opt=-O2", "--with-ld-opt=-static"],
    stripped: true,
};

/// The program; built first if it is not there.
pub(super) fn install(linked: Linked) -> Result<PathBuf> {
    let folder = workspace::tools()?.join(linked.folder);
    let program = folder.join(PROGRAM);
    if linked.is_wanted(&program) {
        return Ok(program);
    }
    println!(
        "setup: builds {} (once, a minute or two) into the cache",
        linked.folder
    );
    if apt::is_here() {
        apt::install("nginx from source", &apt::missing(&PACKAGES))?;
    }
    let temporary = folder.with_extension(format!("build.{}", std::process::id()));
    let outcome = linked
        .build(&temporary)
        .and_then(|built| linked.put_into_place(&built, &folder));
    let _ = fs::remove_dir_all(&temporary);
    outcome?;
    if !linked.is_wanted(&program) {
        bail!("{} is not {NGINX}", program.display());
    }
    Ok(program)
}

impl Linked {
    fn arguments(self) -> impl Iterator<Item = &'static str> {
        CONFIGURE.iter().chain(self.configure).copied()
    }

    /// `nginx -V` names the version and every argument of `configure`.
    fn is_wanted(self, program: &Path) -> bool {
        let Ok(output) = Command::new(program).arg("-V").output() else {
            return false;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        // It quotes an argument that has blanks after the `=`.
        let said = said.replace('\'', "");
        output.status.success()
            && said.contains(NGINX)
            && self.arguments().all(|argument| said.contains(argument))
    }

    /// Builds in a folder of its own; what is to be kept lies in the folder returned.
    fn build(self, temporary: &Path) -> Result<PathBuf> {
        let source = source(temporary)?;
        let mut configure = step::outside_cargo("sh");
        configure.arg("auto/configure").args(self.arguments());
        step::run("setup: configure nginx", configure.current_dir(&source))?;
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut make = step::outside_cargo("make");
        make.arg(format!("-j{jobs}")).arg("--silent");
        step::run("setup: build nginx", make.current_dir(&source))?;

        let built = temporary.join("built");
        let program = built.join(PROGRAM);
        fs::create_dir_all(built.join("sbin")).context("cannot create a folder for nginx")?;
        fs::copy(source.join("objs/nginx"), &program).context("make left no nginx")?;
        if self.stripped {
            let mut strip = step::outside_cargo("strip");
            step::run("setup: strip nginx", strip.arg("-s").arg(&program))?;
        }
        // nginx's licence asks for it beside a binary.
        fs::copy(source.join("LICENSE"), built.join("LICENSE")).context("nginx has no licence")?;
        if !self.is_wanted(&program) {
            bail!("the nginx just built does not run, or is not {NGINX}");
        }
        Ok(built)
    }

    /// Moves what was built to its place, whole, and takes away what was there before.
    fn put_into_place(self, built: &Path, folder: &Path) -> Result<()> {
        if folder.exists() {
            let old = built.with_file_name("old");
            fs::rename(folder, old).context("cannot move an older nginx away")?;
        }
        match fs::rename(built, folder) {
            // Another run was quicker.
            Err(_) if self.is_wanted(&folder.join(PROGRAM)) => Ok(()),
            moved => moved.with_context(|| format!("cannot move nginx to {}", folder.display())),
        }
    }
}

/// Fetches the crate's source through cargo, by a package that depends on it and that
/// nobody builds.
fn source(temporary: &Path) -> Result<PathBuf> {
    let package = temporary.join("source");
    fs::create_dir_all(&package).with_context(|| format!("cannot create {}", package.display()))?;
    let manifest = format!(
        "[package]\nname = \"source\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n\
         [lib]\npath = \"lib.rs\"\n\n[dependencies]\n{CRATE} = \"{VERSION}\"\n\n[workspace]\n"
    );
    fs::write(package.join("Cargo.toml"), manifest).context("cannot write a manifest")?;
    fs::write(package.join("lib.rs"), "").context("cannot write an empty library")?;
    let mut vendor = step::cargo();
    vendor
        .args(["vendor", "--quiet", "vendor"])
        .current_dir(&package)
        // It prints a configuration that is of no use here.
        .stdout(Stdio::null());
    step::run("setup: fetch nginx's source", &mut vendor)?;
    let source = package.join("vendor").join(CRATE).join("nginx");
    if !source.join("auto/configure").is_file() {
        bail!("the crate {CRATE} {VERSION} holds no nginx");
    }
    Ok(source)
}
