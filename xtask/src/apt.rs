//! Debian's and Ubuntu's packages: what is installed, what could be, and installing.
//!
//! Which packages something needs is for its own module to say.

use std::process::Command;
use std::sync::Once;

use anyhow::{Result, bail};

use crate::{compiler::Version, step, workspace};

/// Whether this system has apt.
pub(crate) fn is_here() -> bool {
    workspace::find_program("apt-get").is_some() && workspace::find_program("dpkg").is_some()
}

/// Which of the packages are not installed.
pub(crate) fn missing(packages: &[&str]) -> Vec<String> {
    let status = |package: &&&str| {
        step::ask(Command::new("dpkg-query").args(["-W", "-f=${db:Status-Abbrev}", package]))
    };
    packages
        .iter()
        .filter(|package| !status(package).is_some_and(|status| status.starts_with("ii")))
        .map(|package| (*package).to_owned())
        .collect()
}

/// The version that apt would install of each package that it knows. If it knows none
/// of them, the package lists are fetched, once in a run and only by root.
pub(crate) fn candidates(packages: &[&str]) -> Result<Vec<(String, String)>> {
    let look = || {
        let output = step::ask(Command::new("apt-cache").arg("policy").args(packages));
        parse_policy(&output.unwrap_or_default())
    };
    let found = look();
    if !found.is_empty() {
        return Ok(found);
    }
    update_once()?;
    Ok(look())
}

/// The first of the packages that apt can install.
pub(crate) fn first_available(packages: &[&str]) -> Result<Option<String>> {
    let known = candidates(packages)?;
    let is_known = |package: &&&str| known.iter().any(|(name, _)| name == **package);
    Ok(packages
        .iter()
        .find(is_known)
        .map(|package| (*package).to_owned()))
}

/// Fetches the package lists, once in a run and only by root. Whether they were fetched
/// just now.
pub(crate) fn update_once() -> Result<bool> {
    static UPDATED: Once = Once::new();
    let mut outcome = Ok(false);
    if step::is_root() {
        UPDATED.call_once(|| {
            outcome =
                step::run("setup: fetch the package lists", apt_get().arg("update")).map(|()| true);
        });
    }
    outcome
}

/// Installs packages, or says which command does, if we may not.
pub(crate) fn install(purpose: &str, packages: &[String]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !step::is_root() {
        bail!(
            "{purpose} needs packages that only root can install; run\n    \
             sudo apt-get install --no-install-recommends {list}\nand then this command again"
        );
    }
    println!("setup: {purpose} needs packages, installed now with apt-get: {list}");
    let mut command = apt_get();
    // Nothing of the user's may go to make room for what we want.
    command
        .args(["install", "--yes", "--no-install-recommends", "--no-remove"])
        .args(packages);
    run("setup: install packages", &mut command)
}

/// Runs an apt-get that downloads. If it fails, the package lists may be some weeks old
/// and name versions that the archive has since replaced: once more with fresh ones.
pub(crate) fn run(name: &str, command: &mut Command) -> Result<()> {
    let Err(failed) = step::run(name, command) else {
        return Ok(());
    };
    if !update_once()? {
        return Err(failed);
    }
    step::run(name, command)
}

/// How long a server may leave apt waiting. A connection is tried twice in this time each,
/// and each file twice: a mirror that hangs costs 40 s a file, where apt's own 30 s and
/// three more tries cost four minutes.
const PATIENCE_SECONDS: u32 = 10;

/// apt-get that asks nothing, waits for another one that is at work, and not for long for
/// a server that hangs.
pub(crate) fn apt_get() -> Command {
    apt_get_waiting(PATIENCE_SECONDS)
}

fn apt_get_waiting(seconds: u32) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("-q");
    for option in [
        "DPkg::Lock::Timeout=600".to_owned(),
        "Dpkg::Use-Pty=0".to_owned(),
        format!("Acquire::http::Timeout={seconds}"),
        format!("Acquire::https::Timeout={seconds}"),
        "Acquire::Retries=1".to_owned(),
    ] {
        command.args(["-o", &option]);
    }
    command
}

/// Names and candidate versions in the output of `apt-cache policy`.
fn parse_policy(output: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut package = None;
    for line in output.lines() {
        if !line.starts_with(' ') {
            package = line.strip_suffix(':');
        } else if let Some(version) = line.trim_start().strip_prefix("Candidate: ")
            && version != "(none)"
            && let Some(package) = package
        {
            found.push((package.to_owned(), version.to_owned()));
        }
    }
    found
}

/// The major versions N of the packages `llvm-N-dev` that apt knows and that are not
/// older than `oldest`, newest first.
pub(crate) fn llvm_versions(oldest: u32) -> Vec<u32> {
    let output =
        step::ask(Command::new("apt-cache").args(["search", "--names-only", "^llvm-[0-9]+-dev$"]));
    parse_llvm_versions(&output.unwrap_or_default(), oldest)
}

fn parse_llvm_versions(output: &str, oldest: u32) -> Vec<u32> {
    let version = |line: &str| {
        let name = line.split_whitespace().next()?;
        name.strip_prefix("llvm-")?
            .strip_suffix("-dev")?
            .parse::<u32>()
            .ok()
    };
    let mut versions: Vec<u32> = output
        .lines()
        .filter_map(version)
        .filter(|version| *version >= oldest)
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.dedup();
    versions
}

/// Of several packages of one thing, the one whose candidate is newest, if that
/// is new enough for the workspace.
pub(crate) fn newest_rust(candidates: &[(String, String)]) -> Option<&str> {
    candidates
        .iter()
        .filter_map(|(name, version)| Some((Version::parse(version)?, name.as_str())))
        .filter(|(version, _)| version.is_enough())
        .max_by_key(|(version, _)| *version)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    const POLICY: &str = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n\
        \x20 Version table:\n     1.96.0+dfsg1-1~deb12u2 500\n        500 http://mirror bookworm\n\
        rustc:\n  Installed: 1.63.0+dfsg1-2\n  Candidate: 1.63.0+dfsg1-2\n  Version table:\n\
        nginx:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n";

    #[test]
    fn a_package_without_a_candidate_is_not_available() {
        let found = parse_policy(POLICY);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["rustc-web", "rustc"]);
    }

    #[test]
    fn the_newest_rust_that_is_new_enough_is_chosen() {
        assert_eq!(newest_rust(&parse_policy(POLICY)), Some("rustc-web"));
        assert_eq!(
            newest_rust(&[("rustc".into(), "1.63.0+dfsg1-2".into())]),
            None
        );
        assert_eq!(newest_rust(&[]), None);
    }

    #[test]
    fn llvm_may_not_be_older_than_the_compilers_and_the_newest_comes_first() {
        let output = "llvm-9-dev - Modular compiler\nllvm-22-dev - Modular compiler\n\
            llvm-100-dev - Modular compiler\nllvm-19-dev - Modular compiler\nllvm-dev - default\n";
        assert_eq!(parse_llvm_versions(output, 20), [100, 22]);
        assert_eq!(parse_llvm_versions(output, 101), Vec::<u32>::new());
    }

    #[test]
    fn a_server_that_never_answers_is_given_up_and_not_asked_for_ever() {
        if !is_here() {
            return;
        }
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let asked = std::thread::spawn(move || {
            // Each is held open, unanswered, until apt has ended.
            let mut asked = Vec::new();
            loop {
                let (mut connection, _) = server.accept().unwrap();
                let mut first = [0];
                // Ours says so in its first byte; an HTTP request begins otherwise.
                if connection.read(&mut first).is_ok() && first == [b'!'] {
                    return asked.len();
                }
                asked.push(connection);
            }
        });
        let folder = std::env::temp_dir().join(format!("xtask-apt-{}", std::process::id()));
        let path = |name: &str| folder.join(name).display().to_string();
        std::fs::create_dir_all(folder.join("lists/partial")).unwrap();
        std::fs::create_dir_all(folder.join("cache/archives/partial")).unwrap();
        std::fs::write(
            folder.join("sources"),
            format!("deb [trusted=yes] http://{address}/debian bookworm main\n"),
        )
        .unwrap();
        let mut update = apt_get_waiting(1);
        for (name, value) in [
            ("Dir::Etc::SourceList", path("sources")),
            ("Dir::Etc::SourceParts", "-".to_owned()),
            ("Dir::State::Lists", path("lists")),
            ("Dir::Cache", path("cache")),
            ("Acquire::http::Proxy", "DIRECT".to_owned()),
            ("APT::Update::Error-Mode", "any".to_owned()),
        ] {
            update.args(["-o", &format!("{name}={value}")]);
        }
        let output = update.arg("update").output().unwrap();
        std::net::TcpStream::connect(address)
            .and_then(|mut end| end.write_all(b"!"))
            .unwrap();
        let asked = asked.join().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{said}");
        assert!((1..=4).contains(&asked), "asked {asked} times: {said}");
    }
}
