//! Traces that tell of the same twice, and time of nginx's capture in which the other host
//! was not captured.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::traces::{Backend, Nginx};
use crate::trace::record::{Accepted, AcceptedEnd};

/// A run of a host's kernel, and its name for a connection.
type Known<'a> = (&'a str, u64);

/// The same traces, each capture once, and each connection in one of them: two captures of
/// one host, one after the other or of several ports, both know what was open in both.
pub(super) fn without_repeats<'a>(
    backends: &'a [Backend],
    notes: &mut Vec<String>,
) -> Vec<Cow<'a, Backend>> {
    let mut once: Vec<(usize, Cow<'a, Backend>)> = Vec::with_capacity(backends.len());
    for (index, backend) in backends.iter().enumerate() {
        if let Some((_, same)) = once.iter().find(|(_, known)| is_same(known, backend)) {
            notes.push(format!(
                "{} and {} are one capture: taken once",
                same.name, backend.name
            ));
        } else {
            once.push((index, Cow::Borrowed(backend)));
        }
    }
    let mut best: HashMap<Known<'_>, (u8, usize)> = HashMap::new();
    for (index, backend) in backends.iter().enumerate() {
        let Some(boot_id) = backend.capture.boot_id.as_deref() else {
            continue;
        };
        for accepted in &backend.accepted {
            let (known, place) = ((boot_id, accepted.cookie), (told(accepted), index));
            let entry = best.entry(known).or_insert(place);
            if place.0 > entry.0 {
                *entry = place;
            }
        }
    }
    for (index, backend) in &mut once {
        let Some(boot_id) = backend.capture.boot_id.clone() else {
            continue;
        };
        let is_elsewhere = |accepted: &Accepted| {
            let place = best.get(&(boot_id.as_str(), accepted.cookie));
            place.is_some_and(|(_, best)| best != index)
        };
        if backend.accepted.iter().any(is_elsewhere) {
            backend.to_mut().accepted.retain(|one| !is_elsewhere(one));
        }
    }
    once.into_iter().map(|(_, backend)| backend).collect()
}

fn is_same(one: &Backend, other: &Backend) -> bool {
    let key = |backend: &Backend| {
        let capture = &backend.capture;
        (
            capture.boot_id.clone(),
            capture.host.clone(),
            capture.start_ns,
        )
    };
    one.capture.start_ns != 0 && key(one) == key(other)
}

/// How much a record tells: its end first, then its beginning.
fn told(accepted: &Accepted) -> u8 {
    let ended = accepted.end != AcceptedEnd::Open;
    2 * u8::from(ended) + u8::from(accepted.established_ns.is_some())
}

/// The processes of each host, a host's own once whatever captures it had.
pub(super) fn hosts(backends: &[Cow<'_, Backend>]) -> Vec<u32> {
    let mut of_hosts: HashMap<(&str, usize), HashSet<u32>> = HashMap::new();
    for (index, backend) in backends.iter().enumerate() {
        let name = backend.capture.boot_id.as_deref();
        let key = name.map_or(("", index), |boot_id| (boot_id, 0));
        let closed = backend.accepted.iter().filter_map(|one| one.pid);
        let ended = backend.exits.iter().map(|exit| exit.pid);
        of_hosts.entry(key).or_default().extend(closed.chain(ended));
    }
    of_hosts.into_values().flatten().collect()
}

/// Part of nginx's capture in which a backend's host was not captured.
pub(super) struct Missed {
    /// Of the whole.
    pub(super) share: f64,
    seconds: f64,
    of_seconds: f64,
}

/// By the hosts' wall clocks.
#[expect(clippy::cast_precision_loss, reason = "seconds need not be exact")]
pub(super) fn missed(nginx: &Nginx, backend: &Backend) -> Option<Missed> {
    let (ours, theirs) = (nginx.anchors.span()?, backend.anchors.span()?);
    let all = ours.1.saturating_sub(ours.0);
    let both = ours
        .1
        .min(theirs.1)
        .saturating_sub(ours.0.max(theirs.0))
        .max(0);
    let missed = all.saturating_sub(both) as f64;
    let apart = ours.1 < theirs.0 || theirs.1 < ours.0;
    Some(Missed {
        share: if apart {
            1.0
        } else {
            missed / (all as f64).max(1.0)
        },
        seconds: missed / 1e9,
        of_seconds: all as f64 / 1e9,
    })
}

impl Missed {
    /// Nobody starts and ends two captures in one moment.
    pub(super) fn is_much(&self) -> bool {
        self.share > 0.1 && self.seconds > 1.0
    }

    pub(super) fn said(&self, host: &str) -> String {
        format!(
            "{host} was not captured in {:.0} of the {:.0} s of nginx's capture (by the hosts' wall \
             clocks): what its processes did then is not known",
            self.seconds, self.of_seconds
        )
    }
}
