//! `cargo xtask tidy`: the rules that neither rustfmt nor clippy checks. Each failure
//! is one line that begins with file and line.
//!
//! A rule is a function from a file's text to its failures; a new rule is a new
//! function and a line in [`verb`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{step, transcript, workspace};

/// Lines beyond which a file has to be split.
const LONGEST: usize = 600;

/// Files that may be longer, each with the reason.
const MAY_BE_LONGER: [(&str, &str); 0] = [];

/// The trace that the README's demo transcripts were taken from.
const DEMO_TRACE: &str = "tests/fixtures/demo.trace";

/// What must not stay in the code, put together so that this file does not contain it.
const LEFTOVERS: [(&str, &str); 4] = [
    (
        concat!("#[", "ignore"),
        "a test that does not run tests nothing",
    ),
    (concat!("to", "do!("), "unfinished code"),
    (concat!("unimplem", "ented!("), "unfinished code"),
    (concat!("FIX", "ME"), "say what is so, or do it"),
];

/// A line of a file, counted from 1, and what is wrong there.
type Failure = (usize, String);

/// Runs the verb.
pub(crate) fn verb() -> Result<()> {
    let mut report = Report::default();
    let workspace_manifest = report.read("Cargo.toml")?;
    for member in members(&workspace_manifest) {
        let manifest = format!("{member}/Cargo.toml");
        let text = report.read(&manifest)?;
        report.add(&manifest, inherits_lints(&text));
        for file in sources(&workspace::root().join(&member))? {
            let text = report.read(&file)?;
            if file.starts_with(&format!("{member}/src/")) {
                report.add(&file, begins_with_header(&text));
            }
            if member == "tracer-ebpf" {
                // Its kernel half is not compiled, so not linted, for this machine.
                report.add(&file, unsafe_is_argued(&text));
            }
            report.add(&file, no_leftovers(&text));
            if !MAY_BE_LONGER.iter().any(|(name, _)| *name == file) {
                report.add(&file, is_short(&text));
            }
        }
    }
    check_readme(&mut report)?;
    report.finish()
}

/// What was read and what was found.
#[derive(Default)]
struct Report {
    files: usize,
    failures: usize,
}

impl Report {
    fn read(&mut self, file: &str) -> Result<String> {
        self.files += 1;
        fs::read_to_string(workspace::root().join(file))
            .with_context(|| format!("cannot read {file}"))
    }

    fn add(&mut self, file: &str, failures: impl IntoIterator<Item = Failure>) {
        for (line, what) in failures {
            self.failures += 1;
            println!("{file}:{line}: {what}");
        }
    }

    fn finish(self) -> Result<()> {
        if self.failures > 0 {
            bail!(
                "tidy found {} failures in {} files",
                self.failures,
                self.files
            );
        }
        println!("tidy: {} files, nothing to report", self.files);
        Ok(())
    }
}

/// The workspace's members, as its manifest lists them.
fn members(manifest: &str) -> Vec<String> {
    let list = manifest
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'));
    list.map_or("", |(list, _)| list)
        .split(',')
        .map(|name| name.trim().trim_matches('"').to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Every Rust file below a folder, relative to the workspace, in order.
fn sources(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("cannot read the folder {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(workspace::root())?.display().to_string());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn inherits_lints(manifest: &str) -> Option<Failure> {
    let inherits = manifest
        .lines()
        .skip_while(|line| line.trim() != "[lints]")
        .nth(1);
    let inherits = inherits.is_some_and(|line| line.replace(' ', "") == "workspace=true");
    (!inherits).then(|| (1, "does not inherit the workspace's lints".to_owned()))
}

fn begins_with_header(text: &str) -> Option<Failure> {
    let begins = text.starts_with("//! ");
    (!begins).then(|| {
        (
            1,
            "does not begin with `//!`: what it is, what it leaves out".to_owned(),
        )
    })
}

fn is_short(text: &str) -> Option<Failure> {
    let length = text.lines().count();
    let message = || format!("{length} lines; split it, or list it in tidy.rs with the reason");
    (length > LONGEST).then(|| (LONGEST + 1, message()))
}

fn no_leftovers(text: &str) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for (leftover, why) in LEFTOVERS {
            if line.contains(leftover) {
                failures.push((index + 1, format!("`{leftover}`: {why}")));
            }
        }
    }
    failures
}

/// Every unsafe block and unsafe impl has a comment with its argument directly above
/// the statement that it stands in.
fn unsafe_is_argued(text: &str) -> Vec<Failure> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let needs_argument = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        code.contains("unsafe {") || code.contains("unsafe impl")
    };
    (0..lines.len())
        .filter(|index| needs_argument(lines[*index]) && !argued(&lines[..*index]))
        .map(|index| {
            (
                index + 1,
                "unsafe without a `// SAFETY:` comment above it".to_owned(),
            )
        })
        .collect()
}

/// Whether the lines end in a comment with an argument, with nothing after it but
/// attributes and the beginning of the statement.
fn argued(above: &[&str]) -> bool {
    let mut lines = above.iter().rev().peekable();
    while let Some(line) = lines.peek() {
        let begins_statement = line.is_empty() || line.ends_with([';', '{', '}', ',']);
        if line.starts_with("//") || (begins_statement && !line.starts_with("#[")) {
            break;
        }
        lines.next();
    }
    lines
        .take_while(|line| line.starts_with("//"))
        .any(|line| line.contains("SAFETY:"))
}

fn check_readme(report: &mut Report) -> Result<()> {
    let file = "README.md";
    if !workspace::root().join(file).exists() {
        report.add(file, [(1, "is missing".to_owned())]);
        return Ok(());
    }
    let readme = report.read(file)?;
    let transcripts = transcript::transcripts(&readme);
    let excerpts = transcript::excerpts(&readme, DEMO_TRACE);
    if transcripts.is_empty() {
        report.add(file, [(1, "shows no help text".to_owned())]);
    }
    if excerpts.is_empty() {
        report.add(file, [(1, "shows nothing of the demo".to_owned())]);
    }
    let agent = plain_agent()?;
    for transcript in transcripts {
        let output = transcript::lines(&output(&agent, &transcript.arguments)?);
        report.add(file, difference(&transcript, &output));
    }
    for excerpt in excerpts {
        let output = transcript::lines(&output(&agent, &excerpt.arguments)?);
        report.add(file, missing(&excerpt, &output));
    }
    Ok(())
}

/// The lines of an excerpt that the output does not have after the one before.
fn missing(excerpt: &transcript::Excerpt, output: &[String]) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut rest = output;
    for (line, text) in &excerpt.lines {
        if let Some(at) = rest.iter().position(|printed| printed == text) {
            rest = &rest[at + 1..];
        } else {
            let arguments = excerpt.arguments.join(" ");
            let what = format!("`whoclosed {arguments}` prints no such line from here on");
            failures.push((*line, what));
        }
    }
    failures
}

/// The first line in which a transcript and the program differ.
fn difference(transcript: &transcript::Transcript, output: &[String]) -> Option<Failure> {
    let longest = transcript.output.len().max(output.len());
    let (index, claimed, printed) = (0..longest)
        .map(|index| (index, transcript.output.get(index), output.get(index)))
        .find(|(_, claimed, printed)| claimed != printed)?;
    let shown =
        |line: Option<&String>| line.map_or("nothing".to_owned(), |line| format!("{line:?}"));
    let arguments = transcript.arguments.join(" ");
    let what = format!(
        "`whoclosed {arguments}` prints {} as line {}, the transcript has {}",
        shown(printed),
        index + 1,
        shown(claimed)
    );
    Some((transcript.line, what))
}

/// The agent without kernel programs: its texts and reports are the same, and neither
/// root nor a BPF toolchain is needed for them.
fn plain_agent() -> Result<PathBuf> {
    let target = workspace::target()?;
    let mut command = step::cargo();
    command
        .args([
            "build",
            "--quiet",
            "--package",
            "tracer-user",
            "--bin",
            "whoclosed",
        ])
        .arg("--target-dir")
        .arg(&target);
    step::run("build the agent without programs", &mut command)?;
    Ok(target.join("debug").join("whoclosed"))
}

fn output(agent: &Path, arguments: &[String]) -> Result<String> {
    let mut command = Command::new(agent);
    command
        .args(arguments)
        .current_dir(workspace::root())
        .env("NO_COLOR", "1");
    command.env_remove("COLUMNS").env_remove("CLICOLOR_FORCE");
    let output = command
        .output()
        .with_context(|| format!("cannot start {}", agent.display()))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`whoclosed {}` failed: {}",
            arguments.join(" "),
            message.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_from_the_manifest() {
        let manifest = "[workspace]\nresolver = \"3\"\nmembers = [\n  \"a\",\n  \"b\", \"c\"]\n";
        assert_eq!(members(manifest), ["a", "b", "c"]);
    }

    #[test]
    fn lints_are_inherited_only_by_saying_so() {
        assert_eq!(
            inherits_lints("[package]\n\n[lints]\nworkspace = true\n"),
            None
        );
        assert!(inherits_lints("[package]\n\n[lints.rust]\nworkspace = true\n").is_some());
        assert!(inherits_lints("[package]\nname = \"x\"\n").is_some());
    }

    #[test]
    fn an_argument_reaches_over_attributes_and_the_start_of_a_statement() {
        let argued = "    // SAFETY: the map outlives the program,\n    // as the kernel holds it.\n\
            #[inline]\n    let value =\n        unsafe { read(at) };\n";
        assert_eq!(unsafe_is_argued(argued), []);
        let lines: Vec<usize> = unsafe_is_argued(
            "// SAFETY: of another statement.\nlet a = 1;\nlet b = unsafe { read(at) };\n\
             unsafe impl Sync for A {}\n// unsafe { in a comment }\n#[unsafe(no_mangle)]\n",
        )
        .into_iter()
        .map(|(line, _)| line)
        .collect();
        assert_eq!(lines, [3, 4]);
    }

    #[test]
    fn leftovers_are_found_by_line() {
        let text = format!(
            "fn a() {{}}\n    {}]\n// {}\n",
            LEFTOVERS[0].0, LEFTOVERS[3].0
        );
        let lines: Vec<usize> = no_leftovers(&text)
            .into_iter()
            .map(|(line, _)| line)
            .collect();
        assert_eq!(lines, [2, 3]);
    }

    #[test]
    fn a_file_may_have_600_lines_and_no_more() {
        assert_eq!(is_short(&"x\n".repeat(LONGEST)), None);
        assert!(is_short(&"x\n".repeat(LONGEST + 1)).is_some());
    }

    #[test]
    fn an_excerpt_has_to_follow_the_outputs_order() {
        let excerpt = transcript::Excerpt {
            arguments: vec!["report".into()],
            lines: vec![(8, "a 1".into()), (9, "b".into()), (10, "d".into())],
        };
        let output = ["a 1", "b", "c", "d"].map(str::to_owned);
        assert_eq!(missing(&excerpt, &output), []);
        let lines = |output: &[&str]| -> Vec<usize> {
            let output: Vec<String> = output.iter().map(|line| (*line).to_owned()).collect();
            let failures = missing(&excerpt, &output);
            failures.into_iter().map(|(line, _)| line).collect()
        };
        assert_eq!(lines(&["b", "a 1", "d"]), [9]);
        assert_eq!(lines(&["a 2", "b", "d"]), [8]);
    }

    #[test]
    fn a_wrong_transcript_is_reported_at_its_command() {
        let transcript = transcript::Transcript {
            line: 7,
            arguments: vec!["--version".into()],
            output: vec!["whoclosed 0.1.0".into()],
        };
        assert_eq!(
            difference(&transcript, &["whoclosed 0.1.0".to_owned()]),
            None
        );
        let (line, _) = difference(&transcript, &["whoclosed 0.2.0".to_owned()]).unwrap();
        assert_eq!(line, 7);
    }
}
