//! Tables of figures, no number of which is ever broken: where the page is too narrow for
//! one, cells of several figures are broken between these, then each row becomes a list.

use std::fmt;

use super::page::{PLAIN, Page};

/// Between two columns.
const GAP: usize = 1;

/// A table: its columns' heads, and rows of as many cells. The first cell is whose row it
/// is.
pub(super) struct Table<'a> {
    /// Heads; `\n` parts their lines.
    pub(super) heads: &'a [&'a str],
    /// Columns aligned left, the others right.
    pub(super) left: usize,
    /// Cells; a `/` parts figures.
    pub(super) rows: Vec<Vec<String>>,
}

impl Table<'_> {
    pub(super) fn render<W: fmt::Write>(&self, page: &mut Page<'_, W>) -> fmt::Result {
        let heads: Vec<Vec<&str>> = self.heads.iter().map(|head| lines(head, '\n')).collect();
        let whole = |cell: &'_ str, _column: usize| vec![cell.to_owned()];
        let broken = |cell: &'_ str, column: usize| {
            if column < self.left {
                return whole(cell, column);
            }
            let figures = lines(cell, '/');
            let last = figures.len() - 1;
            let with_slash = |(number, figure): (usize, &&str)| {
                format!("{figure}{}", if number < last { "/" } else { "" })
            };
            figures.iter().enumerate().map(with_slash).collect()
        };
        let columns = self.columns(page.width(), &heads, whole);
        match columns.or_else(|| self.columns(page.width(), &heads, broken)) {
            Some(text) => page.block(&text),
            None => self.lists(page),
        }
    }

    /// As columns, if they fit.
    fn columns(
        &self,
        width: usize,
        heads: &[Vec<&str>],
        broken: impl Fn(&str, usize) -> Vec<String>,
    ) -> Option<String> {
        let cells = |row: &Vec<String>| -> Vec<Vec<String>> {
            let cells = row.iter().enumerate();
            cells.map(|(column, cell)| broken(cell, column)).collect()
        };
        let mut rows: Vec<Vec<Vec<String>>> = self.rows.iter().map(cells).collect();
        // Heads stand at the bottom of theirs.
        let height = heads.iter().map(Vec::len).max().unwrap_or(0);
        let head = |lines: &Vec<&str>| {
            let above = std::iter::repeat_n(String::new(), height - lines.len());
            above
                .chain(lines.iter().map(|line| (*line).to_owned()))
                .collect()
        };
        rows.insert(0, heads.iter().map(head).collect());
        let widths: Vec<usize> = (0..heads.len())
            .map(|column| {
                let cells = rows.iter().filter_map(|row| row.get(column)).flatten();
                cells.map(|line| line.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let gaps = GAP * widths.len().saturating_sub(1);
        if widths.iter().sum::<usize>() + gaps > width {
            return None;
        }
        let mut text = String::new();
        for row in &rows {
            for number in 0..row.iter().map(Vec::len).max().unwrap_or(0) {
                for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                    let line = cell.get(number).map_or("", String::as_str);
                    if column > 0 {
                        text.push_str(&" ".repeat(GAP));
                    }
                    text += &if column < self.left {
                        format!("{line:<width$}")
                    } else {
                        format!("{line:>width$}")
                    };
                }
                text.push('\n');
            }
        }
        Some(text)
    }

    /// Each row as a list of heads and cells.
    fn lists<W: fmt::Write>(&self, page: &mut Page<'_, W>) -> fmt::Result {
        for row in &self.rows {
            page.paragraph("", PLAIN, row.first().map_or("", String::as_str))?;
            let pairs = self.heads.iter().zip(row).skip(1);
            let pairs: Vec<String> = pairs
                .map(|(head, cell)| format!("{} {cell}", in_one_line(head)))
                .collect();
            page.pieces("  ", &pairs)?;
        }
        Ok(())
    }
}

fn lines(text: &str, at: char) -> Vec<&str> {
    text.split(at).collect()
}

/// `not con-\nnected` as `not connected`.
fn in_one_line(head: &str) -> String {
    head.replace("-\n", "").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::page::TextOptions;

    const HEADS: &[&str] = &["backend", "not con-\nnected", "time\nms"];

    #[track_caller]
    fn check(cells: [&str; 3], width: u16, expected: &str) {
        let table = Table {
            heads: HEADS,
            left: 1,
            rows: vec![cells.map(str::to_owned).to_vec()],
        };
        let mut text = String::new();
        let colour = false;
        let options = TextOptions { colour, width };
        table.render(&mut Page::new(&mut text, options)).unwrap();
        assert_eq!(text, expected);
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let expected = "        not con-     time\n\
                        backend   nected       ms\n\
                        a:1            7 12/34/56\n";
        check(["a:1", "7", "12/34/56"], 80, expected);
    }

    #[test]
    fn where_there_is_no_room_figures_stay_whole() {
        let address = "a".repeat(40);
        let expected = format!(
            "{:40} not con-   time\n{:40}   nected     ms\n{address}        7 12000/\n{:40}          \
             34000/\n{:40}           56000\n",
            "", "backend", "", ""
        );
        check([&address, "7", "12000/34000/56000"], 60, &expected);
        let address = "a".repeat(48);
        let expected = format!("{address}\n  not connected 7, time ms 12000/34000/56000\n");
        check([&address, "7", "12000/34000/56000"], 60, &expected);
    }
}
