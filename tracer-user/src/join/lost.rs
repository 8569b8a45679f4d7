//! What a backend's capture lost, and when, by nginx's clock: the backend's side of a
//! connection may be missing from its trace for that.

use super::offset::Offset;
use super::traces::{Backend, Ours};
use crate::trace::record::{Accepted, AcceptedEnd, Loss};

/// Older traces do not say since when: counters were read about once a second.
const BETWEEN_LOOKS_NS: u64 = 1_000_000_000;
/// What nginx's side saw happened on the other host so much earlier or later.
const SLACK_NS: u64 = 100_000_000;
/// The backend's side goes, and is recorded, so much after nginx's.
const RECORDED_NS: u64 = 1_000_000_000;

/// From when to when something was lost that may be the side of a connection, or its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    since_ns: u64,
    until_ns: u64,
}

/// None if no side is missing for it: the end of a process, an RST that was sent.
pub(super) fn span(loss: &Loss) -> Option<Span> {
    let bears = !matches!(
        loss.what.as_str(),
        "backend_exit_records"
            | "missed_runs:whoclosed_exit"
            | "missed_runs:whoclosed_b_rr"
            | "missed_runs:whoclosed_b_ro"
    );
    let since_ns = loss
        .since_ns
        .unwrap_or(loss.ns.saturating_sub(BETWEEN_LOOKS_NS));
    bears.then_some(Span {
        since_ns,
        until_ns: loss.ns,
    })
}

/// The spans of a backend's capture, apart from each other and in their order.
#[derive(Debug, Default)]
pub(super) struct Losses(Vec<Span>);

impl Losses {
    pub(super) fn of(backend: &Backend, offset: &Offset) -> Self {
        let mut spans: Vec<Span> = (backend.losses.iter())
            .map(|span| {
                let (since_ns, before) = offset.convert(span.since_ns);
                let (until_ns, after) = offset.convert(span.until_ns);
                Span {
                    since_ns: since_ns.saturating_sub(before + SLACK_NS),
                    until_ns: until_ns.saturating_add(after + SLACK_NS),
                }
            })
            .collect();
        spans.sort_unstable_by_key(|span| span.since_ns);
        spans.dedup_by(|next, span| {
            let meets = next.since_ns <= span.until_ns;
            if meets {
                span.until_ns = span.until_ns.max(next.until_ns);
            }
            meets
        });
        Self(spans)
    }

    fn around(&self, from_ns: u64, until_ns: u64) -> bool {
        let next = self.0.partition_point(|span| span.until_ns < from_ns);
        self.0
            .get(next)
            .is_some_and(|span| span.since_ns <= until_ns)
    }

    /// May the backend's side be missing for a loss? Its beginning was not seen, or its
    /// record was lost.
    pub(super) fn may_hide(&self, ours: &Ours) -> bool {
        self.around(
            ours.opened_ns,
            ours.established_ns.unwrap_or(ours.opened_ns),
        ) || self.may_hide_the_end_of(ours)
    }

    fn may_hide_the_end_of(&self, ours: &Ours) -> bool {
        let ends = [ours.fin_received_ns, ours.rst_received_ns];
        let from = ends.into_iter().flatten().fold(ours.ended_ns, u64::min);
        self.around(from, ours.ended_ns.saturating_add(RECORDED_NS))
    }

    /// May it be for a loss that this side has gone, and nobody seems to have ended it?
    pub(super) fn may_hide_the_close(&self, ours: &Ours, accepted: &Accepted) -> bool {
        accepted.end == AcceptedEnd::Broken
            && accepted.rst_received_ns.is_none()
            && self.may_hide_the_end_of(ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn lost(what: &str, since_ns: Option<u64>, ns: u64) -> Loss {
        Loss {
            ns,
            since_ns,
            what: what.to_owned(),
            count: 1,
        }
    }

    #[test]
    fn losses_of_several_kinds_at_one_time_are_one_span() {
        let mut backend = Backend::new("b".to_owned());
        for loss in [
            lost("missed_runs:whoclosed_b_end", Some(20 * S), 21 * S),
            lost("accepted_records", Some(20 * S), 21 * S),
            lost("accepted_records", Some(21 * S), 22 * S),
            lost("accepted_records", None, 10 * S),
            lost("missed_runs:whoclosed_exit", Some(30 * S), 31 * S),
        ] {
            backend.losses.extend(span(&loss));
        }
        let losses = Losses::of(&backend, &Offset::none());
        assert_eq!(losses.0.len(), 2, "{losses:?}");
        for (from, until, expected) in [
            (8 * S, 8 * S, false),
            (9 * S, 9 * S, true),
            (11 * S, 19 * S, false),
            (11 * S, 20 * S, true),
            (21 * S, 21 * S, true),
            (22 * S + SLACK_NS, 40 * S, true),
            (22 * S + 2 * SLACK_NS, 40 * S, false),
        ] {
            assert_eq!(losses.around(from, until), expected, "{from} {until}");
        }
    }
}
