//! Lays text out: wrapping, indents and colour. Knows nothing of reports.

use std::fmt;

use anstyle::{AnsiColor, Color, Effects, Style};

/// How to lay out text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextOptions {
    /// Colours by ANSI sequences.
    pub colour: bool,
    /// Columns; fewer than 60 are taken as 60.
    pub width: u16,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self {
            colour: false,
            width: 80,
        }
    }
}

pub(crate) const HEADING: Style = Style::new().effects(Effects::BOLD);
pub(crate) const DIM: Style = Style::new().effects(Effects::DIMMED);
pub(crate) const WARNING: Style = coloured(AnsiColor::Yellow).effects(Effects::BOLD);
pub(crate) const GOOD: Style = coloured(AnsiColor::Green);
pub(crate) const BAD: Style = coloured(AnsiColor::Red);
pub(crate) const PLAIN: Style = Style::new();

pub(crate) const fn coloured(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

/// Text being laid out.
pub(crate) struct Page<'a, W> {
    out: &'a mut W,
    colour: bool,
    width: usize,
}

impl<'a, W: fmt::Write> Page<'a, W> {
    pub(crate) fn new(out: &'a mut W, options: TextOptions) -> Self {
        Self {
            out,
            colour: options.colour,
            width: usize::from(options.width).max(60),
        }
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// A blank line.
    pub(crate) fn gap(&mut self) -> fmt::Result {
        self.out.write_char('\n')
    }

    /// A heading after a blank line.
    pub(crate) fn heading(&mut self, text: &str) -> fmt::Result {
        self.gap()?;
        self.line(&[(HEADING, text)])
    }

    /// One line of pieces, not wrapped.
    pub(crate) fn line(&mut self, pieces: &[(Style, &str)]) -> fmt::Result {
        for (style, text) in pieces {
            self.styled(*style, text)?;
        }
        self.gap()
    }

    /// Lines as they are.
    pub(crate) fn block(&mut self, text: &str) -> fmt::Result {
        for line in text.lines() {
            self.out.write_str(line.trim_end())?;
            self.gap()?;
        }
        Ok(())
    }

    /// A paragraph: `label` first, further lines under its end.
    pub(crate) fn paragraph(&mut self, label: &str, style: Style, text: &str) -> fmt::Result {
        self.labelled(DIM, label, style, text)
    }

    /// A paragraph whose label has a style of its own.
    pub(crate) fn labelled(
        &mut self,
        label_style: Style,
        label: &str,
        style: Style,
        text: &str,
    ) -> fmt::Result {
        let indent = label.chars().count();
        let room = self.width.saturating_sub(indent).max(20);
        for (number, line) in wrap(text, room).iter().enumerate() {
            if number == 0 {
                self.styled(label_style, label)?;
            } else {
                write!(self.out, "{:indent$}", "")?;
            }
            self.styled(style, line)?;
            self.gap()?;
        }
        Ok(())
    }

    /// Pieces after each other, lines broken between them only; all indented alike.
    pub(crate) fn pieces(&mut self, indent: &str, pieces: &[String]) -> fmt::Result {
        let mut line = String::new();
        for (number, piece) in pieces.iter().enumerate() {
            let comma = if number + 1 < pieces.len() { "," } else { "" };
            let length = |text: &str| text.chars().count();
            let longer = length(&line) + 1 + length(piece) + comma.len();
            if !line.is_empty() && length(indent) + longer > self.width {
                self.paragraph(indent, PLAIN, &line)?;
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(piece);
            line.push_str(comma);
        }
        self.paragraph(indent, PLAIN, &line)
    }

    /// One line of pieces, not wrapped, if it fits.
    pub(crate) fn fits(&self, pieces: &[(Style, &str)]) -> bool {
        let length = pieces.iter().map(|(_, text)| text.chars().count());
        length.sum::<usize>() <= self.width
    }

    fn styled(&mut self, style: Style, text: &str) -> fmt::Result {
        if self.colour && style != PLAIN && !text.trim().is_empty() {
            write!(self.out, "{style}{text}{style:#}")
        } else {
            self.out.write_str(text)
        }
    }
}

/// Breaks text at blanks, words longer than a line in their middle; at least
/// one line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut length = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let mut word: Vec<char> = word.chars().collect();
        if length > 0 && length + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        while length + word.len() > width {
            let rest = word.split_off(width - length);
            line.extend(word);
            lines.push(std::mem::take(&mut line));
            length = 0;
            word = rest;
        }
        length += word.len();
        line.extend(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_and_long_texts_are_broken() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("世界 世界", 2), ["世界", "世界"]);
    }
}
