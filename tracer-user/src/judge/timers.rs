//! nginx's timer for an answer, as the configuration sets it: where a line says that it ran
//! out in the middle of a head, the silence before a close tells that connection from
//! those which nginx had kept idle and closed without a line.

use super::line::{READING_HEADER, UpstreamLine};
use super::settings;
use crate::nginx::configuration::parse_time_ms;
use crate::nginx::message::MessageKind;
use crate::trace::record::Configuration;

/// `proxy_read_timeout` and its likes, unless they are set.
const DEFAULT_MS: u64 = 60_000;
/// nginx does not set a timer anew that would end less than 300 ms later
/// (`NGX_TIMER_LAZY_DELAY`); a little more for its cached clock.
const LAZY_MS: u64 = 350;
/// A worker that is not stopped is no later than this.
const LATE_MS: u64 = 1000;
const NS_PER_MS: u64 = 1_000_000;

/// How long the timer lasts that this line says has run out after a part of a head. None
/// if the line says something else, if the configuration does not tell, or if idle
/// connections are closed after about the same time.
pub(super) fn of_head(
    configuration: &Configuration,
    version: Option<&str>,
    line: &UpstreamLine,
) -> Option<u64> {
    let waited = line.summary.action.as_deref() == Some(READING_HEADER);
    if line.kind != MessageKind::TimedOut || !waited {
        return None;
    }
    let own = settings::settings_for(configuration, version, line);
    let timer = match own.read_timeout {
        Some(set) => parse_time_ms(&set)?,
        None => {
            let (_, places) = settings::places_of(configuration, line.peer?);
            let name = format!("{}_read_timeout", line.module);
            let unset = !places.is_empty()
                && places
                    .iter()
                    .all(|place| !place.settings.contains_key(&name));
            unset.then_some(DEFAULT_MS)?
        }
    };
    let block = settings::block_of(configuration, line.peer, &line.upstream);
    let pooled = block.is_some_and(|block| settings::keepalive_in_force(block, version) != Some(0));
    let alike = own.keepalive_timeout_ms.is_some_and(|pool| {
        pool + LATE_MS >= timer.saturating_sub(LAZY_MS) && pool <= timer + LATE_MS
    });
    (!(pooled && alike)).then_some(timer * NS_PER_MS)
}

/// Is a silence this long what the timer leaves?
pub(super) fn ran_out(timer_ns: u64, silence_ns: u64) -> bool {
    let earliest = timer_ns.saturating_sub(LAZY_MS * NS_PER_MS);
    earliest <= silence_ns && silence_ns <= timer_ns.saturating_add(LATE_MS * NS_PER_MS)
}
