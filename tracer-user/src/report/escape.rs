//! Makes untrusted text safe to show: log lines, requests, names and paths.
//!
//! Clients write parts of nginx's error log. On a terminal, control characters
//! could move the cursor, forge lines or reorder what is read.

/// Shows `text` in at most about `limit` characters.
///
/// A character that would not be seen as itself (control, escape, line and
/// paragraph separators, bidirectional and other format characters, combining
/// marks, unassigned code points, white space other than the blank) appears as
/// an escape such as `\n` or `\u{202e}`; a backslash is doubled, so no text can
/// imitate an escape. What exceeds the limit is counted.
#[must_use]
pub fn escape(text: &str, limit: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(limit));
    let mut length = 0;
    for (index, character) in text.char_indices() {
        let piece = Piece::of(character);
        length += piece.length();
        if length > limit {
            let left = text[index..].chars().count();
            shown.push_str(&format!("... ({left} more)"));
            break;
        }
        match piece {
            Piece::Plain(character) => shown.push(character),
            Piece::Escaped(escape) => shown.extend(escape),
        }
    }
    shown
}

/// Whether a character is shown as itself.
pub(super) fn is_plain(character: char) -> bool {
    match character {
        ' ' | '"' | '\'' => true,
        '\\' => false,
        _ => character.escape_debug().len() == 1,
    }
}

enum Piece {
    Plain(char),
    Escaped(std::char::EscapeDebug),
}

impl Piece {
    fn of(character: char) -> Self {
        if is_plain(character) {
            Self::Plain(character)
        } else {
            Self::Escaped(character.escape_debug())
        }
    }

    fn length(&self) -> usize {
        match self {
            Self::Plain(_) => 1,
            Self::Escaped(escape) => escape.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_seen_as_itself_is_escaped() {
        assert_eq!(
            escape("GET /a?b=\"c\" 'd' HTTP/1.1", 100),
            "GET /a?b=\"c\" 'd' HTTP/1.1"
        );
        assert_eq!(escape("a\nb\tc\rd\0", 100), r"a\nb\tc\rd\0");
        assert_eq!(
            escape("\u{1b}[2J\u{9b}31m\u{7f}", 100),
            r"\u{1b}[2J\u{9b}31m\u{7f}"
        );
        assert_eq!(
            escape("\u{202e}txt.exe\u{2066}\u{200b}", 100),
            r"\u{202e}txt.exe\u{2066}\u{200b}"
        );
        assert_eq!(
            escape("\u{2028}\u{feff}\u{e0041}\u{a0}", 100),
            r"\u{2028}\u{feff}\u{e0041}\u{a0}"
        );
        assert_eq!(escape(r"\u{1b}", 100), r"\\u{1b}");
        assert_eq!(escape("Grüße, 世界", 100), "Grüße, 世界");
    }

    #[test]
    fn what_exceeds_the_limit_is_counted_and_no_escape_is_cut() {
        assert_eq!(escape("abcdef", 6), "abcdef");
        assert_eq!(escape("abcdefg", 6), "abcdef... (1 more)");
        assert_eq!(escape("abc\u{1b}\u{1b}", 6), "abc... (2 more)");
    }

    proptest! {
        #[test]
        fn escaped_text_holds_no_control_or_format_character(text in any::<String>()) {
            let shown = escape(&text, 1000);
            prop_assert!(shown.chars().all(|c| c == '\\' || is_plain(c)));
        }
    }
}
