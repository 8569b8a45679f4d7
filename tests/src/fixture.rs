//! Recorded runs, small enough to be checked in: a trace, and what really happened. With
//! them the judge is held against the truth without root and without a kernel.
//!
//! `cargo xtask lab --fixtures` records them. What names the machine that did (its name,
//! its folders, the builder's part of its kernel's release) is replaced.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::score::{Recorded, Score};
use crate::verdicts::{Incident, Report, Upstream};

/// One scenario's run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fixture {
    /// The scenario's name; its folder's too.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// What happened.
    pub recorded: Recorded,
}

/// The folder of all fixtures, one folder each below it.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/lab")
}

/// The trace in a fixture's folder.
#[must_use]
pub fn trace(folder: &Path) -> PathBuf {
    folder.join("trace")
}

/// The text of the verdicts that are expected, in a fixture's folder.
#[must_use]
pub fn expected(folder: &Path) -> PathBuf {
    folder.join("verdicts.txt")
}

/// What stands for what on the machine that records.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Each text, and what replaces it. The first ones first.
    replaced: Vec<(String, String)>,
    /// What may not be left.
    secret: Vec<String>,
}

impl Machine {
    /// This one, where this nginx runs with this prefix.
    pub(crate) fn this(nginx: &Path, prefix: &Path) -> Result<Self> {
        let kernel = |file: &str| -> Result<String> {
            let path = format!("/proc/sys/kernel/{file}");
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            Ok(text.trim().to_owned())
        };
        let nginx = nginx.canonicalize()?;
        let temporary = std::env::temp_dir();
        let release = kernel("osrelease")?;
        let number = release.split('-').next().unwrap_or_default().to_owned();
        let host = format!("\"host\":{}", serde_json::to_string(&kernel("hostname")?)?);
        let mut secret = vec![temporary.display().to_string()];
        secret.extend(std::env::var("HOME").ok().filter(|home| home.len() > 1));
        Ok(Self {
            replaced: vec![
                (prefix.display().to_string(), "/srv/nginx".to_owned()),
                (nginx.display().to_string(), "/usr/sbin/nginx".to_owned()),
                (format!("{}/", temporary.display()), "/run/".to_owned()),
                (host, "\"host\":\"web-1\"".to_owned()),
                (release, number),
            ],
            secret,
        })
    }

    fn replace(&self, text: &str) -> Result<String> {
        let text = self
            .replaced
            .iter()
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        if let Some(left) = self.secret.iter().find(|secret| text.contains(*secret)) {
            let at = text.find(left).unwrap_or(0);
            let around: String = text[at..].chars().take(80).collect();
            bail!("a fixture would name a folder of this machine: {around}");
        }
        Ok(text)
    }
}

impl Fixture {
    /// Writes a fixture into its folder below `parent`.
    pub(crate) fn write(&self, parent: &Path, trace_file: &Path, machine: &Machine) -> Result<()> {
        const SMALLEST: i32 = 19;
        let folder = parent.join(&self.scenario);
        fs::create_dir_all(&folder)?;
        let recorded = zstd::decode_all(fs::File::open(trace_file)?)?;
        let recorded = String::from_utf8(recorded).context("a trace that is not UTF-8")?;
        let mut encoder = zstd::Encoder::new(Vec::new(), SMALLEST)?;
        encoder.include_checksum(true)?;
        std::io::Write::write_all(&mut encoder, machine.replace(&recorded)?.as_bytes())?;
        fs::write(trace(&folder), encoder.finish()?)?;
        let truth = machine.replace(&self.text()?)?;
        Ok(fs::write(folder.join("truth.json"), truth)?)
    }

    /// JSON with a line for each item.
    fn text(&self) -> Result<String> {
        fn list<T: Serialize>(items: &[T]) -> Result<String> {
            let items: Vec<String> = items
                .iter()
                .map(serde_json::to_string)
                .collect::<Result<_, _>>()?;
            Ok(format!("[\n{}\n]", items.join(",\n")))
        }
        let recorded = &self.recorded;
        Ok(format!(
            "{{\"scenario\":{},\"seed\":{},\"recorded\":{{\n\"acts\":{},\n\"constants\":{},\n\
             \"log\":{},\n\"wire\":{},\n\"traffic\":null}}}}\n",
            serde_json::to_string(&self.scenario)?,
            self.seed,
            list(&recorded.acts)?,
            list(&recorded.constants)?,
            list(&recorded.log)?,
            list(&recorded.wire)?,
        ))
    }

    /// Reads the fixture in this folder.
    ///
    /// # Errors
    /// If it is not there, or not whole.
    pub fn read(folder: &Path) -> Result<Self> {
        let file = folder.join("truth.json");
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no truth", file.display()))
    }

    /// The score of a report of its trace.
    #[must_use]
    pub fn score(&self, report: &Report) -> Score {
        Score::of(report, &self.recorded)
    }
}

/// A report's verdicts in one line each, to be compared with those of another day.
#[must_use]
pub fn verdicts(report: &Report) -> String {
    let mut text = String::new();
    for incident in &report.incidents {
        text += &verdict(incident);
    }
    for upstream in &report.upstreams {
        text += &inferred(upstream);
    }
    text
}

fn verdict(incident: &Incident) -> String {
    let connection = incident.connection.as_ref().map(|found| {
        let requests = found
            .requests
            .map(|requests| format!(" request {requests}"));
        format!(
            "{} to {}{}",
            found.local,
            found.remote,
            requests.unwrap_or_default()
        )
    });
    let said = |what: &str, answer: Option<bool>| match answer {
        Some(true) => format!(", {what}"),
        Some(false) => format!(", not {what}"),
        None => String::new(),
    };
    format!(
        "{:>3} {} {} {} {} {}; {}{}{}\n",
        incident.id,
        incident.side,
        incident.means,
        incident.phase,
        incident.cause,
        incident.confidence,
        connection.unwrap_or_else(|| format!("no connection to {}", incident.upstream)),
        said("retried", incident.retried),
        said("served", incident.served),
    )
}

fn inferred(upstream: &Upstream) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    if let Some(timeout) = upstream.idle_timeout {
        let _ = write!(text, ", idle timeout {:.1} ms", timeout.ms);
    }
    if let Some(limit) = upstream.request_limit {
        let _ = write!(text, ", request limit {}", limit.requests);
    }
    if let Some(timeout) = upstream.work_timeout {
        let _ = write!(text, ", work timeout {:.1} ms", timeout.ms);
    }
    if let Some(size) = upstream.size_threshold {
        let _ = write!(
            text,
            ", size above {}, up to {}",
            size.answered_bytes, size.bytes
        );
    }
    if text.is_empty() {
        return text;
    }
    format!("{}{text}\n", upstream.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_names_the_machine_is_left() {
        let machine = Machine {
            replaced: vec![
                ("/tmp/lab-1".into(), "/srv/nginx".into()),
                ("/tmp/".into(), "/run/".into()),
            ],
            secret: vec!["/home/somebody".into()],
        };
        let text = machine.replace("/tmp/lab-1/logs /tmp/socket").unwrap();
        assert_eq!(text, "/srv/nginx/logs /run/socket");
        assert!(machine.replace("x /home/somebody/y").is_err());
    }

    #[test]
    fn a_truth_comes_back_from_its_file() {
        use crate::act::{Act, Expected};
        let folder = tempfile::tempdir().unwrap();
        let act = Act {
            upstream: "127.0.0.1:1".into(),
            nginx_end: Some("[::1]:2".parse().unwrap()),
            target: Some("/x".into()),
            at_ns: 7,
            what: "closed".into(),
            expected: Some(Expected::new("backend", "fin", "stale-keepalive")),
        };
        let fixture = Fixture {
            scenario: "stale".into(),
            seed: 1,
            recorded: Recorded {
                acts: vec![("stale".into(), act)],
                ..Recorded::default()
            },
        };
        let text = fixture.text().unwrap();
        fs::write(folder.path().join("truth.json"), &text).unwrap();
        let back = Fixture::read(folder.path()).unwrap();
        assert_eq!(back.text().unwrap(), text);
        let misspelt = text.replace("stale-keepalive", "stale-keep-alive");
        fs::write(folder.path().join("truth.json"), misspelt).unwrap();
        let error = format!("{:#}", Fixture::read(folder.path()).unwrap_err());
        assert!(error.contains("is no word of a verdict"), "{error}");
    }
}
