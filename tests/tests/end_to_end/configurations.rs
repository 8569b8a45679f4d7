//! The configurations that the tool's reader is tested with are nginx's own language: the
//! real nginx accepts each, and serves the escaped words of one as they are on record.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::nginx::{self, Configuration, Nginx};
use lab::tool;

use crate::bench::alone;

/// Paths that nginx has compiled in and this host may lack.
const OWN_PATHS: &str = "access_log logs/access.log; client_body_temp_path temp/body; \
    proxy_temp_path temp/proxy; fastcgi_temp_path temp/fastcgi; uwsgi_temp_path temp/uwsgi; \
    scgi_temp_path temp/scgi;";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/configurations")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// The numbers of a version, from the text that follows a word.
fn version_after(text: &str, word: &str) -> Option<Vec<u32>> {
    let rest = text.split_once(word)?.1;
    let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let number = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
    Some(
        number
            .split('.')
            .map(|part| part.parse().unwrap())
            .collect(),
    )
}

/// What `nginx -t` says of a configuration, and whether it accepts it.
fn test(folder: &Path) -> (bool, String) {
    let prefix = tempfile::tempdir().unwrap();
    copy(folder, &prefix.path().join("tested"));
    for folder in ["logs", "temp"] {
        fs::create_dir(prefix.path().join(folder)).unwrap();
    }
    let main = prefix.path().join("tested/nginx.conf");
    let text = fs::read_to_string(&main).unwrap();
    fs::write(prefix.path().join("paths"), OWN_PATHS).unwrap();
    let paths = format!("{{ include {};", prefix.path().join("paths").display());
    // Nothing else is changed.
    let opens = text.find("http {").map(|at| at + 5);
    let opens = opens.or(text.find("http{").map(|at| at + 4));
    let text = match opens {
        Some(at) => format!("{}{paths}{}", &text[..at], &text[at + 1..]),
        None => text,
    };
    fs::write(&main, &text).unwrap();
    let mut global = format!("pid {};", prefix.path().join("pid").display());
    if text.contains("\nstream {") {
        global.insert_str(0, &nginx::stream_loader().unwrap());
    }
    let mut command = Command::new(nginx::binary().unwrap());
    command.arg("-t").arg("-p").arg(prefix.path());
    command.args([
        "-e",
        "logs/error.log",
        "-c",
        "tested/nginx.conf",
        "-g",
        &global,
    ]);
    let finished = tool::finish(&mut command).unwrap();
    (finished.status.success(), finished.stderr)
}

#[test]
fn nginx_accepts_each_configuration() {
    let _alone = alone();
    let said = tool::finish(Command::new(nginx::binary().unwrap()).arg("-v")).unwrap();
    let running = version_after(&said.stderr, "nginx/").unwrap();
    let mut tested = 0;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(fixtures()).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        let text = fs::read_to_string(folder.join("nginx.conf")).unwrap();
        let since = version_after(&text, "# since ");
        // An older nginx must refuse what is newer, so that the remark is true.
        let expected = since.is_none_or(|since| running >= since);
        let (accepted, said) = test(&folder);
        if accepted != expected {
            wrong.push(format!("{}: {said}", folder.display()));
        }
        tested += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tested >= 30, "{tested}");
}

#[test]
fn nginx_serves_escaped_words_as_they_are_on_record() {
    let _alone = alone();
    let folder = fixtures().join("escapes");
    let text = fs::read_to_string(folder.join("nginx.conf")).unwrap();
    let locations = text.lines().filter(|line| line.contains("return 200"));
    let configuration = Configuration {
        more: locations.map(|line| format!("{line}\n")).collect(),
        ..Configuration::new(Vec::new())
    };
    let nginx = Nginx::start(&configuration).unwrap();
    let recorded = fs::read(folder.join("served.json")).unwrap();
    let recorded: BTreeMap<String, String> = serde_json::from_slice(&recorded).unwrap();
    assert_eq!(recorded.len(), text.matches("return 200").count());
    for (target, body) in recorded {
        let mut client = TcpStream::connect(nginx.address()).unwrap();
        write!(client, "GET {target} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (_, served) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(served, body, "{target}");
    }
}
