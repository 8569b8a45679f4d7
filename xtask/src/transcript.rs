//! The transcripts in README.md: which fenced blocks claim to be the program's output,
//! and how a claim is compared with it. Running the program is left to `tidy`.

/// A command line in a block marked `console`, with the output that follows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Transcript {
    /// The line of the command, counted from 1.
    pub(crate) line: usize,
    /// The words after `whoclosed`.
    pub(crate) arguments: Vec<String>,
    /// The output's lines, without white space at their ends.
    pub(crate) output: Vec<String>,
}

/// What a block marked `text demo` shows: one command's output, in parts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Excerpt {
    /// The words after `whoclosed`.
    pub(crate) arguments: Vec<String>,
    /// Numbers, counted from 1, and texts of the lines that the output must have, in this order.
    pub(crate) lines: Vec<(usize, String)>,
}

/// The lines inside fenced blocks whose opening says exactly `info`, one list a block.
fn blocks<'a>(markdown: &'a str, info: &str) -> Vec<Vec<(usize, &'a str)>> {
    let mut found = Vec::new();
    let mut current: Option<(bool, Vec<(usize, &str)>)> = None;
    for (index, line) in markdown.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut current) {
            (Some(opening), None) => current = Some((opening.trim() == info, Vec::new())),
            (Some(_), Some(_)) => {
                if let Some((true, lines)) = current.take() {
                    found.push(lines);
                }
            }
            (None, Some((_, lines))) => lines.push((index + 1, line)),
            (None, None) => {}
        }
    }
    found
}

/// The transcripts that can be had without root: help and version texts.
pub(crate) fn transcripts(markdown: &str) -> Vec<Transcript> {
    let mut found = Vec::new();
    for block in blocks(markdown, "console") {
        let mut current: Option<Transcript> = None;
        for (line, text) in block {
            if let Some(command) = text.strip_prefix("$ ") {
                found.extend(current.take());
                let arguments = needs_no_root(command);
                current = arguments.map(|arguments| Transcript {
                    line,
                    arguments,
                    output: vec![],
                });
            } else if let Some(transcript) = &mut current {
                transcript.output.push(text.trim_end().to_owned());
            }
        }
        found.extend(current);
    }
    for transcript in &mut found {
        trim(&mut transcript.output);
    }
    found
}

/// The arguments of a `whoclosed` command that only prints a text of its own.
fn needs_no_root(command: &str) -> Option<Vec<String>> {
    let mut words = command.split_whitespace().map(str::to_owned);
    if words.next()? != "whoclosed" {
        return None;
    }
    let arguments: Vec<String> = words.collect();
    let asks_for_text = ["--help", "-h", "--version", "-V"];
    let only_text = arguments.first().is_some_and(|first| first == "help")
        || arguments
            .last()
            .is_some_and(|last| asks_for_text.contains(&last.as_str()));
    only_text.then_some(arguments)
}

/// The excerpts of outputs about the demo's trace, which a command names `trace`. Any
/// other command, such as the one that makes the trace, stands for its report. The
/// line `...` stands for lines left out.
pub(crate) fn excerpts(markdown: &str, trace: &str) -> Vec<Excerpt> {
    let report = || vec!["report".to_owned(), trace.to_owned()];
    let mut found = Vec::new();
    for block in blocks(markdown, "text demo") {
        let mut current: Option<Excerpt> = None;
        for (line, text) in block {
            let command = text.strip_prefix("$ ");
            if command.is_some() || current.is_none() {
                found.extend(current.take());
                current = Some(Excerpt {
                    arguments: command
                        .and_then(|command| about(command, trace))
                        .unwrap_or_else(report),
                    lines: vec![],
                });
            }
            let claims = command.is_none() && !text.trim().is_empty() && text.trim() != "...";
            if let (true, Some(excerpt)) = (claims, &mut current) {
                excerpt.lines.push((line, text.trim_end().to_owned()));
            }
        }
        found.extend(current);
    }
    found
}

/// The arguments of a `whoclosed` command about the trace.
fn about(command: &str, trace: &str) -> Option<Vec<String>> {
    let arguments: Vec<String> = command
        .strip_prefix("whoclosed ")?
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    arguments
        .iter()
        .any(|argument| argument == trace)
        .then_some(arguments)
}

/// The program's output as a transcript shows it.
pub(crate) fn lines(output: &str) -> Vec<String> {
    let mut lines = output
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    trim(&mut lines);
    lines
}

/// Takes empty lines off both ends.
fn trim(lines: &mut Vec<String>) {
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    let leading = lines.iter().take_while(|line| line.is_empty()).count();
    lines.drain(..leading);
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = "# whoclosed\n\n```console\n$ whoclosed --version\nwhoclosed 0.1.0\n\n\
        $ whoclosed report --help\n\nUsage: x  \n```\n\n```console\n# whoclosed capture\nstarted\n\
        $ whoclosed report a.trace\nreport\n```\n\n```sh\n$ whoclosed --help\n```\n\n\
        ```text demo\n$ cargo xtask demo\n12 lines,  3 matched\n...\n\nlast 5 ms\n```\n";

    #[test]
    fn only_commands_without_root_are_transcripts() {
        let found = transcripts(README);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].line, found[0].arguments.join(" ").as_str()),
            (4, "--version")
        );
        assert_eq!(found[0].output, ["whoclosed 0.1.0"]);
        assert_eq!(
            (found[1].line, found[1].arguments.join(" ").as_str()),
            (7, "report --help")
        );
        assert_eq!(found[1].output, ["Usage: x"]);
    }

    #[test]
    fn an_excerpt_leaves_out_commands_and_elisions() {
        let markdown =
            format!("{README}\n```text demo\n$ whoclosed show a.trace 1\n  +1 ms  FIN\n```\n");
        let found = excerpts(&markdown, "a.trace");
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].arguments, ["report", "a.trace"]);
        let expected = [
            (25, "12 lines,  3 matched".to_owned()),
            (28, "last 5 ms".to_owned()),
        ];
        assert_eq!(found[0].lines, expected);
        assert_eq!(found[1].arguments, ["show", "a.trace", "1"]);
        assert_eq!(found[1].lines, [(33, "  +1 ms  FIN".to_owned())]);
    }

    #[test]
    fn output_is_compared_without_empty_ends() {
        assert_eq!(lines("\na \n\nb\n\n"), ["a", "", "b"]);
    }
}
