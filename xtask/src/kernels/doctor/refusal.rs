//! What a capture says in a case where doctor says that none is possible: the first of
//! doctor's obstacles with what to do about it, in the same words, and nothing else.

use serde_json::Value;

/// What is wrong with it; nothing where a capture is possible.
pub(super) fn wrong(said: &str, case: &str, answer: &Value) -> Option<String> {
    if answer["possible"] != false {
        return None;
    }
    let Some((words, status, more)) = refusal(said, case) else {
        return Some("a capture was not tried".to_owned());
    };
    let expected = format!("whoclosed: {}", first_obstacle(answer)?);
    if words != expected {
        return Some(format!("a capture says {words:?}, not {expected:?}"));
    }
    if status != "1" {
        return Some(format!("a capture's exit status is {status}, not 1"));
    }
    more.starts_with("trace: ")
        .then(|| "a capture that refused left a trace".to_owned())
}

/// A statement as `capture` says it.
fn first_obstacle(answer: &Value) -> Option<String> {
    let mut all = answer["statements"].as_array()?.iter();
    let first = all.find(|statement| statement["weight"] == "prevents")?;
    let text = first["text"].as_str()?;
    Some(match first["do"].as_str() {
        Some(remedy) => format!("{text}; {remedy}"),
        None => text.to_owned(),
    })
}

/// What a capture wrote to stderr, its exit status, and what the script said next.
fn refusal<'a>(said: &'a str, case: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let (_, after) = said.split_once(&format!("capture: {case}\n"))?;
    let (words, after) = after.split_once("\nexit: ")?;
    let (status, more) = after.split_once('\n').unwrap_or((after, ""));
    Some((words, status.trim(), more))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(said: &str) -> Option<String> {
        let answer = json!({ "possible": false, "statements": [
            { "weight": "prevents", "text": "locked down", "do": "capture elsewhere" },
            { "weight": "prevents", "text": "no nginx", "do": null },
        ]});
        wrong(said, "whole", &answer)
    }

    #[test]
    fn a_capture_has_to_say_doctors_first_obstacle_word_for_word_and_end_with_1() {
        let right = "capture: whole\nwhoclosed: locked down; capture elsewhere\nexit: 1\n";
        assert_eq!(told(right), None);
        for (from, to) in [
            ("; capture elsewhere", ""),
            ("locked down; capture elsewhere", "no nginx"),
            ("whoclosed:", "warning\nwhoclosed:"),
            ("exit: 1", "exit: 0"),
            ("exit: 1", "exit: 101"),
            ("exit: 1\n", "exit: 1\ntrace: it left one\n"),
            ("capture: whole", "capture: piped"),
        ] {
            let other = right.replace(from, to);
            assert_ne!(other, right);
            assert!(told(&other).is_some(), "{other}");
        }
    }

    #[test]
    fn where_a_capture_is_possible_none_is_tried() {
        assert_eq!(wrong("", "whole", &json!({ "possible": true })), None);
    }
}
