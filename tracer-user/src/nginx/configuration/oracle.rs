//! What this reader makes of configurations that nginx accepts, held against what
//! crossplane made of them (`tests/fixtures/configurations`, where `expected.py` says
//! how), and of random ones that are printed here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde::Deserialize;

use super::tokens::unescape;
use super::tree::{DATA_BLOCKS, Directive, Loader};
use crate::nginx::processes::Root;

/// One file as crossplane read it.
#[derive(Deserialize)]
struct Read {
    file: String,
    directives: Vec<Parsed>,
}

#[derive(Deserialize)]
struct Parsed {
    name: String,
    arguments: Vec<String>,
    includes: Option<Vec<usize>>,
    #[serde(default)]
    block: Vec<Parsed>,
}

/// The directives with includes in their places, as [`Loader`] gives them.
fn expanded(directives: &[Parsed], files: &[Read], include: bool) -> Vec<Directive> {
    let mut found = Vec::new();
    for parsed in directives {
        if let Some(includes) = &parsed.includes {
            for &index in includes.iter().filter(|_| include) {
                found.extend(expanded(&files[index].directives, files, true));
            }
            continue;
        }
        let include = include && !DATA_BLOCKS.contains(&parsed.name.as_str());
        // crossplane keeps every backslash but one before the quote that surrounds.
        let arguments = parsed.arguments.iter();
        found.push(Directive {
            name: unescape(parsed.name.as_bytes()),
            arguments: arguments.map(|word| unescape(word.as_bytes())).collect(),
            block: expanded(&parsed.block, files, include),
        });
    }
    found
}

/// crossplane drops the parentheses around a condition and makes no words of them.
fn without_parentheses(directives: &mut [Directive]) {
    for directive in directives {
        let words = &mut directive.arguments;
        if directive.name == "if" && !words.is_empty() {
            let joined = words.remove(0);
            words.insert(0, joined.strip_prefix('(').unwrap_or(&joined).to_owned());
            let last = words.pop().unwrap_or_default();
            words.push(last.strip_suffix(')').unwrap_or(&last).to_owned());
            words.retain(|word| !word.is_empty());
        }
        without_parentheses(&mut directive.block);
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/configurations")
}

#[test]
fn configurations_are_read_as_crossplane_reads_them() {
    let mut compared = 0;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let files: Vec<Read> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(files[0].file, "nginx.conf");
        let expected = expanded(&files[0].directives, &files, true);
        let root = Root::open(&path.with_extension("")).unwrap();
        let mut loader = Loader::new(&root, "/nginx.conf");
        let mut found = loader.file("/nginx.conf").unwrap();
        without_parentheses(&mut found);
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if !loader.problems.is_empty() {
            wrong.push(format!("{name}: {:?}", loader.problems));
        }
        if found != expected {
            wrong.push(format!("{name}:\n{}", first_difference(&found, &expected)));
        }
        compared += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let folders = fs::read_dir(fixtures()).unwrap();
    let folders = folders.filter(|entry| entry.as_ref().unwrap().path().is_dir());
    assert_eq!(compared, folders.count(), "one expectation for each folder");
    assert!(compared >= 30, "{compared}");
}

/// crossplane leaves backslashes as they are; nginx itself says what becomes of them
/// (`served.json`: what it served, which an end-to-end test holds it to).
#[test]
fn escaped_words_are_read_as_nginx_serves_them() {
    let folder = fixtures().join("escapes");
    let served = fs::read(folder.join("served.json")).unwrap();
    let served: BTreeMap<String, String> = serde_json::from_slice(&served).unwrap();
    let root = Root::open(&folder).unwrap();
    let mut loader = Loader::new(&root, "/nginx.conf");
    let directives = loader.file("/nginx.conf").unwrap();
    let http = directives.iter().find(|outer| outer.name == "http");
    let locations = http.unwrap().block[0].block.iter();
    let read: BTreeMap<String, String> = locations
        .filter(|inner| inner.name == "location" && inner.block[0].arguments[0] == "200")
        .map(|inner| {
            let body = inner.block[0].arguments[1].clone();
            (inner.arguments[0].clone(), body)
        })
        .collect();
    assert_eq!(read, served);
    assert!(served.len() >= 16);
}

fn first_difference(found: &[Directive], expected: &[Directive]) -> String {
    let differing = found
        .iter()
        .zip(expected)
        .find(|(found, expected)| found != expected);
    match differing {
        Some((found, expected))
            if found.name == expected.name && found.arguments == expected.arguments =>
        {
            first_difference(&found.block, &expected.block)
        }
        Some((found, expected)) => format!("found    {found:?}\nexpected {expected:?}"),
        None => format!(
            "found {} directives, expected {}",
            found.len(),
            expected.len()
        ),
    }
}

/// How a word is written, as far as it can be.
#[derive(Clone, Copy, Debug)]
enum Style {
    Bare,
    Single,
    Double,
}

fn written(word: &str, style: Style) -> String {
    let escaped = |quote: char| {
        let mut text = String::from(quote);
        for letter in word.chars() {
            if letter == quote || letter == '\\' {
                text.push('\\');
            }
            text.push(letter);
        }
        text + &quote.to_string()
    };
    let starts_bare = |first: char| !matches!(first, '"' | '\'' | '#' | '}');
    match style {
        Style::Single => escaped('\''),
        Style::Bare
            if word.starts_with(starts_bare)
                && !word.contains([' ', '\t', '\r', '\n', ';', '{']) =>
        {
            word.replace('\\', "\\\\")
        }
        Style::Bare | Style::Double => escaped('"'),
    }
}

/// The text of directives; `noise` gives styles and what stands between words.
fn print(directives: &[Directive], noise: &mut impl Iterator<Item = u8>, text: &mut String) {
    const BETWEEN: [&str; 6] = [" ", "\t", "\n", "\r\n", "   ", " # a 'comment' ; { }\n"];
    let mut next = || usize::from(noise.next().unwrap_or(0));
    let mut statements = Vec::new();
    for directive in directives {
        let mut statement = String::new();
        let words = std::iter::once(&directive.name).chain(&directive.arguments);
        for word in words {
            let style = [Style::Bare, Style::Single, Style::Double][next() % 3];
            statement += &written(word, style);
            statement += BETWEEN[next() % BETWEEN.len()];
        }
        statements.push(statement);
    }
    for (directive, statement) in directives.iter().zip(statements) {
        *text += &statement;
        if directive.block.is_empty() {
            *text += ";";
        } else {
            *text += "{";
            print(&directive.block, noise, text);
            *text += "}";
        }
    }
}

fn directives() -> impl Strategy<Value = Vec<Directive>> {
    let word = "[ -~äß漢\t\r\n]{0,9}";
    // Words of other meanings: `include`, and blocks of Lua.
    let name = "[a-h$\"'\\\\{};#]{1,8}";
    let plain = (name, prop::collection::vec(word, 0..4));
    let plain = plain.prop_map(|(name, arguments)| Directive {
        name,
        arguments,
        block: Vec::new(),
    });
    let nested = plain.prop_recursive(4, 40, 5, |inner| {
        (inner.clone(), prop::collection::vec(inner, 0..5))
            .prop_map(|(directive, block)| Directive { block, ..directive })
    });
    prop::collection::vec(nested, 0..6)
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(
        directives in directives(),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut text = String::new();
        print(&directives, &mut noise.into_iter().cycle(), &mut text);
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        let mut loader = Loader::new(&root, "/nginx.conf");
        let found = loader.text("printed", text.as_bytes());
        prop_assert_eq!(&loader.problems, &Vec::<String>::new(), "{}", text);
        prop_assert_eq!(found, directives, "{}", text);
    }
}
