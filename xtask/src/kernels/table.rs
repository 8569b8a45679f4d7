//! The table: a line for each kernel, a column for each scenario; below it what was wrong,
//! and which hooks the kernels had.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::scenarios::{DOCTOR, Outcome, Scenario};

/// What is known of a kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Told {
    /// It could not be had.
    #[default]
    Missing,
    /// What became of the scenarios, in their order; fewer if it came to no end.
    Ran(Vec<Outcome>),
}

/// One kernel's line.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    /// Its name.
    pub(super) name: String,
    /// What `uname -r` says.
    pub(super) release: String,
    /// How many scenarios it was to run.
    pub(super) scenarios: usize,
    /// What became of it.
    pub(super) told: Told,
    /// Why it came to no end, or to none that is good, if so.
    pub(super) failure: Option<String>,
    /// How long it took.
    pub(super) seconds: f64,
    /// The emulator's work (its processor time) for the boot and for each scenario.
    pub(super) work: Vec<(&'static str, Duration)>,
    /// When the kernel preempts a task, if it says.
    pub(super) preemption: Option<String>,
}

impl Row {
    /// Whether it could not be had: neither right nor wrong.
    pub(super) fn is_missing(&self) -> bool {
        self.told == Told::Missing && self.failure.is_none()
    }

    /// Whether anything is wrong: a scenario that left no outcome is, whatever kept it.
    pub(super) fn is_wrong(&self) -> bool {
        let wrong = |outcome: &Outcome| !outcome.wrong.is_empty();
        self.failure.is_some() || self.cut().is_some() || self.outcomes().iter().any(wrong)
    }

    /// How few scenarios came to an end, if not all of a kernel that ran.
    fn cut(&self) -> Option<String> {
        let ended = self.outcomes().len();
        (!self.is_missing() && ended < self.scenarios)
            .then(|| format!("{ended} of {} scenarios came to an end", self.scenarios))
    }

    fn outcomes(&self) -> &[Outcome] {
        match &self.told {
            Told::Missing => &[],
            Told::Ran(outcomes) => outcomes,
        }
    }

    /// One line about it, for whoever waits.
    pub(super) fn told(&self) -> String {
        let verdict = match (self.is_missing(), self.is_wrong()) {
            (true, _) => return format!("{}: not had", self.name),
            (_, true) => "WRONG",
            _ => "right",
        };
        let each = |(what, worked): &(&str, Duration)| format!("{what} {}", worked.as_secs());
        let work = match self.work.is_empty() {
            true => String::new(),
            false => {
                let sum: Duration = self.work.iter().map(|(_, worked)| *worked).sum();
                let parts: Vec<String> = self.work.iter().map(each).collect();
                format!(" ({} of work: {})", sum.as_secs(), parts.join(", "))
            }
        };
        format!(
            "{} ({}): {verdict}, {:.0} s{work}",
            self.name, self.release, self.seconds
        )
    }

    /// The word in a scenario's column.
    fn word(&self, at: usize) -> String {
        match self.outcomes().get(at) {
            Some(outcome) if outcome.refused => "refuses".to_owned(),
            Some(outcome) if outcome.is_plainer() => {
                format!("right {}/{}", outcome.right, outcome.verdicts)
            }
            Some(outcome) if outcome.wrong.is_empty() => format!("right {}", outcome.verdicts),
            Some(outcome) if outcome.verdicts > 0 => {
                format!("WRONG {}/{}", outcome.right, outcome.verdicts)
            }
            Some(_) => "WRONG".to_owned(),
            None if self.is_missing() => "-".to_owned(),
            None => "no end".to_owned(),
        }
    }

    /// What each hook became, and in how many scenarios it said so.
    fn hooks(&self) -> BTreeMap<&str, &str> {
        let all = self.outcomes().iter().flat_map(|outcome| &outcome.hooks);
        all.map(|(hook, became)| (hook.as_str(), became.as_str()))
            .collect()
    }
}

/// The whole text.
pub(super) fn text(scenarios: &[&Scenario], rows: &[Row]) -> String {
    let mut lines = vec![vec!["kernel".to_owned(), "release".to_owned()]];
    lines[0].extend(scenarios.iter().map(|scenario| scenario.column.to_owned()));
    for row in rows {
        let release = if row.is_missing() {
            "could not be had"
        } else {
            &row.release
        };
        let mut line = vec![row.name.clone(), release.to_owned()];
        line.extend((0..scenarios.len()).map(|at| row.word(at)));
        lines.push(line);
    }
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..scenarios.len() + 2).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text += "\nright N: N verdicts, each as the backends recorded\n";
    if scenarios.iter().any(|scenario| scenario.column == DOCTOR) {
        text += "of doctor: N answers, each with the statements and exit status of such a host\n";
    }
    let any = |is: fn(&Outcome) -> bool| rows.iter().flat_map(Row::outcomes).any(is);
    if any(Outcome::is_plainer) {
        text += "right N/M: of M verdicts; the others have a plainer cause's name or none, and no \
                 more is known where nobody sees nginx's sends and receives\n";
    }
    if any(|outcome| outcome.refused) {
        text +=
            "refuses: this kernel cannot have the programs; capture says why and does not run\n";
    }
    for row in rows {
        let name = &row.name;
        for (scenario, outcome) in scenarios.iter().zip(row.outcomes()) {
            for wrong in &outcome.wrong {
                // Writing to a String does not fail.
                let _ = writeln!(text, "WRONG on {name}, {}: {wrong}", scenario.column);
            }
        }
        for wrong in row.failure.iter().chain(&row.cut()) {
            let _ = writeln!(text, "WRONG on {name}: {wrong}");
        }
    }
    text + &missed(scenarios, rows) + &hooks(rows)
}

/// Which programs the kernel did not run, where and how often.
fn missed(scenarios: &[&Scenario], rows: &[Row]) -> String {
    let mut lines = String::new();
    for row in rows {
        let preemption = match &row.preemption {
            Some(word) => format!(" (preempts: {word})"),
            None => String::new(),
        };
        for (scenario, outcome) in scenarios.iter().zip(row.outcomes()) {
            if outcome.missed.is_empty() && outcome.crowd == 0 {
                continue;
            }
            let mut words: Vec<String> = (outcome.missed.iter())
                .map(|(program, count)| format!("{count} of {program}"))
                .collect();
            if words.is_empty() {
                words.push("none".to_owned());
            }
            if outcome.crowd > 0 {
                words.push(format!("beside {} sends and receives", 2 * outcome.crowd));
            }
            // Writing to a String does not fail.
            let _ = writeln!(
                lines,
                "  {}{preemption}, {}: {}",
                row.name,
                scenario.column,
                words.join(", ")
            );
        }
    }
    match lines.is_empty() {
        true => lines,
        false => "\nruns of programs that the kernel skipped\n".to_owned() + &lines,
    }
}

/// Kernels with the same hooks share a line.
fn hooks(rows: &[Row]) -> String {
    let mut kinds: Vec<(String, Vec<&str>)> = Vec::new();
    for row in rows {
        let hooks = row.hooks();
        if hooks.is_empty() {
            continue;
        }
        let usual = hooks
            .values()
            .filter(|became| **became == "attached")
            .count();
        let (by_other, absent): (Vec<_>, Vec<_>) = hooks
            .iter()
            .filter(|(_, became)| **became != "attached")
            .partition(|(_, became)| became.starts_with("by "));
        let mut words = format!("{} of {}", usual + by_other.len(), hooks.len());
        let list = |some: &[(&&str, &&str)]| {
            let each: Vec<String> = (some.iter())
                .map(|(hook, became)| format!("{hook} {became}"))
                .collect();
            each.join(", ")
        };
        if !by_other.is_empty() {
            words += &format!(", {} in another way: {}", by_other.len(), list(&by_other));
        }
        if !absent.is_empty() {
            words += &format!("; {}", list(&absent));
        }
        match kinds.iter_mut().find(|(kind, _)| *kind == words) {
            Some((_, names)) => names.push(&row.name),
            None => kinds.push((words, vec![&row.name])),
        }
    }
    let line = |(words, names): &(String, Vec<&str>)| format!("  {}: {words}\n", names.join(", "));
    match kinds.is_empty() {
        true => String::new(),
        false => "\nhooks\n".to_owned() + &kinds.iter().map(line).collect::<String>(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenarios::chosen;
    use super::*;

    fn outcome(wrong: &[&str], hooks: &[(&str, &str)]) -> Outcome {
        let owned = |(hook, became): &(&str, &str)| ((*hook).to_owned(), (*became).to_owned());
        Outcome {
            wrong: wrong.iter().map(|wrong| (*wrong).to_owned()).collect(),
            verdicts: 3,
            right: 3,
            hooks: hooks.iter().map(owned).collect(),
            ..Outcome::default()
        }
    }

    fn row(name: &str, outcomes: Vec<Outcome>) -> Row {
        Row {
            name: name.to_owned(),
            release: format!("{name}.9"),
            scenarios: outcomes.len(),
            told: Told::Ran(outcomes),
            ..Row::default()
        }
    }

    #[test]
    fn a_kernel_that_could_not_be_had_is_not_right_and_one_without_an_end_is_wrong() {
        let scenarios = chosen(&["stale".to_owned(), "tls".to_owned()]).unwrap();
        let missing = Row {
            name: "6.16".to_owned(),
            ..Row::default()
        };
        let mut broken = row("6.1", vec![outcome(&[], &[])]);
        broken.failure = Some("panic".to_owned());
        broken.scenarios = 2;
        assert!(missing.is_missing() && !missing.is_wrong());
        assert!(broken.is_wrong());
        let text = text(&scenarios, &[missing, broken]);
        let expected = "\
kernel  release           stale    tls
6.16    could not be had  -        -
6.1     6.1.9             right 3  no end

right N: N verdicts, each as the backends recorded
WRONG on 6.1: panic
WRONG on 6.1: 1 of 2 scenarios came to an end
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_row_whose_scenarios_did_not_all_run_is_wrong_though_nothing_failed() {
        let scenarios = chosen(&["stale".to_owned(), "tls".to_owned()]).unwrap();
        let mut cut = row("6.1", vec![outcome(&[], &[])]);
        assert!(!cut.is_wrong());
        cut.scenarios = 2;
        assert!(cut.is_wrong() && cut.told().contains("WRONG"));
        let none = Row {
            told: Told::Ran(Vec::new()),
            ..cut.clone()
        };
        assert!(none.is_wrong() && !none.is_missing());
        let text = text(&scenarios, &[cut]);
        let expected = "WRONG on 6.1: 1 of 2 scenarios came to an end\n";
        assert!(
            text.contains("right 3  no end\n") && text.ends_with(expected),
            "{text}"
        );
    }

    #[test]
    fn what_is_wrong_is_told_and_kernels_with_the_same_hooks_share_a_line() {
        let scenarios = chosen(&["stale".to_owned()]).unwrap();
        let hooks = [("one", "attached"), ("two", "by fexit three")];
        let rows = [
            row("6.1", vec![outcome(&["x is not y"], &hooks)]),
            row("6.1-cloud", vec![outcome(&[], &hooks)]),
            row("6.12", vec![outcome(&[], &[("one", "attached")])]),
        ];
        let text = text(&scenarios, &rows);
        assert!(text.contains("WRONG on 6.1, stale: x is not y\n"), "{text}");
        assert!(text.contains("  6.1, 6.1-cloud: 2 of 2, 1 in another way: two by fexit three\n"));
        assert!(text.ends_with("  6.12: 1 of 1\n"), "{text}");
        assert!(rows[0].is_wrong() && !rows[1].is_wrong());
    }

    #[test]
    fn runs_that_the_kernel_skipped_are_told_and_make_no_row_wrong() {
        let scenarios = chosen(&["stale".to_owned(), "crowded".to_owned()]).unwrap();
        let crowded = Outcome {
            missed: [("send".to_owned(), 7), ("recv".to_owned(), 2)].into(),
            crowd: 50,
            ..outcome(&[], &[])
        };
        let calm = Outcome {
            crowd: 40,
            ..outcome(&[], &[])
        };
        let mut lazy = row("7.1", vec![outcome(&[], &[]), crowded]);
        lazy.preemption = Some("lazy".to_owned());
        let rows = [lazy, row("6.12", vec![outcome(&[], &[]), calm])];
        assert!(!rows[0].is_wrong() && !rows[1].is_wrong());
        let text = text(&scenarios, &rows);
        let expected = "
runs of programs that the kernel skipped
  7.1 (preempts: lazy), crowded: 2 of recv, 7 of send, beside 100 sends and receives
  6.12, crowded: none, beside 80 sends and receives
";
        assert!(text.ends_with(expected), "{text}");
        // Where nothing was missed and nobody crowded, there is nothing to say.
        let rows = [row("6.1", vec![outcome(&[], &[])])];
        assert!(!super::text(&scenarios, &rows).contains("skipped"));
    }

    #[test]
    fn verdicts_by_a_plainer_name_are_told_and_make_no_row_wrong() {
        let scenarios = chosen(&["stale".to_owned()]).unwrap();
        let plainer = Outcome {
            right: 2,
            ..outcome(&[], &[])
        };
        let rows = [row("6.1-unseen", vec![plainer])];
        assert!(!rows[0].is_wrong());
        let text = text(&scenarios, &rows);
        assert!(text.contains("  right 2/3\n") && text.contains("\nright N/M: "));
        let whole = [row("6.1", vec![outcome(&[], &[])])];
        assert!(!super::text(&scenarios, &whole).contains("N/M"));
    }

    #[test]
    fn how_many_verdicts_are_right_is_told_where_not_all_are() {
        let scenarios = chosen(&["stale".to_owned()]).unwrap();
        let one_of_three = Outcome {
            right: 1,
            ..outcome(&["x", "y"], &[])
        };
        let text = text(&scenarios, &[row("6.1", vec![one_of_three])]);
        assert!(text.contains("6.1     6.1.9    WRONG 1/3\n"), "{text}");
    }
}
