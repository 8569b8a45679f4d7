//! Incidents as text: alike ones together, one in full.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::escape::escape;
use super::model::{Cause, Confidence, Incident, Side};
use super::page::{BAD, DIM, GOOD, HEADING, PLAIN, Page, WARNING, coloured};
use super::words::{
    NAME, clock, count, counted, milliseconds, outcome, tie, verdict_sentence, who_and_how,
};

/// Incidents of a group shown in full.
const FULL: usize = 1;
/// Further ones shown as a line each.
const SHORT: usize = 4;
/// Groups with examples; the rest are in the table of causes.
const GROUPS: usize = 12;
/// Longest request, message or evidence shown.
const LONG: usize = 400;

/// Groups by cause and upstream, the largest first.
pub(super) fn groups(incidents: &[Incident]) -> Vec<Vec<&Incident>> {
    let mut groups: BTreeMap<(Cause, &str), Vec<&Incident>> = BTreeMap::new();
    for incident in incidents {
        groups
            .entry((incident.cause, incident.upstream.as_str()))
            .or_default()
            .push(incident);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| (std::cmp::Reverse(group.len()), group.first().map(|i| i.id)));
    groups
}

/// All groups, with examples.
pub(super) fn render<W: Write>(page: &mut Page<'_, W>, incidents: &[Incident]) -> fmt::Result {
    let groups = groups(incidents);
    for group in groups.iter().take(GROUPS) {
        let Some(first) = group.first() else { continue };
        let name = escape(&first.upstream, NAME);
        let number = counted(group.len() as u64, "incident", "incidents");
        page.heading(&format!("{} at {name}: {number}", first.cause))?;
        for incident in group.iter().take(FULL) {
            in_full(page, incident, false)?;
        }
        for incident in group.iter().skip(FULL).take(SHORT) {
            short(page, incident)?;
        }
        let left = group.len().saturating_sub(FULL + SHORT);
        if left > 0 {
            let last = group.last().map_or(0, |incident| incident.id);
            page.paragraph(
                "  ",
                DIM,
                &format!("and {} more, up to #{last}", count(left as u64)),
            )?;
        }
    }
    if groups.len() > GROUPS {
        page.gap()?;
        let rest: usize = groups.iter().skip(GROUPS).map(Vec::len).sum();
        let text = format!(
            "Not listed here: {} in {}; --format json has them all.",
            counted(rest as u64, "incident", "incidents"),
            counted(
                (groups.len() - GROUPS) as u64,
                "smaller group",
                "smaller groups"
            )
        );
        page.paragraph("", PLAIN, &text)?;
    }
    page.gap()?;
    let hint = "One incident, event by event: whoclosed show TRACE NUMBER";
    page.paragraph("", DIM, hint)
}

/// One incident with all that is known of it. If it stands alone, its date and
/// advice too, which a report gives elsewhere.
pub(super) fn in_full<W: Write>(
    page: &mut Page<'_, W>,
    incident: &Incident,
    alone: bool,
) -> fmt::Result {
    let sure = if incident.confidence == Confidence::Certain {
        GOOD
    } else {
        WARNING
    };
    let number = format!("  #{}  ", incident.id);
    let time = format!("{}  ", clock(&incident.time));
    let how = who_and_how(incident.side, incident.means);
    let how = format!("{how}, {}  ", incident.phase);
    let mut pieces = vec![
        (HEADING, number.as_str()),
        (PLAIN, time.as_str()),
        (side_style(incident.side), incident.cause.word()),
        (PLAIN, "  "),
        (PLAIN, how.as_str()),
        (sure, incident.confidence.word()),
    ];
    if page.fits(&pieces) {
        page.line(&pieces)?;
    } else {
        let rest = pieces.split_off(4);
        pieces.pop();
        page.line(&pieces)?;
        page.line(&[&[(PLAIN, "      ")], rest.as_slice()].concat())?;
    }
    let mut verdict = verdict_sentence(incident);
    if !verdict.starts_with("nginx") && verdict.is_char_boundary(1) {
        verdict[..1].make_ascii_uppercase();
    }
    page.paragraph("      ", HEADING, &format!("{verdict}."))?;
    if alone {
        page.paragraph("      time       ", PLAIN, &escape(&incident.time, NAME))?;
    }
    if let Some(master) = incident.instance {
        let instance = format!("nginx with master {master}");
        page.paragraph("      instance   ", PLAIN, &instance)?;
    }
    let fate = if incident.served == Some(false) {
        BAD
    } else {
        PLAIN
    };
    page.paragraph(
        "      client     ",
        fate,
        outcome(incident.retried, incident.served),
    )?;
    let line = &incident.line;
    if let Some(request) = &line.request {
        let mut text = escape(request, LONG);
        for (label, value) in [("host", &line.host), ("from", &line.client)] {
            if let Some(value) = value {
                text.push_str(&format!(", {label} {}", escape(value, NAME)));
            }
        }
        page.paragraph("      request    ", PLAIN, &text)?;
    }
    let mut logged = escape(&line.message, LONG);
    if let Some(action) = &line.action {
        logged.push_str(&format!(" while {}", escape(action, NAME)));
    }
    page.paragraph("      nginx log  ", PLAIN, &logged)?;
    if let Some(connection) = &incident.connection {
        let requests = match (connection.requests, connection.requests_at_least) {
            (Some(requests), _) => counted(u64::from(requests), "request", "requests"),
            (None, Some(least)) => {
                format!(
                    "at least {}",
                    counted(u64::from(least), "request", "requests")
                )
            }
            (None, None) => "unknown number of requests".to_owned(),
        };
        let age = if connection.first_seen_mid_life {
            "open before the capture began, and for"
        } else {
            "in"
        };
        let text = format!(
            "{} to {}, worker {}, {requests}{}{age} {}{}",
            escape(&connection.local, NAME),
            escape(&connection.remote, NAME),
            connection.worker_pid,
            if connection.first_seen_mid_life {
                "; "
            } else {
                " "
            },
            milliseconds(connection.age_ms),
            if connection.first_seen_mid_life {
                " since"
            } else {
                ""
            },
        );
        page.paragraph("      socket     ", PLAIN, &text)?;
    }
    page.paragraph("      match      ", PLAIN, &tie(incident.matched))?;
    for (number, sentence) in incident.evidence.iter().enumerate() {
        let label = if number == 0 {
            "      evidence   - "
        } else {
            "                 - "
        };
        page.paragraph(label, PLAIN, &escape(sentence, LONG))?;
    }
    if let Some(advice) = incident.advice.as_ref().filter(|_| alone) {
        page.paragraph("      advice     ", PLAIN, &escape(advice, LONG))?;
    }
    Ok(())
}

/// One incident among its like: what differs.
fn short<W: Write>(page: &mut Page<'_, W>, incident: &Incident) -> fmt::Result {
    let label = format!("  #{}  {}  ", incident.id, clock(&incident.time));
    let connection = incident.connection.as_ref();
    let mut facts = vec![incident.confidence.word().to_owned()];
    if let Some(idle) = connection.and_then(|c| c.idle_ms) {
        facts.push(format!("idle {}", milliseconds(idle)));
    }
    if let Some(time) = connection.and_then(|c| c.in_flight_ms) {
        facts.push(format!("in flight {}", milliseconds(time)));
    }
    facts.push(
        match (incident.retried, incident.served) {
            (Some(true), Some(true)) => "served on retry",
            (_, Some(true)) => "served",
            (_, Some(false)) => "client failed",
            (_, None) => "outcome unknown",
        }
        .to_owned(),
    );
    page.labelled(PLAIN, &label, PLAIN, &facts.join(", "))
}

/// The colour that stands for a side.
pub(super) fn side_style(side: Side) -> anstyle::Style {
    use anstyle::AnsiColor;
    coloured(match side {
        Side::Backend => AnsiColor::Red,
        Side::Nginx => AnsiColor::Yellow,
        Side::Client => AnsiColor::Cyan,
        Side::Network => AnsiColor::Magenta,
        Side::Unknown => AnsiColor::BrightBlack,
    })
}
