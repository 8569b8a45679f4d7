//! What to change, as text: advice that is word for word the same but for its address
//! stands there once.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::escape::escape;
use super::model::Advice;
use super::page::{DIM, HEADING, PLAIN, Page};
use super::text::SENTENCE;
use super::words::{NAME, count, counted};

/// Addresses and observations of one piece of advice that are shown.
const SHOWN: usize = 6;

/// Most errors first.
pub(super) fn render<W: Write>(page: &mut Page<'_, W>, advice: &[Advice]) -> fmt::Result {
    page.heading("What to change")?;
    for (number, alike) in groups(advice).iter().enumerate() {
        let Some(first) = alike.first() else { continue };
        let label = format!("{:>3}. ", number + 1);
        page.labelled(HEADING, &label, HEADING, &addresses(alike))?;
        let mut text = first.text.clone();
        if alike.len() > 1 && text.contains(&first.upstream) {
            let all: Vec<&str> = alike.iter().map(|one| one.upstream.as_str()).collect();
            text = text.replace(&first.upstream, &listed(&all));
        }
        page.paragraph("     ", PLAIN, &escape(&text, SENTENCE))?;
        let mut label = "     Because: ";
        let mut observed: Vec<&str> = Vec::new();
        for one in alike {
            if !observed.contains(&one.because.as_str()) {
                observed.push(&one.because);
            }
        }
        for because in observed.iter().take(SHOWN) {
            page.paragraph(label, DIM, &escape(because, SENTENCE))?;
            label = "              ";
        }
        let left = observed.len().saturating_sub(SHOWN);
        if left > 0 {
            let text = format!("and {} like these", count(left as u64));
            page.paragraph(label, DIM, &text)?;
        }
    }
    Ok(())
}

/// Alike ones together, the groups with most errors first.
fn groups(advice: &[Advice]) -> Vec<Vec<&Advice>> {
    let mut groups: Vec<Vec<&Advice>> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for one in advice {
        // No advice holds this character.
        let without = match one.upstream.as_str() {
            "" => one.text.clone(),
            upstream => one.text.replace(upstream, "\0"),
        };
        let group = *known.entry(without).or_insert(groups.len());
        match groups.get_mut(group) {
            Some(alike) => alike.push(one),
            None => groups.push(vec![one]),
        }
    }
    for alike in &mut groups {
        alike.sort_by_key(|one| std::cmp::Reverse(one.incidents));
    }
    let errors = |alike: &Vec<&Advice>| alike.iter().map(|one| one.incidents).sum::<u64>();
    groups.sort_by_key(|alike| std::cmp::Reverse(errors(alike)));
    groups
}

/// Whose it is, and how many errors each has.
fn addresses(alike: &[&Advice]) -> String {
    let one = |one: &&Advice| {
        let errors = match one.incidents {
            0 => "no errors so far".to_owned(),
            count => counted(count, "error", "errors"),
        };
        format!("{} ({errors})", escape(&one.upstream, NAME))
    };
    let shown: Vec<String> = alike.iter().take(SHOWN).map(one).collect();
    let mut text = shown.join(", ");
    if alike.len() > SHOWN {
        let rest = &alike[SHOWN..];
        let errors = rest.iter().map(|one| one.incidents).sum();
        text += &format!(
            " and {} more ({})",
            count(rest.len() as u64),
            counted(errors, "error", "errors")
        );
    }
    text
}

/// `a`, `a and b`, `a, b and c`.
fn listed(all: &[&str]) -> String {
    match all {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::page::TextOptions;

    fn advice(upstream: &str, text: &str, incidents: u64) -> Advice {
        Advice {
            upstream: upstream.to_owned(),
            text: text.to_owned(),
            because: format!("{upstream} was gone"),
            incidents,
        }
    }

    fn shown(advice: &[Advice]) -> String {
        let mut text = String::new();
        let mut page = Page::new(&mut text, TextOptions::default());
        render(&mut page, advice).unwrap();
        text
    }

    #[test]
    fn what_differs_in_the_address_alone_is_told_once() {
        let all = [
            advice("a:2", "wait for it", 3),
            advice("a:1", "start a:1", 2),
            advice("a:2", "start a:2", 4),
            advice("a:3", "start a:4", 1),
        ];
        let expected = "\nWhat to change\n  1. a:2 (4 errors), a:1 (2 errors)\n     start a:2 and \
                        a:1\n     Because: a:2 was gone\n              a:1 was gone\n  2. a:2 (3 \
                        errors)\n     wait for it\n     Because: a:2 was gone\n  3. a:3 (1 error)\n     \
                        start a:4\n     Because: a:3 was gone\n";
        assert_eq!(shown(&all), expected);
    }

    #[test]
    fn one_observation_of_several_is_told_once() {
        let all = ["a:1", "a:2"].map(|upstream| Advice {
            because: "it was late".to_owned(),
            ..advice(upstream, "wait for it", 2)
        });
        assert_eq!(shown(&all).matches("it was late").count(), 1);
    }

    #[test]
    fn many_addresses_are_counted() {
        let all: Vec<_> = (10..50)
            .map(|number| advice(&format!("a:{number}"), "wait for it", 2))
            .collect();
        let text = shown(&all);
        assert!(
            text.contains("a:15 (2 errors) and 34 more (68 errors)\n"),
            "{text}"
        );
        assert!(text.contains("and 34 like these\n"), "{text}");
        assert_eq!(text.matches("wait for it").count(), 1);
    }
}
