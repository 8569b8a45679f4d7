//! Upstreams as tables: their traffic, and how their connections ended.

use std::cmp::Reverse;
use std::fmt::{self, Write};

use super::escape::escape;
use super::model::{Percentiles, UpstreamSummary};
use super::page::{DIM, Page};
use super::table::Table;
use super::words::{count, counted, milliseconds, rough_ms, short_ms};

/// Rows in each table, those with most incidents first.
const ROWS: usize = 40;
/// Longest address in a cell.
const ADDRESS: usize = 48;

/// Both tables, and what they infer of each backend.
pub(super) fn render<W: Write>(
    page: &mut Page<'_, W>,
    upstreams: &[UpstreamSummary],
) -> fmt::Result {
    let mut rows: Vec<_> = upstreams.iter().collect();
    rows.sort_by_key(|upstream| Reverse(upstream.incidents));
    let left = rows.len().saturating_sub(ROWS);
    rows.truncate(ROWS);

    page.heading("Upstreams")?;
    let header = [
        "backend",
        "name",
        "errors",
        "conns",
        "requests",
        "reused",
        "connect\n~ms",
        "first\nbyte ~ms",
    ];
    let table = Table {
        heads: &header,
        left: 2,
        rows: rows.iter().map(|upstream| traffic(upstream)).collect(),
    };
    table.render(page)?;
    page.paragraph(
        "",
        DIM,
        "~ms: 50th/95th/99th percentiles, rounded: each within 20 %.",
    )?;

    page.heading("How their connections ended: by whom, and when")?;
    let header = [
        "backend",
        "backend\nidle",
        "backend\nin flight",
        "nginx\nidle",
        "nginx\nanswered",
        "nginx\nin flight",
        "refused",
        "not con-\nnected",
    ];
    let table = Table {
        heads: &header,
        left: 1,
        rows: rows.iter().map(|upstream| closes(upstream)).collect(),
    };
    table.render(page)?;

    for upstream in &rows {
        let inferred = inferred(upstream);
        if !inferred.is_empty() {
            let label = format!("{}  ", escape(&upstream.address, ADDRESS));
            page.paragraph(&label, anstyle::Style::new(), &inferred.join("; "))?;
        }
    }
    if left > 0 {
        let text = format!(
            "and {} more; --format json has them all.",
            count(left as u64)
        );
        page.paragraph("", DIM, &text)?;
    }
    Ok(())
}

fn traffic(upstream: &UpstreamSummary) -> Vec<String> {
    vec![
        escape(&upstream.address, ADDRESS),
        upstream
            .name
            .as_ref()
            .map_or_else(|| "-".to_owned(), |name| escape(name, ADDRESS)),
        count(upstream.incidents),
        count(upstream.connections),
        upstream
            .requests
            .map_or_else(|| "unknown".to_owned(), count),
        upstream
            .reused_ratio
            .map_or_else(|| "-".to_owned(), |r| format!("{:.0} %", r * 100.0)),
        percentiles(upstream.connect_ms),
        percentiles(upstream.first_byte_ms),
    ]
}

fn closes(upstream: &UpstreamSummary) -> Vec<String> {
    let closes = &upstream.closes;
    let mut cells = vec![escape(&upstream.address, ADDRESS)];
    cells.extend(
        [
            closes.backend_idle,
            closes.backend_in_flight,
            closes.nginx_idle,
            closes.nginx_after_response,
            closes.nginx_in_flight,
            closes.refused,
            closes.not_connected,
        ]
        .map(count),
    );
    cells
}

fn inferred(upstream: &UpstreamSummary) -> Vec<String> {
    let mut facts = Vec::new();
    if let Some(timeout) = upstream.idle_timeout {
        facts.push(format!(
            "closes idle connections after {} (spread {} ms, {} closes)",
            milliseconds(timeout.ms),
            short_ms(timeout.spread_ms),
            count(timeout.samples)
        ));
    }
    if let Some(limit) = upstream.request_limit {
        facts.push(format!(
            "closes after {} requests on a connection ({} closes)",
            count(u64::from(limit.requests)),
            count(limit.samples)
        ));
    }
    if let Some(timeout) = upstream.work_timeout {
        facts.push(format!(
            "closes {} into a request (spread {} ms, {} closes)",
            milliseconds(timeout.ms),
            short_ms(timeout.spread_ms),
            count(timeout.samples)
        ));
    }
    if let Some(size) = upstream.size_threshold {
        facts.push(format!(
            "gives up on requests of {} or more and answers those of up to {} ({} failed)",
            counted(size.bytes, "byte", "bytes"),
            count(size.answered_bytes),
            count(size.samples)
        ));
    }
    facts
}

fn percentiles(values: Option<Percentiles>) -> String {
    values.map_or_else(
        || "-".to_owned(),
        |p| {
            format!(
                "{}/{}/{}",
                rough_ms(p.p50),
                rough_ms(p.p95),
                rough_ms(p.p99)
            )
        },
    )
}
