//! The real servers that `cargo xtask lab --real` puts behind nginx: Apache and php-fpm
//! unpacked, gunicorn and uvicorn in a Python environment of their own, all in the
//! cache; Node and a JDK from the system.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::unpacked::Unpacked;
use crate::{apt, step, workspace};

const FOLDER: &str = "servers";
const APACHE: Unpacked = Unpacked {
    name: "Apache httpd",
    folder: "servers/apache2",
    packages: &["apache2-bin"],
    beside: &[],
    within: "usr/sbin",
    program: "apache2",
    version: "-v",
};
const PHP_FPM: Unpacked = Unpacked {
    name: "php-fpm",
    folder: "servers/php-fpm",
    packages: &[
        "php8.5-fpm",
        "php8.4-fpm",
        "php8.3-fpm",
        "php8.2-fpm",
        "php8.1-fpm",
    ],
    beside: &[],
    within: "usr/sbin",
    program: "php-fpm",
    version: "-v",
};
/// Programs of the Python environment; each has its package's name.
const PYTHON: [&str; 2] = ["gunicorn", "uvicorn"];
/// Programs of the system and their packages. A JDK's `java` compiles a file of source.
const SYSTEM: [(&str, &str); 3] = [
    ("node", "nodejs"),
    ("javac", "default-jdk-headless"),
    ("python3", "python3"),
];

/// The folder of the servers, all of them there.
pub(crate) fn install() -> Result<PathBuf> {
    let missing: Vec<(&str, &str)> = SYSTEM
        .into_iter()
        .filter(|(program, _)| workspace::find_program(program).is_none())
        .collect();
    for (program, _) in &missing {
        println!("setup: {program} is missing");
    }
    let packages: Vec<String> = missing.iter().map(|(_, name)| (*name).to_owned()).collect();
    if !apt::is_here() {
        bail!("the real servers come from Debian's and Ubuntu's packages, and there is no apt");
    }
    if !packages.is_empty() {
        let names: Vec<&str> = packages.iter().map(String::as_str).collect();
        // Also fetches the package lists where there are none.
        apt::candidates(&names)?;
        apt::install("the lab's real servers", &packages)?;
    }
    APACHE.install()?;
    PHP_FPM.install()?;
    let folder = workspace::tools()?.join(FOLDER);
    python(&folder.join("python"))?;
    Ok(folder)
}

/// Makes a Python environment with the servers that are written in it.
fn python(folder: &Path) -> Result<()> {
    let runs = |program: &&str| {
        let program = folder.join("bin").join(program);
        step::ask(Command::new(program).arg("--version")).is_some()
    };
    if PYTHON.iter().all(runs) {
        return Ok(());
    }
    println!(
        "setup: installs {} into {}",
        PYTHON.join(" and "),
        folder.display()
    );
    let has_venv = step::ask(Command::new("python3").args(["-c", "import ensurepip, venv"]));
    if has_venv.is_none() {
        apt::install("a Python environment", &apt::missing(&["python3-venv"]))?;
    }
    let mut make = step::outside_cargo("python3");
    make.args(["-m", "venv", "--clear"]).arg(folder);
    step::run("setup: make a Python environment", &mut make)?;
    let mut pip = step::outside_cargo(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"])
        .args(PYTHON);
    step::run("setup: install Python servers", &mut pip)?;
    PYTHON
        .iter()
        .all(runs)
        .then_some(())
        .with_context(|| format!("what pip installed into {} does not run", folder.display()))
}
